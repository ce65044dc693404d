"""The short form of scripts/chaos passes; its input is reproducible and its checks detect wrong answers."""

import json
import subprocess
import sys

import pytest

from scripts.hostile import __main__ as chaos
from scripts.hostile.bodies import make_cases as odd_bodies
from scripts.hostile.bombs import make_bombs
from scripts.hostile.dice import throw
from scripts.hostile.gauges import Gauges, risen
from scripts.hostile.good import essence, is_same
from scripts.hostile.heavy import heavy_cases
from scripts.hostile.images import make_cases as odd_pictures
from scripts.hostile.judge import Case, find_fault
from scripts.hostile.loglines import check_logs, measure_logs
from scripts.hostile.loglines import find_fault as find_fault_of_line
from scripts.hostile.mutate import MOST_BYTES, damage, make_picture
from scripts.hostile.parts import split_file
from scripts.hostile.pictures import base_pictures
from scripts.hostile.rawhttp import damaged
from scripts.hostile.report import print_report
from scripts.hostile.streams import all_streams
from scripts.hostile.trial import Options, Row
from scripts.hostile.wire import Answer, Exchange, read_answers
from tests.helpers import ROOT

SMALL = 1 << 16  # bytes of a bomb
DIGEST = """
import hashlib
from tests.test_chaos import everything
print(hashlib.sha256(b"".join(everything(3))).hexdigest())
"""


def everything(seed):
    """Yield a part of all input of a seed."""
    yield from (make_picture(seed, index)[1] for index in range(300))
    yield from (make() for name, make in make_bombs(SMALL).items() if "jpeg" in name)
    for cases in (
        odd_pictures(seed, 30),
        odd_bodies(seed, 150),
        damaged(seed, 50),
        heavy_cases(SMALL),
    ):
        yield from (case.data for case in cases)


@pytest.mark.slow(70)
def test_hostile_input_is_refused_and_leaves_nothing_in_the_server(tmp_path, tiny_models):
    options = Options(
        out=tmp_path,
        bundle=tiny_models / "demo" / "1",
        scale=0.002,
        minutes=2,
        bomb_bytes=256 << 10,
        max_lag_s=2.0,
    )
    rows, before, after = chaos.run(options)
    print_report(rows, before, after)
    faults = {row.name: row.faults for row in rows if row.faults}
    assert not faults, json.dumps(faults, indent=1)
    assert [row.name for row in rows] == [*chaos.PHASES, "settling", "logs"]
    assert all(row.sent for row in rows if row.name in chaos.PHASES)
    assert sum(row.good for row in rows) > 50
    assert rows[chaos.PHASES.index("disturb")].deaths == 1


@pytest.mark.slow
def test_the_same_seed_sends_the_same_bytes_in_any_process():
    here = [
        subprocess.run(
            [sys.executable, "-c", DIGEST], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert here[0] == here[1]
    assert [make_picture(1, index) for index in range(50)] != [
        make_picture(2, index) for index in range(50)
    ]


@pytest.mark.parametrize("name", sorted(base_pictures()))
def test_a_file_equals_its_parts_even_if_it_is_damaged(name):
    data = base_pictures()[name]
    assert len(split_file(data)) > 1
    for number in range(100):
        broken = damage(data, throw(name, number))
        assert b"".join(split_file(broken)) == broken
        assert len(broken) <= MOST_BYTES


@pytest.mark.slow
def test_the_bombs_are_small_or_of_the_requested_size():
    sizes = {name: len(make()) for name, make in make_bombs(SMALL).items()}
    assert sizes.pop("webp-38-bytes") == 38
    assert max(sizes.values()) < 500_000


def test_answers_on_one_connection_are_separated():
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    chunked = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    going_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    answers, rest = read_answers(going_on + one + chunked + one[:-1])
    assert [(each.status, each.body) for each in answers] == [(200, b"ok"), (404, b"abc")]
    assert rest == one[:-1]
    assert read_answers(one.replace(b"ok", b""), bodiless=True)[0][0].status == 200


PROBLEM = {"content-type": "application/problem+json"}
TEXT = b'{"detail": "no"}'


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ([Answer(200, {}, b"anything")], ""),
        ([Answer(400, PROBLEM, TEXT)], ""),
        ([Answer(400, {}, b'{"error": "no"}')], ""),
        ([Answer(501, PROBLEM, TEXT)], ""),
        ([Answer(429, PROBLEM | {"retry-after": "1"}, TEXT)], ""),
        ([Answer(429, PROBLEM, TEXT)], "429 without Retry-After"),
        ([Answer(500, PROBLEM, TEXT)], "500"),
        ([Answer(504, PROBLEM, TEXT)], "504"),
        ([Answer(400, PROBLEM, b" " * 5000)], "an error of over 4,096 bytes"),
        ([Answer(400, {}, b"<html>")], "an error that is no JSON"),
        ([Answer(400, {}, b"[]")], "an error of no known form"),
        ([Answer(404, PROBLEM, b'{"detail": "/hidden"}')], "an answer to an embedded request"),
        ([Answer(200, {}, b"")] * 2, "more answers than are right"),
        ([], "no answer"),
    ],
)
def test_wrong_answers_are_named(answers, fault):
    case = Case("a case", b"POST / HTTP/1.1\r\n\r\n", secret=b"hidden")
    assert find_fault(case, Exchange(answers, seconds=1.0)).partition(": ")[0] == fault


