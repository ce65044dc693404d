"""scripts/predict sends folders of images to the real server, and can be resumed, interrupted and refused."""

import csv
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import requests

from scripts.predicting import server as way
from scripts.predicting.errors import Stop
from scripts.predicting.formats import COLUMNS, Csv, JsonLines, encode_cells
from scripts.predicting.pictures import find_pictures
from scripts.predicting.rows import Row
from scripts.predicting.server import Server
from scripts.predicting.table import Table
from tests.helpers import ROOT, SAMPLES, STREET, gray, wait_until
from tests.server import free_port

PROGRAM = ROOT / "scripts" / "predict"
ROW = ["a.jpg", "ok", "Dog | Cat", '{"Dog": 0.9, "Cat": 0.8}', "demo", "1", ""]
FAILED = ["b.jpg", "queue_full", "", "", "", "", "come again"]
HEADER = encode_cells(COLUMNS)
LABELS = [{"label": "Dog", "score": 0.9}, {"label": "Cat", "score": 0.8}]
ANSWERED = Row("a.jpg", "ok", model="demo", version=1, image={"labels": LABELS})


def command(url, *words):
    return [PROGRAM, *words, "--url", url]


def predict(url, *words, **options):
    """Run the script; paths are relative to ``cwd``."""
    options = {"capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run(command(url, *words), check=False, **options)


def read(file):
    """Return a CSV file's rows, with names that are not UTF-8 as Python writes them."""
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as text:
        return list(csv.DictReader(text, strict=True))


def copy_street(folder, count):
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03}.jpg").symlink_to(STREET)


def kill_within(process, out, how, rows):
    """Send a signal once that many rows are there; return the exit status."""
    with process:
        wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") > rows, 60)
        process.send_signal(how)
        return process.wait(timeout=30)


@contextmanager
def stand_in(answers):
    """Run a server with these answers, one for each connection and the last forever; None hangs up."""
    answers = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer is None:
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# The whole program and the whole server


def test_the_samples_get_their_labels(server, tmp_path):
    out = tmp_path / "out.csv"
    done = predict(server.url, "samples", "--csv", out, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "")
    assert "8 pictures answered" in done.stderr
    with (SAMPLES / "labels.csv").open(newline="") as text:
        expected = {row["image"]: set(row["labels"].split(" | ")) for row in csv.DictReader(text)}
    rows = read(out)
    assert [row["file"] for row in rows] == [f"samples/{name}" for name in sorted(expected)]
    for row in rows:
        assert set(row["labels"].split(" | ")) == expected[row["file"].removeprefix("samples/")]
        assert list(json.loads(row["scores"])) == row["labels"].split(" | "), "the strongest first"
        assert [row[name] for name in ("status", "model", "version", "error")] == [
            "ok",
            "demo",
            "1",
            "",
        ]


def test_photographs_get_the_answers_of_the_route(server, photos, tmp_path):
    out = tmp_path / "out.csv"
    words = ["--scores", "all", "--top-k", "3", "--threshold", "0.2", "--model", "demo"]
    done = predict(server.url, photos[0].parent, "--csv", out, "--version", "1", *words)
    assert done.returncode == 0, done.stderr
    rows = read(out)
    assert [row["file"] for row in rows] == [str(path) for path in photos]
    for row, path in zip(rows, photos, strict=True):
        query = {"scores": "all", "top_k": 3, "threshold": 0.2}
        answer = requests.post(
            f"{server.url}/predict", files={"image": path.read_bytes()}, params=query, timeout=60
        )
        (image,) = answer.json()["images"]
        assert row["labels"] == " | ".join(one["label"] for one in image["labels"])
        scores = {one["label"]: one["score"] for one in image["scores"]}
        assert json.loads(row["scores"]) == pytest.approx(scores, abs=1e-3)
        assert len(scores) == 20


