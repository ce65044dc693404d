"""A reduced precision is served where it was measured to agree, and nowhere else."""

import dataclasses

import pytest

from app.errors import BundleError
from app.precision import MIN_AGREEMENT, Measurement, Report, choose_precision, read_report

FINE = {"fp32": "", "bf16": "", "int8": ""}


def row(precision, agreement, images_per_s, device="cpu"):
    return Measurement(device, precision, agreement, 0.5, 0.01, images_per_s, 24.0, "Zen 4")


def report(*rows):
    return Report("abc", 200, rows)


MEASURED = report(row("fp32", 1.0, 25), row("bf16", 0.995, 50), row("int8", 0.985, 95))


def choose(found, wanted="auto", insist=False, usable=FINE, device="cpu"):
    return choose_precision(found, device, usable, wanted, insist)


def test_auto_takes_the_fastest_that_agrees():
    precision, reason = choose(MEASURED)
    assert precision == "bf16"
    assert "99.50% of 200 pictures" in reason
    better = dataclasses.replace(
        MEASURED, measurements=(row("bf16", 1.0, 50), row("int8", 0.99, 95))
    )
    assert choose(better)[0] == "int8"


def test_the_gate_is_at_least_99_percent():
    assert MIN_AGREEMENT == 0.99
    assert choose(report(row("bf16", 0.99, 50)))[0] == "bf16"
    assert choose(report(row("bf16", 0.9899, 50)))[0] == "fp32"


def test_auto_falls_back_to_fp32_and_says_why():
    assert choose(None) == (
        "fp32",
        "no reduced precision was measured; scripts/optimize measures them",
    )
    precision, reason = choose(report(row("int8", 0.9, 95)))
    assert precision == "fp32"
    assert "no reduced precision agrees" in reason


def test_auto_leaves_out_what_this_machine_cannot_run():
    assert choose(MEASURED, usable=FINE | {"bf16": "the processor has none"})[0] == "fp32"


def test_what_was_measured_on_one_kind_of_device_says_nothing_about_another():
    assert choose(MEASURED, device="cuda", usable={"fp32": "", "fp16": ""})[0] == "fp32"
    on_gpu = report(row("bf16", 1.0, 50), row("fp16", 1.0, 4000, "cuda"))
    assert choose(on_gpu, device="cuda", usable={"fp32": "", "fp16": ""})[0] == "fp16"


def test_an_explicit_precision_must_have_earned_it():
    assert choose(MEASURED, "bf16")[0] == "bf16"
    assert choose(MEASURED, "fp32")[0] == "fp32"
    assert choose(None, "fp32") == ("fp32", "asked for")
    with pytest.raises(
        BundleError, match=r"SERVING_PRECISION=int8 is refused.*98\.50%.*99% .*SERVING_INSIST"
    ):
        choose(MEASURED, "int8")
    with pytest.raises(BundleError, match="was not measured"):
        choose(None, "int8")


def test_insisting_serves_it_all_the_same_and_says_so():
    precision, reason = choose(MEASURED, "int8", insist=True)
    assert precision == "int8"
    assert "insisted on, though int8 gave the label sets of fp32 for 98.50%" in reason


def test_insisting_does_not_help_where_it_cannot_run():
    with pytest.raises(
        BundleError, match="fp16 cannot be served here: cpu knows only fp32, bf16, int8"
    ):
        choose(None, "fp16", insist=True)
    with pytest.raises(BundleError, match="there is no int8 network"):
        choose(MEASURED, "int8", insist=True, usable=FINE | {"int8": "there is no int8 network"})


def test_a_report_comes_back_as_it_was_and_is_about_its_own_weights(tmp_path):
    path = tmp_path / "precision.json"
    assert read_report(path, "abc") is None
    path.write_text(MEASURED.as_text())
    assert read_report(path, "abc") == MEASURED
    assert read_report(path, "other weights") is None


@pytest.mark.parametrize("text", ["", "[]", '{"weights": "abc"}', '{"measurements": [{"a": 1}]}'])
def test_a_file_that_is_no_report_is_told(tmp_path, text):
    path = tmp_path / "precision.json"
    path.write_text(text)
    with pytest.raises(BundleError, match=r"precision\.json is no precision report"):
        read_report(path, "abc")