def test_an_answer_after_the_deadline_is_a_fault():
    done = Exchange([Answer(200, {}, b"")], seconds=40.0)
    assert find_fault(Case("a case", b""), done) == "slower than 35 s: 40.0 s"


def test_every_stream_declares_how_many_answers_are_right():
    streams = list(all_streams())
    assert len(streams) > 250
    assert len({case.name for case in streams}) == len(streams)
    hidden = [case for case in streams if case.secret]
    assert len(hidden) > 100
    assert all(case.most == 1 for case in hidden)


def test_right_answers_may_differ_in_times_ids_and_the_last_digits():
    one = {
        "labels": [{"label": "Car", "score": 0.91}],
        "request_id": "1",
        "timings_ms": {"total": 3},
    }
    other = {"labels": [{"label": "Car", "score": 0.9101}], "request_id": "2", "timings_ms": {}}
    assert is_same(essence(one), essence(other))
    for wrong in (0.93, "0.91", None):
        other["labels"][0]["score"] = wrong
        assert not is_same(essence(one), essence(other))


def test_leftovers_of_a_server_are_named():
    before = Gauges(workers=2, worker_mib=700, nginx_mib=5, descriptors=100, threads=27)
    assert risen(before, Gauges(2, 940, 30, 110, 30, 0.5)) == []
    lines = risen(before, Gauges(1, 1000, 50, 200, 50, 30))
    assert [line.partition(" ")[0] for line in lines] == [
        *("worker_mib", "nginx_mib", "descriptors", "threads", "temporary_mib", "workers")
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"a": 1}', ""),
        (b"Traceback:", "a line that is no JSON"),
        (b"\xff", "a line that is no JSON"),
        (b"[]", "a line that is no JSON object"),
        (b'{"a": "' + b"x" * 2048 + b'"}', "a line of over 2,048 bytes"),
        ('{"a": "\x85"}'.encode(), "a raw control character"),
        ('{"a": "\u2028"}'.encode(), "a raw control character"),
    ],
)
def test_bad_log_lines_are_found(line, fault):
    assert find_fault_of_line(line) == fault


def test_only_log_lines_since_the_start_are_checked_even_after_a_rotation(tmp_path):
    log = tmp_path / "gunicorn.log"
    log.write_bytes(b"starting\n")
    begun = measure_logs(tmp_path)
    (tmp_path / "gunicorn.log.1").write_bytes(log.read_bytes() + b"odd\n")
    log.write_bytes(b'{"a": 1}\nodder\n{"half')
    found = [line for _, line in check_logs(tmp_path, begun)]
    assert found == ["b'odd'", "b'odder'"]


def test_the_table_has_a_line_for_each_phase_and_names_each_fault(capsys):
    row = Row("bodies")
    row.add("a", Exchange([Answer(200, {}, b"")], seconds=0.5))
    row.add("b", Exchange([Answer(429, {}, b"")], seconds=2.5))
    row.add("c", Exchange([Answer(500, {}, b"")]))
    row.add("d", Exchange([]))
    for number in range(9):
        row.add_fault("b: 500", f"place {number}")
    print_report([row, Row("slow", cut=True)], Gauges(workers=2), Gauges(workers=2))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "bodies 0 4 1 0 1 1 1 2.5 0.00 0 +0 0 9 faults" in lines
    assert "slow 0 0 0 0 0 0 0 0.0 0.00 0 +0 0 cut" in lines
    assert "bodies, 9 times: b: 500" in lines
    assert "place 4" in lines
    assert "place 5" not in lines


def test_a_phase_without_time_left_is_cut():
    row = Row("bodies", until=0.0)
    assert row.out_of_time
    assert row.cut