def test_an_image_without_an_answer_is_a_row_with_its_reason(server, tmp_path):
    folder = tmp_path / "pictures"
    copy_street(folder, 1)
    (folder / "empty.png").touch()
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "large.bmp").write_bytes(bytes(33 << 20))
    (folder / "text.jpg").write_text("no picture")
    done = predict(server.url, "pictures", "--csv", "out.csv", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 pictures answered" in done.stderr
    assert "4 failed" in done.stderr
    assert "pictures/text.jpg: unreadable_image: image is neither JPEG" in done.stderr
    rows = {row["file"]: row for row in read(tmp_path / "out.csv")}
    assert {name.removeprefix("pictures/"): row["status"] for name, row in rows.items()} == {
        "000.jpg": "ok",
        "empty.png": "unreadable_image",
        "gone.jpg": "unreadable_file",
        "large.bmp": "body_too_large",
        "text.jpg": "unreadable_image",
    }
    assert rows["pictures/gone.jpg"]["error"] == "No such file or directory"
    assert "33,554,432" in rows["pictures/large.bmp"]["error"]


def test_a_second_run_retries_only_failures(server, tmp_path):
    folder = tmp_path / "pictures"
    copy_street(folder, 3)
    (folder / "001.jpg").unlink()
    (folder / "001.jpg").write_text("half a picture")
    assert predict(server.url, folder, "--csv", tmp_path / "out.csv").returncode == 1
    (folder / "001.jpg").write_bytes(STREET.read_bytes())
    done = predict(server.url, folder, "--csv", tmp_path / "out.csv")
    assert done.returncode == 0
    assert "has 2 of 3 pictures already" in done.stderr
    assert "1 pictures answered" in done.stderr
    rows = read(tmp_path / "out.csv")
    assert [(row["file"][-7:], row["status"]) for row in rows] == [
        ("000.jpg", "ok"),
        ("002.jpg", "ok"),
        ("001.jpg", "ok"),
    ]


def test_a_killed_run_can_be_resumed(server, tmp_path):
    copy_street(tmp_path / "pictures", 60)
    out = tmp_path / "out.csv"
    words = ["pictures", "--csv", "out.csv"]
    process = subprocess.Popen(command(server.url, *words), cwd=tmp_path)
    assert kill_within(process, out, signal.SIGKILL, rows=4) == -signal.SIGKILL
    os.truncate(out, out.stat().st_size - 7)  # as if the power had gone in the middle of a row
    whole = out.read_bytes().count(b"\n") - 1
    assert whole < 59
    done = predict(server.url, *words, cwd=tmp_path)
    assert done.returncode == 0
    assert f"has {whole} of 60 pictures already" in done.stderr
    assert [row["file"] for row in read(out)] == [f"pictures/{n:03}.jpg" for n in range(60)]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["out.csv", "out.csv.options", "pictures"]


def test_ctrl_c_leaves_a_complete_file_and_says_how_to_resume(server, tmp_path):
    copy_street(tmp_path / "pictures", 60)
    out = tmp_path / "out.csv"
    with (tmp_path / "said").open("w+") as said:
        words = command(server.url, "pictures", "--csv", "out.csv")
        process = subprocess.Popen(words, cwd=tmp_path, stderr=said)
        assert kill_within(process, out, signal.SIGINT, rows=4) == 130
        said.seek(0)
        text = said.read()
    rows = read(out)
    assert text == (
        "stopped; out.csv is whole, and the same command goes on with the"
        f" {60 - len(rows)} pictures left\n"
    )
    assert {row["status"] for row in rows} == {"ok"}


def test_a_full_queue_and_a_restart_lose_no_image(start_server, tmp_path):
    live = start_server(max_queue="1").wait_ready()
    copy_street(tmp_path / "pictures", 400)
    out = tmp_path / "out.csv"
    words = command(live.url, "pictures", "--csv", "out.csv", "--jobs", "4")
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") > 4, 60)
    live.control("restart", "gunicorn")
    live.control("restart", "nginx")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert [row["status"] for row in read(out)] == ["ok"] * 400
    statuses = {
        line.get("status") for name in ("gunicorn", "nginx") for line in live.log_lines(name)
    }
    assert 429 in statuses
    assert 502 in statuses


NAMES = [b"a,b.jpg", b'say "hi".jpg', b"two\nlines.jpg", b"c\rr.jpg", b"=1+1.jpg", b" space .jpg"]
NAMES += ["größe 大.jpg".encode(), b"caf\xe9.jpg"]


def test_file_names_stay_unchanged(server, tmp_path):
    folder = os.fsencode(tmp_path / "pictures")
    os.mkdir(folder)
    for name in NAMES:
        os.symlink(STREET, os.path.join(folder, name))
    done = predict(server.url, "pictures", "--csv", "out.csv", cwd=tmp_path)
    assert done.returncode == 0
    found = {
        os.fsencode(row["file"]).removeprefix(b"pictures/") for row in read(tmp_path / "out.csv")
    }
    assert found == set(NAMES)
    again = predict(server.url, "pictures", "--csv", "out.csv", cwd=tmp_path)
    assert again.stderr == "out.csv has 8 of 8 pictures already\n"


def test_a_terminal_shows_the_progress(server, tmp_path):
    copy_street(tmp_path / "pictures", 20)
    (tmp_path / "pictures" / "001.jpg").unlink()
    ours, theirs = pty.openpty()
    words = command(server.url, tmp_path / "pictures", "--csv", tmp_path / "out.csv")
    process = subprocess.Popen(words, stderr=theirs)
    os.close(theirs)
    shown = b""
    while data := read_terminal(ours):
        shown += data
    os.close(ours)
    assert process.wait(timeout=30) == 0
    assert b" of 19, " in shown
    assert b" left" in shown
    assert b"\r\x1b[K19 pictures answered" in shown


def read_terminal(terminal):
    try:
        return os.read(terminal, 10_000)
    except OSError:  # Linux raises it when the other side is closed
        return b""


# Errors that stop a run


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--model", "half"], "unknown_model: there is no model 'half'"),
        (["--threshold", "2"], "invalid_option: threshold"),
        (["--version", "newest"], "invalid_option: version"),
    ],
)
def test_an_error_that_affects_every_image_stops_the_run(server, tmp_path, words, reason):
    copy_street(tmp_path / "pictures", 200)
    done = predict(server.url, "pictures", "--csv", "out.csv", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert reason in done.stderr
    assert read(tmp_path / "out.csv") == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere"], "there is nothing at nowhere"),
        (["texts"], "no picture in texts: no name ends with .jpg"),
        (["pictures", "--url", "localhost:8999"], "expected an address such as http://"),
        (["pictures", "--url", "http://localhost:none"], "--url http://localhost:none: Port"),
        (["pictures", "--jobs", "0"], "'0'; expected a whole number from 1 on"),
        (["pictures", "--csv", "nowhere/out.csv"], "nowhere/out.csv: No such file or directory"),
    ],
)
def test_an_invalid_command_line_is_refused(server, tmp_path, words, reason):
    copy_street(tmp_path / "pictures", 1)
    (tmp_path / "texts").mkdir()
    line = [PROGRAM, "--url", server.url, "--csv", "out.csv", *words]
    done = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_server_is_reported_at_once(tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    done = predict(url, SAMPLES, "--csv", tmp_path / "out.csv")
    assert done.returncode == 2
    assert (
        f"no server answers at {url}: Connection refused. scripts/serve starts one" in done.stderr
    )
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, {}, {"hello": "world"}), "is another kind of server; it answers b'{\"hello"),
        ((301, {"Location": "https://elsewhere"}, "moved"), "http_301"),
    ],
)
def test_another_kind_of_server_stops_the_run(answer, reason):
    with stand_in([answer]) as url, pytest.raises(Stop) as caught:
        Server(url, {}, 0).predict(str(STREET))
    assert reason in str(caught.value)


