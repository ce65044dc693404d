"""The page's results can be taken away, compared, kept and linked, and its requests run as code."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from app.web.page.routes import DIGEST
from tests.helpers import SAMPLES, STREET

ANSWERED = ".tile[data-state=done]"
# Returns whether so many images are kept.
COUNT_KEPT = """async (wanted) => {
  const request = indexedDB.open("resnet-serving");
  await new Promise((resolve) => request.addEventListener("success", resolve));
  const count = request.result.transaction("images").objectStore("images").count();
  await new Promise((resolve) => count.addEventListener("success", resolve));
  request.result.close();
  return count.result === wanted;
}"""
ODD_NAME = 'it\'s; a, "trap" $(id) `é` 1.jpg'


def test_the_results_of_all_images_are_downloaded_as_csv_and_json(visit):
    guest = visit()
    broken = {"name": "=1+1.jpg", "mimeType": "image/jpeg", "buffer": b"this is no image"}
    guest.choose(STREET, SAMPLES / "garden.jpg")
    expect(guest.find(ANSWERED)).to_have_count(2)
    guest.choose(broken)
    guest.find("#back").click()
    name, content = guest.download("#save-csv")
    assert name == "results.csv"
    assert content.startswith(b"\xef\xbb\xbffile,status,labels,model,version,error,Aeroplane,")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert [row["file"] for row in rows] == ["street.jpg", "garden.jpg", "./=1+1.jpg"]
    assert [row["status"] for row in rows] == ["ok", "ok", "unreadable_image"]
    assert set(rows[0]["labels"].split(" | ")) == {"Car", "Person", "Bus", "Bicycle"}
    assert set(rows[1]["labels"].split(" | ")) == {"Dog", "Potted Plant"}
    assert float(rows[0]["Car"]) > 0.6
    assert float(rows[0]["Aeroplane"]) < 0.5
    assert rows[2]["Car"] == ""
    name, content = guest.download("#save-json")
    street, garden, failed = json.loads(content)
    assert name == "results.json"
    assert street["images"][0]["name"] == "street.jpg"
    assert [each["label"] for each in garden["images"][0]["labels"]] == rows[1]["labels"].split(
        " | "
    )
    assert failed["error"]["status"] == 400
    guest.move("#gallery-threshold-slider", 1)
    rows = csv.DictReader(io.StringIO(guest.download("#save-csv")[1].decode("utf-8-sig")))
    assert next(rows)["labels"] == "", "the labels are those of the chosen threshold"


def test_a_result_is_copied_and_downloaded_with_its_heat_map(visit):
    guest = visit(permissions=["clipboard-read", "clipboard-write"])
    guest.try_sample("Street")
    guest.find("#copy-json").click()
    expect(guest.find("#copy-json")).to_have_text("Copied")
    copied = guest.page.evaluate("() => navigator.clipboard.readText()")
    name, content = guest.download("#save-answer")
    assert name == "street.json"
    assert json.loads(content) == json.loads(copied)
    assert json.loads(copied)["model"] == {"name": "demo", "version": 1}
    strongest = guest.passing()[0]
    expect(guest.find("#heat")).to_have_attribute("data-label", strongest)
    name, content = guest.download("#save-overlay")
    assert name == f"street-{strongest}.png"
    assert change_of(content) > 5
    guest.page.get_by_role("button", name="Hide", exact=True).click()
    name, content = guest.download("#save-overlay")
    assert name == "street.png"
    assert change_of(content) < 1


def change_of(png: bytes) -> float:
    """Return the mean difference of a downloaded image from the sample, 0 to 255."""
    with Image.open(STREET) as bare, Image.open(io.BytesIO(png)) as drawn:
        assert drawn.size == bare.size
        return np.abs(np.asarray(drawn.convert("RGB"), int) - np.asarray(bare, int)).mean()


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_the_code_gets_the_labels_that_are_displayed(visit, tmp_path, language):
    guest = visit()
    guest.try_sample("Street")
    assert guest.run_code(language, tmp_path) == guest.passing()
    (tmp_path / ODD_NAME).write_bytes(STREET.read_bytes())
    guest.page.go_back()
    guest.choose(tmp_path / ODD_NAME)
    expect(guest.find("#answer")).to_contain_text("Car")
    usual = guest.passing()
    guest.move("#detail-threshold-slider", 0.005)
    assert guest.run_code(language, tmp_path) == guest.passing() != usual


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


def test_two_models_are_compared_and_the_label_in_which_they_differ_is_marked(visit, server):
    guest = visit()

    def list_two(route):
        about = route.fetch().json()
        route.fulfill(json=about | {"models": {"demo": [1], "twin": [1]}})

    def answer_as_twin(route):
        body = route.request.post_data_buffer
        if b"twin" not in body:
            return route.continue_()
        answer = route.fetch(post_data=body.replace(b"twin", b"demo")).json()
        answer["model"]["name"] = "twin"
        del answer["images"][0]["labels"][0]
        return route.fulfill(json=answer)

    guest.page.route(f"{server.url}/?", list_two)
    guest.page.route("**/predict", answer_as_twin)
    guest.page.reload()
    guest.try_sample("Street")
    labels = guest.passing()
    guest.find("#compare-choice").select_option("twin, version 1")
    expect(guest.find("#compare-words")).to_have_text("They differ in 1 label.")
    heads = guest.find("#compare-table thead th").all_text_contents()
    assert heads == ["Label", "demo, version 1", "twin, version 1"]
    expect(guest.find("#compare-table tr.differs th")).to_have_text(labels[0])
    assert guest.find("#compare-table tbody th").all_text_contents() == labels
    guest.move("#detail-threshold-slider", 0.5)
    expect(guest.find("#compare-words")).to_have_text("Both recognize the same labels.")


def test_kept_images_survive_a_reload_until_they_are_cleared(visit):
    guest = visit()
    guest.choose(STREET, SAMPLES / "garden.jpg")
    expect(guest.find(ANSWERED)).to_have_count(2)
    guest.find("#remember").check()
    guest.page.get_by_role("button", name="Remove garden.jpg").click()
    guest.choose(SAMPLES / "farm.jpg")
    expect(guest.find("#answer")).to_contain_text("Horse")
    guest.find("#back").click()
    expect(guest.find(ANSWERED)).to_have_count(2)
    guest.page.wait_for_function(COUNT_KEPT, arg=2)
    before = guest.predictions()
    guest.page.reload()
    expect(guest.find(ANSWERED)).to_have_count(2)
    assert guest.find(".tile-name").all_text_contents() == ["street.jpg", "farm.jpg"]
    guest.choose(STREET)
    expect(guest.find("#answer")).to_contain_text("Car")
    expect(guest.find("#origin")).to_contain_text("a smaller copy")
    guest.page.get_by_role("button", name="Car,").click()
    expect(guest.find("#heat")).to_have_attribute("data-label", "Car")
    assert guest.predictions() == before, "nothing is sent again"
    guest.find("#back").click()
    guest.find("#remember").uncheck()
    guest.page.wait_for_function(COUNT_KEPT, arg=0)
    guest.page.reload()
    expect(guest.find(".sample")).to_have_count(8)
    expect(guest.find(".tile")).to_have_count(0)


def test_the_last_200_images_are_kept(visit):
    guest = visit()
    kept = guest.page.evaluate(
        """async (url) => {
          const {put, readAll} = await import(url);
          for (let place = 0; place < 202; place += 1) await put({place});
          return (await readAll()).map(({place}) => place);
        }""",
        f"/page/{DIGEST}/store.js",
    )
    assert kept == list(range(2, 202))


def test_a_link_opens_a_sample_and_its_label(visit, server):
    guest = visit()
    guest.page.goto(f"{server.url}/?sample=street.jpg&label=Bicycle")
    expect(guest.find("#heat")).to_have_attribute("data-label", "Bicycle")
    assert guest.page.url == f"{server.url}/?sample=street.jpg&label=Bicycle"
    guest.page.get_by_role("button", name="Car,").click()
    expect(guest.page).to_have_url(f"{server.url}/?sample=street.jpg&label=Car")
    guest.page.go_back()
    expect(guest.page).to_have_url(f"{server.url}/")
    expect(guest.find("#gallery")).to_be_visible()
    guest.choose(SAMPLES / "farm.jpg")
    expect(guest.find("#answer")).to_contain_text("Horse")
    assert guest.page.url == f"{server.url}/", "only samples can be linked"
