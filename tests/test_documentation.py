"""Examples in the documentation work as pasted and match the code."""

import io
import json
import re
import subprocess
from contextlib import redirect_stdout

import pytest
import requests

from scripts.predicting.formats import COLUMNS
from scripts.predicting.pictures import SUFFIXES
from tests.helpers import ROOT, STREET
from tests.pages import blocks, find_commands, paste

DOCS = ROOT / "docs"
CLIENTS = (DOCS / "clients.md").read_text()


@pytest.mark.parametrize("command", find_commands(), ids=lambda command: command[-60:])
def test_every_command_works_as_pasted(server, tmp_path, command):
    paste(server, command, tmp_path)


def test_the_python_works_as_pasted(server, monkeypatch):
    monkeypatch.chdir(ROOT)
    (program,) = blocks(DOCS / "clients.md", "python")
    with redirect_stdout(io.StringIO()) as shown:
        exec(program.replace("http://localhost:8999", server.url), {})  # the page's own
    assert shown.getvalue().startswith("Car: 99.9%\n")


def test_the_documented_answer_is_the_servers(server):
    with STREET.open("rb") as file:
        url = f"{server.url}/predict"
        got = requests.post(url, files={"image": file}, timeout=60).json()
    shown = json.loads(blocks(DOCS / "predict.md", "json")[0])
    (image,), (shown_picture,) = got["images"], shown["images"]
    assert (shown.keys(), shown_picture.keys()) == (got.keys(), image.keys())
    for one, shown_one in zip(image["labels"], shown_picture["labels"], strict=True):
        assert shown_one == pytest.approx(one, abs=1e-3)
    for name in ("name", "bytes", "width", "height"):
        assert shown_picture[name] == image[name]


def test_the_documented_row_is_the_one_that_is_written(server, tmp_path):
    command = [ROOT / "scripts" / "predict", "samples", "--csv", tmp_path / "out.csv"]
    subprocess.run([*command, "--url", server.url], cwd=ROOT, check=True, capture_output=True)
    (shown,) = blocks(DOCS / "clients.md", "")
    written = (tmp_path / "out.csv").read_text().splitlines()[:2]
    assert [re.sub(r"0\.\d+", "0.0", line) for line in shown.splitlines()] == [
        re.sub(r"0\.\d+", "0.0", line) for line in written
    ]


def test_the_columns_and_the_names_of_images_are_the_codes():
    table = re.search(r"^\| column \|.*\n\|---.*\n((?:\|.*\n)+)", CLIENTS, re.MULTILINE)[1]
    shown = [
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert shown == COLUMNS
    for suffix in SUFFIXES:
        assert f"`{suffix}`" in CLIENTS