def test_a_foreign_file_is_refused_and_stays_unchanged(server, tmp_path):
    for content in ("image,labels\nstreet.jpg,Bus\n", "file\n", "photographs of mine"):
        (tmp_path / "mine.csv").write_text(content)
        done = predict(server.url, SAMPLES, "--csv", tmp_path / "mine.csv")
        assert done.returncode == 2
        assert "mine.csv is no file of this program" in done.stderr
        assert (tmp_path / "mine.csv").read_text() == content


def test_two_runs_do_not_write_one_file(server, tmp_path):
    out = tmp_path / "out.csv"
    with closing(Table(out, Csv(), {})) as table:
        done = predict(server.url, SAMPLES, "--csv", out)
        assert done.returncode == 2
        assert "another run is writing" in done.stderr
        table.add(ANSWERED)
    assert [list(row.values()) for row in read(out)] == [ROW]


# Trying again


@pytest.fixture
def waits(monkeypatch):
    """Return the recorded waits in s, without real waiting."""
    waited = []
    monkeypatch.setattr(way.time, "sleep", waited.append)
    return waited


ANSWER = {"model": {"name": "demo", "version": 1}, "images": [{"labels": []}]}
BUSY = {"code": "queue_full", "detail": "128 requests are waiting"}


def test_the_api_key_of_the_environment_is_sent(monkeypatch):
    monkeypatch.setenv("SERVING_API_KEY", "id.secret")
    sent = []
    connection = SimpleNamespace(
        request=lambda *parts: sent.append(parts[3]),
        getresponse=lambda: SimpleNamespace(status=200, headers={}, read=lambda: b""),
    )
    monkeypatch.setattr("http.client.HTTPConnection", lambda *_, **__: connection)
    Server("http://localhost", {}, 0).check()
    monkeypatch.delenv("SERVING_API_KEY")
    Server("http://localhost", {}, 0).check()
    assert sent == [{"Authorization": "Bearer id.secret"}, {}]


