"""The benchmark's own sums and its open-loop load; wrk and the peers are only there where it is run."""

import asyncio

import pytest

from scripts.bench.contenders import CONTENDERS
from scripts.bench.overload import build_request, send
from scripts.bench.report import RATIOS, plot_report, print_report, spread
from tests.helpers import STREET


def one_round(requests_per_s, p50_ms=10.0, p99_ms=12.0):
    sample = {
        "clients": 32,
        "requests_per_s": requests_per_s,
        "p50_ms": p50_ms,
        "p95_ms": p50_ms,
        "p99_ms": p99_ms,
        "errors": 0,
        "cpu_s_per_request": 0.02,
        "pss_mib": 300.0,
    }
    return {"ready_s": 2.0, "samples": [sample]}


@pytest.fixture
def report():
    bare = [{"requests_per_s": speed, "lone_ms": 8.0} for speed in (100.0, 50.0)]
    ours = [one_round(90.0), one_round(48.0)]
    return {
        "machine": {"processor": "Zen 4", "cores": 2, "gpus": []},
        "command": "scripts/benchmark",
        "results": {
            "bare-int8": bare,
            "ours-int8": ours,
            "mosec": [one_round(20.0), one_round(12.0)],
        },
    }


def test_ratios_are_taken_within_a_round_and_told_with_their_spread(report, capsys):
    print_report(report)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "ours-int8 / bare-int8 0.93 (0.90–0.96)" in lines
    assert "ours-int8 / mosec 4.25 (4.00–4.50)" in lines
    assert any("a lone client waits 2.0 (2.0–2.0) ms more" in line for line in lines)


def test_a_plot_is_drawn(report, tmp_path):
    plot_report(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_a_spread_has_the_median_the_least_and_the_most():
    assert spread([3.0, 1.0, 2.0]) == "2.0 (1.0–3.0)"


def test_every_ratio_is_between_contenders_that_exist():
    names = {contender.name for contender in CONTENDERS} | {"bare-fp32", "bare-bf16", "bare-int8"}
    assert {name for pair in RATIOS for name in pair} <= names


def test_the_open_loop_sends_at_its_rate_whatever_the_answers_do(server):
    url = f"{server.url}/model_predict"
    requests = [build_request(url, STREET.read_bytes()), build_request(url, b"no picture")]
    answers = asyncio.run(send(url, requests, rate_per_s=10, seconds=3))
    assert 15 <= len(answers) <= 50
    assert {answer.status for answer in answers[::2]} == {200}
    assert {answer.status for answer in answers[1::2]} == {400}
    assert all(0 < answer.seconds < 30 for answer in answers)
