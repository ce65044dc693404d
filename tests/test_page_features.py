"""The page's results can be taken away, and its requests run as code."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.helpers import SAMPLES, STREET

ANSWERED = ".tile[data-state=done]"
NODE = Path(sys.executable).with_name("node")
ODD_NAME = 'it\'s; a, "trap" $(id) `é` 1.jpg'


def download(guest, button: str) -> tuple[str, bytes]:
    """Click a button, and return the name and the content of the file that it downloads."""
    with guest.page.expect_download() as found:
        guest.find(button).click()
    return found.value.suggested_filename, Path(found.value.path()).read_bytes()


def run_code(guest, language: str, folder: Path) -> list[str]:
    """Run the displayed code of a language in a folder, and return the labels that it prints."""
    guest.page.get_by_role("tab", name=language).click()
    code = guest.find("#call").text_content()
    if language == "curl":
        return guest.run_line(folder)
    (folder / "call.mjs").write_text(code)
    command = [sys.executable, "-c", code] if language == "Python" else [NODE, "call.mjs"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line.rsplit(" ", 1)[0] for line in done.stdout.splitlines()]


def test_the_results_of_all_images_are_downloaded_as_csv_and_json(visit):
    guest = visit()
    broken = {"name": "=1+1.jpg", "mimeType": "image/jpeg", "buffer": b"this is no image"}
    guest.choose(STREET, SAMPLES / "garden.jpg")
    expect(guest.find(ANSWERED)).to_have_count(2)
    guest.choose(broken)
    guest.find("#back").click()
    name, content = download(guest, "#save-csv")
    assert name == "results.csv"
    assert content.startswith(b"\xef\xbb\xbffile,status,labels,model,version,error,Aeroplane,")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert [row["file"] for row in rows] == ["street.jpg", "garden.jpg", "./=1+1.jpg"]
    assert [row["status"] for row in rows] == ["ok", "ok", "unreadable_image"]
    assert rows[0]["labels"] == "Car | Person | Bus | Bicycle"
    assert rows[1]["labels"] == "Dog | Potted Plant"
    assert float(rows[0]["Car"]) > 0.99
    assert float(rows[0]["Aeroplane"]) < 0.5
    assert rows[2]["Car"] == ""
    name, content = download(guest, "#save-json")
    street, garden, failed = json.loads(content)
    assert name == "results.json"
    assert street["images"][0]["name"] == "street.jpg"
    assert garden["images"][0]["labels"][0]["label"] == "Dog"
    assert failed["error"]["status"] == 400
    guest.move("#gallery-threshold-slider", 1)
    rows = csv.DictReader(io.StringIO(download(guest, "#save-csv")[1].decode("utf-8-sig")))
    assert next(rows)["labels"] == "", "the labels are those of the chosen threshold"


def test_a_result_is_copied_and_downloaded_with_its_heat_map(visit):
    guest = visit(permissions=["clipboard-read", "clipboard-write"])
    guest.try_sample("Street")
    guest.find("#copy-json").click()
    expect(guest.find("#copy-json")).to_have_text("Copied")
    copied = guest.page.evaluate("() => navigator.clipboard.readText()")
    name, content = download(guest, "#save-answer")
    assert name == "street.json"
    assert json.loads(content) == json.loads(copied)
    assert json.loads(copied)["model"] == {"name": "demo", "version": 1}
    expect(guest.find("#heat")).to_have_attribute("data-label", "Car")
    name, content = download(guest, "#save-overlay")
    assert name == "street-Car.png"
    with Image.open(STREET) as bare, Image.open(io.BytesIO(content)) as drawn:
        assert drawn.size == bare.size
        change = np.asarray(drawn.convert("L"), int) - np.asarray(bare.convert("L"), int)
    height, width = change.shape
    car, corner = change[: height // 2, : width // 2], change[height // 2 :, : width // 2]
    assert np.abs(corner).mean() > 5, "the cold part is darkened"
    assert car.mean() > corner.mean(), "the car is at the top left"


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_the_code_gets_the_labels_that_are_displayed(visit, tmp_path, language):
    guest = visit()
    guest.try_sample("Street")
    assert run_code(guest, language, tmp_path) == guest.passing()
    (tmp_path / ODD_NAME).write_bytes(STREET.read_bytes())
    guest.page.go_back()
    guest.choose(tmp_path / ODD_NAME)
    expect(guest.find("#answer")).to_contain_text("Car")
    guest.move("#detail-threshold-slider", 0.995)
    assert run_code(guest, language, tmp_path) == guest.passing() != []


def test_the_tabs_of_the_code_are_walked_with_the_arrow_keys(visit):
    guest = visit()
    guest.choose(STREET, SAMPLES / "garden.jpg")
    expect(guest.find(ANSWERED)).to_have_count(2)
    guest.find(".tile-open").first.click()
    guest.page.get_by_role("tab", name="curl").focus()
    guest.page.keyboard.press("ArrowRight")
    expect(guest.page.get_by_role("tab", name="Python")).to_be_focused()
    expect(guest.find("#call")).to_contain_text("import requests")
    expect(guest.find("#detail-name")).to_have_text("street.jpg")