def test_retries_wait_at_least_retry_after_and_longer_each_time(waits):
    busy = (429, {"Retry-After": "7"}, BUSY)
    with stand_in(
        [busy, None, (503, {}, BUSY), (502, {"Retry-After": "soon"}, ""), (200, {}, ANSWER)]
    ) as url:
        row = Server(url, {}, 4).predict(str(STREET))
    assert row == Row(str(STREET), "ok", model="demo", version=1, image={"labels": []})
    least = [7, 1, 2, 4]
    assert all(low <= waited <= 1.5 * low for low, waited in zip(least, waits, strict=True))


def test_retries_end_eventually(waits):
    with stand_in([(429, {"Retry-After": "86400"}, BUSY)]) as url:
        row = Server(url, {}, 3).predict(str(STREET))
    assert row == Row(str(STREET), "queue_full", "128 requests are waiting")
    assert len(waits) == 3
    assert max(waits) <= 45


def test_a_server_that_disappears_stops_the_run(waits):
    with stand_in([None]) as url:
        server = Server(url, {}, 2)
        with pytest.raises(Stop, match="answers no more: Remote end closed connection"):
            server.predict(str(STREET))
    assert len(waits) == 2


def test_the_reason_for_a_wait_is_shown_until_the_answer_arrives(waits):
    with stand_in([(429, {}, BUSY), (200, {}, ANSWER)]) as url:
        server = Server(url, {}, 2)
        way.time.sleep = lambda _: waits.append(server.trouble)
        server.predict(str(STREET))
        assert waits == ["429 queue_full"]
        assert server.trouble == ""


# Images and table


def test_images_are_found_by_their_names_at_any_depth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.JPG", "a/z.png", "a/b/c.webp", ".hidden.jpg", ".git/d.jpg", "notes.txt", "raw"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gray(9))
    expected = ["in/b.JPG", "in/a/z.png", "in/a/b/c.webp"]
    assert find_pictures(["in"]) == (expected, [])
    assert find_pictures(["./in/", "in/raw", "in/b.JPG"]) == ([*expected, "in/raw"], [])
    monkeypatch.chdir("in")
    assert find_pictures(["."])[0] == [name.removeprefix("in/") for name in expected]


def reopen(file):
    """Open a table and close it; return the finished rows."""
    with closing(Table(file, Csv(), {})) as table:
        return table.done


def test_a_truncated_table_keeps_its_complete_rows(tmp_path):
    file = tmp_path / "out.csv"
    first, second = ['two\nlines, "quoted".jpg', *ROW[1:]], ROW
    content = HEADER + encode_cells(first) + encode_cells(second)
    for cut in range(len(content) + 1):
        file.write_bytes(content[:cut])
        whole = [row for row in (first, second) if encode_cells(row) in content[:cut]]
        assert reopen(file) == {row[0] for row in whole}, cut
        assert file.read_bytes() == HEADER + b"".join(map(encode_cells, whole)), cut


def test_answers_are_kept_in_any_order_and_from_any_program(tmp_path):
    file = tmp_path / "out.csv"
    other = ["c.jpg", *ROW[1:]]
    file.write_bytes(
        HEADER
        + encode_cells(FAILED)
        + encode_cells(ROW)
        + encode_cells(FAILED)
        + encode_cells(other)
    )
    file.chmod(0o640)
    assert reopen(file) == {"a.jpg", "c.jpg"}
    assert file.read_bytes() == HEADER + encode_cells(ROW) + encode_cells(other)
    assert file.stat().st_mode & 0o777 == 0o640
    text = io.StringIO()  # a spreadsheet
    csv.writer(text).writerows([COLUMNS, ROW, other])
    saved = b"\xef\xbb\xbf" + text.getvalue().encode()
    file.write_bytes(saved)
    assert reopen(file) == {"a.jpg", "c.jpg"}
    assert file.read_bytes() == saved


def test_a_row_may_have_any_length(tmp_path):
    file = tmp_path / "out.csv"
    file.write_bytes(HEADER + encode_cells([*ROW[:3], "x" * 1_000_000, *ROW[4:]]))
    assert reopen(file) == {"a.jpg"}


def test_a_row_is_written_as_the_columns_say():
    assert Csv().encode(ANSWERED) == encode_cells(ROW)
    assert Csv().encode(Row("b.jpg", "queue_full", "come again")) == encode_cells(FAILED)


SCORES = [
    {"label": "Cat", "score": 0.8},
    {"label": "Dog", "score": 0.9},
    {"label": "Owl", "score": 0.1},
]
SCORED = Row("a.jpg", "ok", model="demo", version=1, image={"labels": LABELS, "scores": SCORES})


