"""Logs have one short JSON object a line for any client input, and logging never blocks."""

import json
import logging
import logging.config
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.logs import JsonFormatter, logging_config, request_id
from app.system.log_writer import MAX_LINE_BYTES, MAX_LINES, MAX_QUEUED_BYTES
from tests.helpers import ROOT

HOSTILE = {
    "control characters": "/\x01" * 1330,
    "next line": '/a\x85{"level":"CRITICAL"}',
    "separators": "/\u2028\u2029",
    "terminal commands": "/\x9b2J\x1b[2J\x7f",
    "right to left": "/\u202egpj.exe",
    "lone surrogates": "\ud800" * 400,
    "pictographs": "\U0001f600" * 8000,
    "quotes": '"\\' * 8000,
    "newlines": "\r\n" * 8000,
}


def write(message="%s came", arguments=("it",), **changes) -> str:
    record = logging.LogRecord("app.x", logging.INFO, "x.py", 1, message, arguments, None)
    record.__dict__.update(changes)
    return JsonFormatter().format(record)


def line(**changes) -> dict:
    return json.loads(write(**changes))


def test_a_log_line_is_json_with_time_level_logger_message_and_pid():
    written = line()
    assert (written["message"], written["level"], written["logger"]) == ("it came", "INFO", "app.x")
    assert written["time"].endswith("+00:00")
    assert "request_id" not in written


def test_a_log_line_within_a_request_has_its_id():
    token = request_id.set("abc")
    try:
        assert line()["request_id"] == "abc"
    finally:
        request_id.reset(token)


def test_extra_fields_are_logged_beside_the_others():
    assert line(fields={"model": "voc"})["model"] == "voc"


def fall(depth: int) -> None:
    if depth:
        fall(depth - 1)
    raise ValueError("boom\nboom")


def caught(function, *arguments):
    """Return the error that a call raises, as logging has it."""
    try:
        function(*arguments)
    except (ValueError, KeyError):
        return sys.exc_info()
    raise AssertionError("nothing was raised")


def test_a_traceback_stays_within_its_log_line():
    written = line(exc_info=caught(fall, 0))
    assert "ValueError: boom" in written["traceback"]
    assert "in fall" in written["traceback"]


def test_a_deep_traceback_keeps_its_innermost_frames():
    text = write(exc_info=caught(fall, 200))
    assert len(text) < MAX_LINE_BYTES
    traceback = json.loads(text)["traceback"]
    assert traceback.endswith("ValueError: boom\nboom\n")
    assert 'raise ValueError("boom' in traceback


def test_a_traceback_shows_the_cause_too():
    def relay():
        try:
            fall(0)
        except ValueError as error:
            raise KeyError("relayed") from error

    traceback = line(exc_info=caught(relay))["traceback"]
    assert traceback.index("ValueError: boom") < traceback.index("KeyError: 'relayed'")


def test_an_error_with_a_long_text_keeps_its_traceback():
    def fail():
        raise ValueError("\u2028" * 1_000_000)

    text = write(exc_info=caught(fail))
    assert len(text) < MAX_LINE_BYTES
    assert "in fail" in json.loads(text)["traceback"]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_log_line_is_short_printable_json_for_any_client_input(text):
    fields = dict.fromkeys(["method", "path", "client", "model", "code"], text)
    token = request_id.set(text)
    try:
        written = write(arguments=(text,), fields=fields, exc_info=caught(int, text))
    finally:
        request_id.reset(token)
    assert len(written) < MAX_LINE_BYTES
    assert written.isprintable()
    assert written.isascii()
    assert json.loads(written)["level"] == "INFO"
    json.loads(written)["path"].encode()


@pytest.mark.parametrize("count", [40, 10_000])
def test_many_fields_do_not_make_a_log_line_long(count):
    fields = {f"{number:x<100}": "\u2028" * 1000 for number in range(count)}
    assert len(write(fields=fields)) < MAX_LINE_BYTES


def test_a_path_is_cut_at_three_hundred_characters():
    assert line(fields={"path": "/a" * 4000})["path"] == "/a" * 150 + "..."


class Odd:
    """An object that cannot be shown."""

    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (object, "<class 'object'>"),
        (10**5000, "an integer of 16,610 bits"),
        (float("nan"), "nan"),
        (b"x" * 10_000, "bytes of 10,000"),
        ([0] * 10_000, "list of 10,000"),
        (Odd(), "<Odd>"),
        (None, None),
        (True, True),
        (0.25, 0.25),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_is_long_or_unknown_to_json_is_abbreviated(value, written):
    assert line(fields={"value": value})["value"] == written


