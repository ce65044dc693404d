"""A reduced precision is served only if it was measured to agree."""

import dataclasses
import json
import math

import numpy as np
import pytest

from app.errors import BundleError
from app.models.agreement import Agreement, ClassCount, Count, compare
from app.models.precision import (
    MAX_REPORT_BYTES,
    MIN_AGREEMENT,
    Measurement,
    Report,
    choose_precision,
    digest_network,
    read_report,
)
from app.processing.decision import Decision
from app.system.machine import processor
from tests.test_untrusted_files import SPECIAL, make_special

FINE = {"fp32": "", "bf16": "", "int8": ""}
RUST = ClassCount("Rust", Count(200, 1))


def row(precision, differing, images_per_s, device="cpu", images=1000, **others):
    count = Count(images, differing)
    agreement = others.pop("agreement", Agreement(count, count, 3, 2, RUST))
    return Measurement(
        device, precision, agreement, 0.5, 0.01, images_per_s, 24.0, "Zen 4", **others
    )


def report(*rows):
    return Report("abc", "def", 500, 1000, rows)


MEASURED = report(row("fp32", 0, 25), row("bf16", 4, 50), row("int8", 5, 95))


def choose(report, precision="auto", insist=False, usable=FINE, device="cpu"):
    return choose_precision(report, device, usable, precision, insist)


def test_auto_takes_the_fastest_that_agrees():
    precision, reason = choose(MEASURED)
    assert precision == "bf16"
    assert reason == (
        "the fastest that agrees: bf16 gave fp32's label set for 99.6 % of 1,000 images not calibrated on "
        "(at least 99.0 % with 95 % confidence), 50 images/s on Zen 4, which is not this processor"
    )
    assert choose(report(row("bf16", 0, 50), row("int8", 4, 95)))[0] == "int8"


def test_the_gate_is_the_bound_and_not_the_counted_share():
    assert MIN_AGREEMENT == 0.99
    assert choose(report(row("bf16", 0, 50, images=299)))[0] == "bf16"
    assert choose(report(row("bf16", 0, 50, images=298)))[0] == "fp32"
    assert choose(report(row("bf16", 1, 50, images=473)))[0] == "bf16"
    assert choose(report(row("bf16", 1, 50, images=472)))[0] == "fp32"
    assert choose(report(row("bf16", 3, 50, images=500)))[0] == "fp32"


def test_images_with_a_label_must_agree_too():
    """A detector of rare faults agrees on all images, because nearly none has a fault."""
    agreement = Agreement(
        Count(10_000, 10), Count(100, 10), 1, 1, ClassCount("Rust", Count(100, 10))
    )
    precision, reason = choose(report(row("int8", 0, 95, agreement=agreement)))
    assert precision == "fp32"
    assert "int8: 10 of 100 images with a label differ, which shows" in reason


def test_no_single_class_may_rule_out_99_percent():
    def agreement(images, differing, seen=20):
        worst = ClassCount("Rust", Count(images, differing))
        return row(
            "int8", 0, 95, agreement=Agreement(Count(5000, 5), Count(5000, 5), 20, seen, worst)
        )

    assert (
        choose(report(agreement(20, 1)))[0] == "int8"
    )  # 18 % of the classes that agree in 99 % look so
    assert choose(report(agreement(20, 3)))[0] == "fp32"
    assert choose(report(agreement(2, 2)))[0] == "fp32"  # it never fires
    assert (
        choose(report(agreement(20, 3, seen=1000)))[0] == "int8"
    )  # one of a thousand may by chance
    _, reason = choose(report(agreement(20, 20)))
    assert "Rust differs on 20 of the 20 images where either names it, which rules out" in reason


def measure_row(logits, reference):
    """Return int8's row for logits of one class, measured as ``scripts/optimize`` does it."""
    agreement = compare(Decision(), logits, reference, ["Rust"], MIN_AGREEMENT)
    return row("int8", 0, 95, agreement=agreement)