def test_a_csv_may_have_a_column_for_each_class():
    form = Csv(["Cat", "Dog", "Owl"])
    assert form.header == b"file,status,labels,model,version,error,Cat,Dog,Owl\n"
    assert form.encode(SCORED) == b"a.jpg,ok,Dog | Cat,demo,1,,0.8,0.9,0.1\n"
    assert form.encode(Row("b.jpg", "queue_full", "wait")) == b"b.jpg,queue_full,,,,wait,,,\n"
    with pytest.raises(Stop, match="demo, version 1 has other classes than the columns"):
        Csv(["Cat", "Dog"]).encode(SCORED)


def test_a_csv_for_excel_begins_with_a_byte_order_mark_and_keeps_it(tmp_path):
    file, form = tmp_path / "out.csv", Csv(["one\nclass", "Dog"], bom=True)
    Table(file, form, {}).close()
    assert file.read_bytes() == b"\xef\xbb\xbf" + form.header[3:]
    file.write_bytes(form.header + b"a.jpg,ok,,demo,1,,0.1,0.2\nb.jpg,queue_full,,,,wait,,\nc.jp")
    with closing(Table(file, form, {})) as table:
        assert table.done == {"a.jpg"}
    assert file.read_bytes() == form.header + b"a.jpg,ok,,demo,1,,0.1,0.2\n"


def test_json_lines_have_the_answer_of_each_image_and_can_be_resumed(tmp_path):
    file = tmp_path / "out.jsonl"
    with closing(Table(file, JsonLines(), {})) as table:
        table.add(SCORED)
        table.add(Row("caf\udce9.jpg", "queue_full", "wait"))
    first, second = map(json.loads, file.read_text().splitlines())
    assert first == {
        "file": "a.jpg",
        "status": "ok",
        "model": "demo",
        "version": 1,
        "labels": LABELS,
        "scores": SCORES,
    }
    assert second == {"file": "caf\udce9.jpg", "status": "queue_full", "error": "wait"}
    line = file.read_bytes().splitlines(keepends=True)[0]
    for cut in range(len(line)):
        file.write_bytes(line + line[:cut])
        with closing(Table(file, JsonLines(), {})) as table:
            assert table.done == {"a.jpg"}
        assert file.read_bytes() == line
    file.write_text('{"image": "a.jpg"}\n')
    with pytest.raises(Stop, match=r"out\.jsonl is no file of this program"):
        Table(file, JsonLines(), {})


def test_another_run_with_other_options_is_refused_by_their_names(tmp_path):
    file = tmp_path / "out.csv"
    before = {"model": None, "threshold": "0.2", "top_k": None, "bom": False}
    with closing(Table(file, Csv(), before)):
        pass
    now = {**before, "threshold": None, "bom": True}
    with closing(Table(file, Csv(), now)) as table:  # it has no rows yet
        table.add(ANSWERED)
    with pytest.raises(Stop) as caught:
        Table(file, Csv(), before)
    assert str(caught.value) == (
        f"{file} was written with no --threshold, --bom, this run has --threshold 0.2, no --bom:"
        " name another file"
    )
    Table(file, Csv(), now).close()


def test_the_columns_and_the_options_come_from_server_and_command_line(server, tmp_path):
    words = ["samples", "--csv", tmp_path / "out.csv", "--columns", "--bom"]
    done = predict(server.url, *words, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as text:
        rows = list(csv.DictReader(text, strict=True))
    answer = requests.get(server.url, timeout=30).json()
    assert list(rows[0])[6:] == answer["classes"]
    street = next(row for row in rows if row["file"] == "samples/street.jpg")
    assert float(street["Bus"]) > 0.9
    assert float(street["Cow"]) < 0.1
    done = predict(server.url, *words[:-2], "--top-k", "2", cwd=ROOT)
    assert done.returncode == 2
    assert "was written with no --top-k, --scores all, --bom, --columns" in done.stderr
    words = ["samples/bus.jpg", "--jsonl", tmp_path / "o", "--bom"]
    assert "are options of --csv" in predict(server.url, *words, cwd=ROOT).stderr


def test_the_script_needs_only_two_files_and_python(server, tmp_path):
    shutil.copy(PROGRAM, tmp_path)
    shutil.copytree(PROGRAM.parent / "predicting", tmp_path / "predicting")
    line = [sys.executable, "-S", "predict", STREET, "--csv", "out.csv", "--url", server.url]
    done = subprocess.run(line, cwd=tmp_path, env={}, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "out.csv")[0]["status"] == "ok"
