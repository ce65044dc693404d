"""The benchmark computes its figures and its open-loop load right; wrk and the peers need a real run."""

import asyncio
import re
import subprocess
from xml.etree import ElementTree

import psutil
import pytest
import requests
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from scripts.bench.answers import labels_in
from scripts.bench.chart import CHART, PAGE, Row, draw_chart, read_rows
from scripts.bench.contenders import CONTENDERS, WrongModelError, check_model, end, ours
from scripts.bench.form import TRITON, multipart
from scripts.bench.load import family
from scripts.bench.overload import build_request, send
from scripts.bench.report import RATIOS, print_report, rows_of, spread
from tests.helpers import STREET, wait_until


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
    return {"ready_s": 2.0, "labels": ["Dog"], "samples": [sample]}


@pytest.fixture
def report():
    bare = [{"requests_per_s": speed, "lone_ms": 8.0} for speed in (100.0, 50.0)]
    ours = [one_round(90.0), one_round(48.0)]
    return {
        "machine": {"processor": "Zen 4", "cores": 2, "gpus": []},
        "command": "scripts/benchmark",
        "labels": ["Dog"],
        "results": {
            "bare-int8": bare,
            "ours-int8": ours,
            "mosec": [one_round(20.0), one_round(12.0)],
        },
    }


def test_ratios_are_computed_within_a_round_and_reported_with_their_spread(report, capsys):
    print_report(report)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "ours-int8 / bare-int8 0.93 (0.90–0.96)" in lines
    assert "ours-int8 / mosec 4.25 (4.00–4.50)" in lines
    assert any("a lone client waits 2.0 (2.0–2.0) ms more" in line for line in lines)


def test_a_contender_with_other_labels_than_the_network_is_named(report, capsys):
    print_report(report)
    assert " saw " not in capsys.readouterr().out
    report["results"]["mosec"][1]["labels"] = ["Cat"]
    print_report(report)
    assert "mosec saw [['Dog'], ['Cat']], the network itself ['Dog']" in capsys.readouterr().out


@pytest.mark.parametrize(
    "answer",
    [
        '{"result": ["Dog", "Person"], "status": 1}',
        '[{"result":["Dog","Person"],"status":1}]',
        '{"data": ["{\\"result\\": [\\"Dog\\", \\"Person\\"]}"]}',
    ],
)
def test_labels_are_found_in_every_answer_format(answer):
    assert labels_in(answer) == {"Dog", "Person"}


def test_a_multipart_body_has_the_file_in_its_field():
    form = multipart("data")
    environ = EnvironBuilder(method="POST", headers=form.headers, data=form.body(b"\xff\xd8\r\n"))
    with Request(environ.get_environ()) as request:
        assert request.files["data"].read() == b"\xff\xd8\r\n"


def test_tritons_body_is_the_file_and_its_headers_say_so():
    assert TRITON.body(b"picture") == b"picture"
    assert TRITON.headers["Inference-Header-Content-Length"] == "0"


def test_a_body_is_written_for_every_image(tmp_path):
    images, bodies = tmp_path / "pictures", tmp_path / "bodies"
    images.mkdir()
    bodies.mkdir()
    for name in ("a", "b"):
        (images / f"{name}.jpg").write_text(name)
    TRITON.write_bodies(images, bodies)
    assert [path.read_text() for path in sorted(bodies.iterdir())] == ["a", "b"]


@pytest.mark.slow
def test_a_stopped_server_leaves_no_process():
    process = subprocess.Popen(["bash", "-c", "sleep 600 & wait"])
    wait_until(lambda: len(family(process.pid)) == 2)
    _, child = family(process.pid)
    end(process)
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_the_contender_without_a_model_runs_no_network():
    with ours(STREET, constant=True, decode="exact") as running:
        served = requests.get(running.url.removesuffix("/model_predict"), timeout=30).json()
        assert served["model"] == "constant"
        assert len(labels_in(running.answer)) == 20, "constant logits pass every threshold"


def test_a_server_with_another_model_than_the_benchmarked_one_is_refused(server):
    check_model(server.url, constant=False)
    with pytest.raises(WrongModelError, match="instead of the constant model"):
        check_model(server.url, constant=True)


def test_a_runs_chart_shows_the_medians_of_the_contenders_under_load(report):
    assert rows_of(report) == [Row("this server, int8", 69.0, 12.0), Row("mosec", 16.0, 12.0)]


def test_bars_start_at_zero():
    """The width of a bar is proportional to its value."""
    chart = draw_chart([Row("this server, fp32", 30.0, 100.0), Row("<peer>", 10.0, 400.0)])
    widths = [float(width) for width in re.findall(r'class="bar.*" width="([\d.]+)"', chart)]
    assert widths == pytest.approx([270, 90, 67.5, 270], abs=0.1)
    assert {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(chart)} >= {"desc"}


def test_the_documented_chart_is_drawn_from_the_documented_table():
    rows = read_rows(PAGE.read_text())
    assert {row.name.split()[0] for row in rows} >= {"this", *("mosec", "LitServe", "Triton")}
    assert CHART.read_text() == draw_chart(rows), "python -m scripts.bench.chart draws it"


def test_a_spread_has_the_median_the_least_and_the_most():
    assert spread([3.0, 1.0, 2.0]) == "2.0 (1.0–3.0)"


def test_every_ratio_is_between_contenders_that_exist():
    names = {contender.name for contender in CONTENDERS} | {"bare-fp32", "bare-bf16", "bare-int8"}
    assert {name for pair in RATIOS for name in pair} <= names


def test_the_open_loop_sends_at_its_rate_even_if_answers_are_late(server):
    url = f"{server.url}/model_predict"
    bodies = [build_request(url, STREET.read_bytes()), build_request(url, b"no picture")]
    answers = asyncio.run(send(url, bodies, rate_per_s=10, seconds=3))
    assert 15 <= len(answers) <= 50
    assert {answer.status for answer in answers[::2]} == {200}
    assert {answer.status for answer in answers[1::2]} == {400}
    assert all(0 < answer.seconds < 30 for answer in answers)