def test_arguments_that_do_not_fit_the_message_are_logged():
    assert line(message="%d came")["message"] == "%d came (TypeError in its arguments)"


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_libraries_that_log_client_input_stay_quiet_at_every_level(level):
    config = logging_config(level)
    assert config["root"]["level"] == level
    logging.config.DictConfigurator(config)
    for name in ("PIL", "python_multipart", "urllib3"):
        assert config["loggers"][name]["level"] == ("ERROR" if level == "ERROR" else "WARNING")


@contextmanager
def running(program: str):
    """Run a program whose standard output is a pipe read only by the test; stop it afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


BEGIN = """
import logging, logging.config, os, sys, time
from app.logs import logging_config
logging.config.dictConfig(logging_config("INFO"))
logger = logging.getLogger("test")
"""

UNREAD = f"""{BEGIN}
for number in range(20_000):
    logger.info("line %d", number, extra={{"fields": {{"padding": "x" * 250}}}})
print("done", file=sys.stderr, flush=True)
sys.stdin.readline()
"""


def test_logging_never_waits_for_a_reader_and_a_later_line_counts_the_dropped_ones():
    with running(UNREAD) as process:
        assert process.stderr.readline() == "done\n"  # no line has been read yet
        lines = []
        while "dropped" not in (read := json.loads(process.stdout.readline())):
            lines.append(read)
        assert [each["message"] for each in lines] == [f"line {n}" for n in range(len(lines))]
        process.communicate("go on\n", timeout=20)
    assert read["level"] == "WARNING"
    assert read["dropped"] > 20_000 - MAX_LINES - 1000  # the pipe holds some hundreds
    assert process.returncode == 0


def test_the_queue_is_bounded_in_bytes():
    assert MAX_LINES * MAX_LINE_BYTES <= MAX_QUEUED_BYTES == 4 * 1024 * 1024
    measure = f"{UNREAD.replace('250', '10_000')}\nfrom app.system.log_writer import stdout\n"
    measure += "print(stdout._queue.qsize(), file=sys.stderr)\n"
    with running(measure) as process:
        process.stderr.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        assert int(process.stderr.readline()) == MAX_LINES


def test_a_process_ends_even_if_its_log_is_not_read():
    with running(UNREAD) as process:
        process.stderr.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(timeout=20) == 0


def test_the_last_lines_are_written_before_the_process_ends():
    done = subprocess.run(
        [sys.executable, "-c", f"{BEGIN}logger.info('the last words')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["message"] == "the last words"


def test_a_log_that_cannot_be_written_stops_no_request():
    program = f"""{BEGIN}
os.close(0)
for number in range(100):
    logger.info("line %d", number)
from app.system.log_writer import stdout
stdout.flush(10)
print(stdout.dropped, file=sys.stderr)
"""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    assert done.stderr == "100\n"


def test_after_a_fork_both_processes_write_each_line_once():
    program = f"""{BEGIN}
for number in range(200):
    logger.info("before %d", number)
if os.fork() == 0:
    logger.info("child")
    sys.exit()
logger.info("parent")
os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    messages = [json.loads(line)["message"] for line in done.stdout.splitlines()]
    assert sorted(messages) == sorted([f"before {n}" for n in range(200)] + ["child", "parent"])


# Under gevent, in the way that Gunicorn's worker patches

TOGETHER = f"""{BEGIN}
from app.gunicorn.worker import ServingWorker
worker = ServingWorker.__new__(ServingWorker)
worker.sockets = []
worker.patch()
import gevent
from gevent.monkey import get_original

last, silence = {{}}, {{}}
end = time.monotonic() + 4

def log(name, pause):
    last[name] = time.monotonic()
    while time.monotonic() < end:
        logger.info("from %s", name)
        now = time.monotonic()
        silence[name] = max(silence.get(name, 0), now - last[name])
        last[name] = now
        pause(0.0001)

native_sleep = get_original("time", "sleep")
for number in range(2):
    get_original("_thread", "start_new_thread")(log, (f"thread {{number}}", native_sleep))
greenlets = [gevent.spawn(log, f"greenlet {{number}}", gevent.sleep) for number in range(4)]
gevent.joinall(greenlets, timeout=8)
native_sleep(0.5)
now = time.monotonic()
for name in last:
    silence[name] = max(silence.get(name, 0), end - last[name])
print(max(silence.values()), file=sys.stderr, flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_concurrent_native_threads_and_greenlets_are_all_logged():
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert float(done.stderr.splitlines()[-1]) < 1


def test_errors_of_greenlets_and_threads_are_logged():
    program = f"""{TOGETHER[: TOGETHER.index("last, silence")]}
def fail():
    raise ValueError("unforeseen")
gevent.spawn(fail).join()
gevent.get_hub().threadpool.spawn(fail).wait()
get_original("_thread", "start_new_thread")(fail, ())
get_original("time", "sleep")(0.5)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 3
    for each in lines:
        assert "unexpected ValueError" in each["message"]
        assert "ValueError: unforeseen" in each["traceback"]