@pytest.mark.parametrize("images", [100, 1000, 10_000, 30_000])
def test_a_network_that_never_fires_for_a_rare_class_is_refused(images):
    reference = np.full((images, 1), -3, np.float32)
    reference[::100] = 3  # one image in a hundred: silence is right on 99 % of them
    silent = np.full((images, 1), -3, np.float32)
    assert choose(report(measure_row(silent, reference)))[0] == "fp32"
    # A rarer class, even though all the images together show far more than 99 %.
    reference[:] = -3
    reference[: images // 1000 + 2] = 3
    assert choose(report(measure_row(silent, reference)))[0] == "fp32"


def test_a_network_that_answers_nan_is_refused_even_if_no_image_has_a_label():
    reference = np.full((1000, 1), -3, np.float32)
    assert choose(report(measure_row(np.full_like(reference, np.nan), reference)))[0] == "fp32"


def test_auto_falls_back_to_fp32_with_a_reason():
    assert choose(None) == (
        "fp32",
        "no reduced precision was measured; scripts/optimize measures them",
    )
    assert choose(report(row("int8", 4, 95, images=500))) == (
        "fp32",
        "no reduced precision agrees here (int8: 4 of 500 images differ, which shows an agreement of at least "
        "98.1 % with 95 % confidence; for 99 % no more than 4 of 913 may differ); scripts/optimize measures them",
    )


def test_the_reason_states_if_the_speed_is_this_processors():
    here = dataclasses.replace(row("bf16", 0, 50), processor=processor())
    assert choose(report(here))[1].endswith(f"50 images/s on {processor()}")


def test_auto_skips_precisions_that_this_machine_cannot_run():
    assert choose(MEASURED, usable=FINE | {"bf16": "the processor has none"})[0] == "fp32"


def test_a_measurement_on_one_kind_of_device_does_not_apply_to_another():
    assert choose(MEASURED, device="cuda", usable={"fp32": "", "fp16": ""})[0] == "fp32"
    on_gpu = report(row("bf16", 0, 50), row("fp16", 0, 4000, "cuda"))
    assert choose(on_gpu, device="cuda", usable={"fp32": "", "fp16": ""})[0] == "fp16"


def test_an_explicit_precision_must_have_passed():
    assert choose(MEASURED, "bf16")[0] == "bf16"
    assert choose(MEASURED, "fp32")[0] == "fp32"
    assert choose(None, "fp32") == ("fp32", "asked for")
    with pytest.raises(
        BundleError, match=r"SERVING_PRECISION=int8 is refused: int8: 5 of 1,000 .*SERVING_INSIST"
    ):
        choose(MEASURED, "int8")
    with pytest.raises(BundleError, match="was not measured"):
        choose(None, "int8")


def test_forcing_a_precision_serves_it_with_a_warning():
    precision, reason = choose(MEASURED, "int8", insist=True)
    assert precision == "int8"
    assert "insisted on, though int8: 5 of 1,000 images differ" in reason


def test_forcing_a_precision_does_not_help_if_it_cannot_run():
    with pytest.raises(
        BundleError, match="fp16 cannot be served here: cpu knows only fp32, bf16, int8"
    ):
        choose(None, "fp16", insist=True)
    with pytest.raises(BundleError, match="there is no int8 network"):
        choose(MEASURED, "int8", insist=True, usable=FINE | {"int8": "there is no int8 network"})


def test_a_report_is_read_back_unchanged_for_its_own_weights_only(tmp_path):
    path = tmp_path / "precision.json"
    assert read_report(path, "abc", "def", None) is None
    broken = dataclasses.replace(row("fp16", 1000, 1), max_deviation=None, mean_deviation=None)
    expected = dataclasses.replace(MEASURED, measurements=(*MEASURED.measurements, broken))
    path.write_text(expected.as_text())
    assert read_report(path, "abc", "def", None) == expected
    assert read_report(path, "other weights", "def", None) is None
    assert read_report(path, "abc", "other config", None) is None


def test_a_report_lists_images_shares_and_bounds():
    content = json.loads(MEASURED.as_text())
    assert content["format"] == 3
    assert content["confidence"] == 0.95
    assert (content["calibrated"], content["measured"]) == (500, 1000)
    count = {"images": 1000, "differing": 4, "share": 0.996, "bound": 0.99087}
    agreement = content["measurements"][1]["agreement"]
    assert agreement["everywhere"] == agreement["labelled"] == count
    assert (agreement["classes"], agreement["classes_seen"]) == (3, 2)
    assert agreement["worst_class"]["name"] == "Rust"
    assert agreement["worst_class"]["count"]["images"] == 200


OLD = {"weights": "abc", "pictures": 500, "measurements": []}


def spoil_row(**changes):
    """Return a report's text with another value in the first row."""
    content = json.loads(MEASURED.as_text())
    content["measurements"][0] |= changes
    return json.dumps(content)


def spoil_agreement(**changes):
    return spoil_row(
        agreement=json.loads(MEASURED.as_text())["measurements"][0]["agreement"] | changes
    )


def spoil(**changes):
    """Return a report's text with another first count in the first row."""
    content = json.loads(MEASURED.as_text())
    content["measurements"][0]["agreement"]["everywhere"] |= changes
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "no JSON object"),
        ("[" * 100_000, "recursion"),
        (json.dumps(OLD), "its format is None, this release reads 3"),
        ('{"format": 3}', "measurements"),
        ('{"format": 3, "measurements": [{"a": 1}]}', "agreement"),
        ('{"format": 3, "measurements": 3}', "not iterable"),
        (spoil(images=3, differing=4), "4 of 3 images differ"),
        (spoil(differing=-1), "differing is -1"),
        (" " * (MAX_REPORT_BYTES + 1), "at most 1000000 are read"),
        (spoil(images=math.inf), "images is Infinity"),
        (spoil(images=10**400), "images is 1000000"),
        (spoil(images=10**9, differing=5 * 10**8), "images is 1000000000"),
        (spoil(images=True, differing=0), "images is true"),
        (spoil(images=999), "more images with a label than images"),
        (spoil_agreement(classes_seen=10**400), "classes_seen is 1000000"),
        (spoil_row(precision=["int8"]), 'precision is ["int8"]'),
        (spoil_row(network={}), "network is {}"),
        (spoil_row(images_per_s=math.nan), "images_per_s is NaN"),
        (spoil_row(images_per_s=-1), "images_per_s is -1"),
    ],
)
def test_a_file_that_is_not_a_report_of_this_release_is_ignored_with_one_warning(
    tmp_path, caplog, text, reason
):
    path = tmp_path / "precision.json"
    path.write_text(text)
    assert read_report(path, "abc", "def", None) is None
    assert read_report(path, "abc", "def", None) is None
    (warning,) = caplog.messages
    assert warning.startswith(f"{path} is left out, so fp32 is served")
    assert reason in warning


@pytest.mark.parametrize("kind", SPECIAL)
def test_an_irregular_file_is_not_a_report_and_blocks_no_reader(tmp_path, caplog, kind):
    make_special(tmp_path / "precision.json", kind)
    assert read_report(tmp_path / "precision.json", "abc", "def", None) is None
    assert "precision.json is left out, so fp32 is served" in caplog.text


def test_a_report_applies_only_to_the_int8_network_that_it_measured(tmp_path, caplog):
    network = tmp_path / "int8.xml"
    network.write_text("<net/>")
    network.with_suffix(".bin").write_bytes(b"weights")
    path = tmp_path / "precision.json"
    quantised = row("int8", 0, 95, network=digest_network(network))
    path.write_text(report(row("bf16", 0, 50), quantised).as_text())
    assert choose(read_report(path, "abc", "def", network))[0] == "int8"
    assert choose(read_report(path, "abc", "def", None))[0] == "bf16"
    assert not caplog.messages
    network.with_suffix(".bin").write_bytes(b"other weights")
    assert choose(read_report(path, "abc", "def", network))[0] == "bf16"
    assert "measured another int8 network" in caplog.text
