"""The page answers images with labels and heat maps in a real Chromium."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import expect

from app.processing.images import InputTransform
from app.web.page.routes import DIGEST
from tests.browser import in_words
from tests.helpers import ROOT, SAMPLES, STREET

ANSWERED = ".tile[data-state=done]"
FAILED = ".tile[data-state=failed]"


def answer(server, path=STREET, **options) -> list[str]:
    """Return the labels that the server answers, strongest first."""
    files = {"image": path.read_bytes()}
    found = requests.post(f"{server.url}/predict", files=files, data=options, timeout=60).json()
    return [label["label"] for label in found["images"][0]["labels"]]


def test_a_sample_gets_the_labels_that_the_server_answers(visit, server):
    guest = visit()
    guest.try_sample("Street")
    labels = answer(server)
    assert set(labels) == {"Car", "Person", "Bus", "Bicycle"}
    assert guest.passing() == labels
    expect(guest.find("#answer")).to_have_text(in_words(labels))
    expect(guest.find("#by")).to_contain_text("demo, version 1")
    expect(guest.find("#announcer")).to_contain_text(
        f"street.jpg: {in_words(labels)}. {labels[0]}: "
    )
    car = guest.page.get_by_role("meter", name="Car")
    expect(car).to_have_attribute("aria-valuetext", re.compile(r"^(> )?[\d.]+%$"))
    expect(car).not_to_have_attribute("aria-valuetext", "100%")
    for part in ("upload", "decode", "queue", "forward", "other"):
        expect(guest.find(f"#latency dt.{part} + dd")).to_contain_text(" ms")


def test_the_files_are_compressed_in_transit_and_still_revalidated(server):
    url = f"{server.url}/page/{DIGEST}/main.js"
    first = requests.get(url, timeout=60)
    assert first.headers["Content-Encoding"] == "gzip"
    again = requests.get(url, headers={"If-None-Match": first.headers["ETag"]}, timeout=60)
    assert again.status_code == 304


def test_the_demo_offers_samples_first_and_warns_of_photographs(visit):
    guest = visit()
    expect(guest.find("#home-demo")).to_contain_text("This demo only recognizes emoji drawings.")
    expect(guest.find("#home-demo")).to_contain_text("scripts/get-model resnet50")
    samples, add = guest.find("#samples").bounding_box(), guest.find("#add").bounding_box()
    assert samples["y"] < add["y"]
    guest.try_sample("Street")
    expect(guest.find("#detail-demo")).to_be_hidden()
    guest.page.go_back()
    expect(guest.find("#gallery-demo")).to_be_hidden()
    guest.choose(SAMPLES / "farm.jpg")
    expect(guest.find("#detail-demo")).to_contain_text("emoji drawings")
    guest.page.go_back()
    expect(guest.find("#gallery-demo")).to_contain_text("emoji drawings")
    guest.find("#classes summary").click()
    expect(guest.find("#classes li")).to_have_count(20)


def test_the_threshold_starts_at_the_models_own_and_moves_without_another_request(visit, server):
    guest = visit()
    guest.try_sample("Street")
    expect(guest.find("#detail-threshold .threshold-rule")).to_have_text("model default: above 62%")
    for threshold in (0.97, 0.005, 0):
        guest.move("#detail-threshold-slider", threshold)
        assert guest.passing() == answer(server, threshold=threshold)
    named = ", ".join(answer(server, threshold=0)[:5])
    expect(guest.find("#answer")).to_have_text(f"{named}, and 15 more")
    guest.move("#detail-threshold-slider", 1)
    expect(guest.find("#answer")).to_have_text("Nothing recognized")
    guest.page.get_by_role("button", name="Use default").click()
    assert guest.passing() == answer(server)
    assert guest.predictions() == 1


def test_the_strongest_labels_heat_map_is_shown_at_once_and_others_on_a_click(visit):
    guest = visit()
    guest.try_sample("Street")
    image = guest.find("#picture")
    expect(guest.find("#heat")).to_have_attribute("data-label", guest.passing()[0])
    guest.page.get_by_role("button", name=f"{guest.passing()[1]},").click()
    for label, there, words in (
        ("Car", "top left", "mostly (upper left|at the top|on the left)"),
        ("Bicycle", "bottom right", "mostly (lower right|at the bottom|on the right)"),
    ):
        guest.choose_label(label)
        expect(guest.find("#heat-place")).to_have_text(re.compile(words))
        expect(guest.find("#announcer")).to_have_text(re.compile(f"{label}: {words}"))
        assert hottest_quarter(guest) == there
    hot = image.screenshot()
    guest.move("#opacity", 0)
    bare = image.screenshot()
    assert hot != bare
    guest.page.get_by_role("button", name="Hide", exact=True).click()
    expect(guest.find("#heat")).to_be_hidden()
    expect(guest.find("#results")).to_be_visible()
    assert image.screenshot() == bare
    assert guest.predictions() == 1


def read_heat(guest) -> Image.Image:
    """Return the displayed heat map in grays."""
    url = guest.page.evaluate("document.getElementById('heat').toDataURL()")
    heat = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    return Image.alpha_composite(Image.new("RGBA", heat.size, "black"), heat).convert("L")


def hottest_value(guest) -> int:
    """Return the brightest gray of the displayed heat map."""
    return int(np.asarray(read_heat(guest)).max())


def hottest_quarter(guest) -> str:
    """Return the brightest quarter of the displayed heat map."""
    quarters = np.asarray(read_heat(guest).resize((2, 2)))
    left, top = np.unravel_index(quarters.T.argmax(), (2, 2))
    return f"{('top', 'bottom')[top]} {('left', 'right')[left]}"


def test_a_weak_labels_heat_map_is_dim_and_needs_no_request(visit, server):
    guest = visit()
    guest.try_sample("Street")
    guest.choose_label(guest.passing()[0])
    brightest = [hottest_value(guest)]
    chair = guest.page.get_by_role("button", name="Chair,")
    chair.click()
    expect(guest.find("#heat")).to_have_attribute("data-label", "Chair")
    expect(chair).to_have_attribute("aria-pressed", "true")
    expect(guest.find("#heat-strength")).to_contain_text("as strong as the strongest heat map")
    brightest.append(hottest_value(guest))
    assert brightest[1] < 0.7 * brightest[0]
    chair.click()
    expect(guest.find("#heat")).to_be_hidden()
    assert guest.predictions() == 1
    assert guest.passing() == answer(server)


def test_a_model_without_heat_maps_shows_a_hint(visit, server):
    guest = visit()
    about = requests.get(server.url, timeout=60).json() | {"heatmaps": False}
    guest.page.route(
        f"{server.url}/?", lambda route: route.fulfill(status=200, body=json.dumps(about))
    )
    guest.page.reload()
    guest.try_sample("Street")
    expect(guest.find("#heat-hint")).to_have_text("This model does not support heat maps.")
    expect(guest.find("#heat")).to_be_hidden()


def test_a_copied_image_is_pasted(visit, server):
    guest = visit()
    guest.paste("garden.jpg")
    expect(guest.find("#answer")).to_have_text(in_words(answer(server, SAMPLES / "garden.jpg")))
    expect(guest.find("#detail-name")).to_have_text("pasted-1.png")


def test_a_file_is_dropped_anywhere(visit, server):
    guest = visit()
    guest.drag(SAMPLES / "garden.jpg")
    expect(guest.find("#drop-cover")).to_be_visible()
    guest.drop(SAMPLES / "garden.jpg")
    expect(guest.find("#drop-cover")).to_be_hidden()
    expect(guest.find("#answer")).to_have_text(in_words(answer(server, SAMPLES / "garden.jpg")))


def test_a_folder_is_dropped_with_all_its_files(visit, tmp_path):
    (tmp_path / "album" / "deep").mkdir(parents=True)
    shutil.copy(STREET, tmp_path / "album")
    shutil.copy(SAMPLES / "farm.jpg", tmp_path / "album" / "deep")
    (tmp_path / "album" / ".hidden").write_text("none of our business")
    guest = visit()
    guest.drag(tmp_path / "album")
    guest.drop(tmp_path / "album")
    expect(guest.find(ANSWERED)).to_have_count(2)
    assert set(guest.find(".tile-name").all_text_contents()) == {"street.jpg", "farm.jpg"}


def test_many_images_are_a_grid_in_which_each_has_its_own_answer_or_error(visit, server, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"this is no picture")
    guest = visit()
    guest.choose(*sorted(SAMPLES.glob("*.jpg")), tmp_path / "broken.jpg")
    expect(guest.find(ANSWERED)).to_have_count(8)
    expect(guest.find(FAILED)).to_have_count(1)
    expect(guest.find("#gallery-title")).to_have_text("9 images")
    expect(guest.find("#gallery-count")).to_have_text("1 failed")
    expect(guest.find("#announcer")).to_have_text("8 images classified, 1 failed.")
    expect(guest.find(FAILED)).to_contain_text("This file is not a readable image")
    expect(guest.find(f"{FAILED} .tile-retry")).to_be_hidden()
    guest.page.get_by_role("button", name="harbour.jpg").first.click()
    expect(guest.find("#answer")).to_have_text(in_words(answer(server, SAMPLES / "harbour.jpg")))
    expect(guest.find("#position")).to_have_text("4 of 9")
    guest.page.keyboard.press("ArrowLeft")
    expect(guest.find("#answer")).to_have_text(in_words(answer(server, SAMPLES / "garden.jpg")))
    guest.page.go_back()
    expect(guest.find(".tile:has-text('garden.jpg') .tile-open")).to_be_focused()
    guest.move("#gallery-threshold-slider", 1)
    expect(guest.find(ANSWERED).first).to_contain_text("Nothing recognized")


def test_the_grid_is_filtered_by_label_and_sorted(visit):
    guest = visit()
    guest.choose(*(SAMPLES / f"{name}.jpg" for name in ("street", "airport", "garden")))
    expect(guest.find(ANSWERED)).to_have_count(3)
    expect(guest.page).to_have_title("3 images – ResNet Serving")
    show, sort = guest.find("#gallery-filter"), guest.find("#gallery-order")
    expect(show.locator("option", has_text="Bus (2)")).to_have_count(1)
    sort.select_option("name")
    assert guest.find(".tile-name").all_text_contents() == [
        "airport.jpg",
        "garden.jpg",
        "street.jpg",
    ]
    show.select_option("label:Bicycle")
    assert guest.find(".tile-name").all_text_contents() == ["street.jpg"]
    expect(guest.find("#gallery-count")).to_have_text("1 shown")
    expect(guest.find(".chip").first).to_have_text(re.compile(r"^(Car|Person|Bus|Bicycle) \d\d%$"))
    show.select_option("label:Bus")
    sort.select_option("score")
    first, second = guest.find(".tile-name").all_text_contents()
    guest.find(".tile-open").first.click()
    expect(guest.page).to_have_title(f"{first} – ResNet Serving")
    guest.page.keyboard.press("ArrowRight")
    expect(guest.page).to_have_title(f"{second} – ResNet Serving")
    expect(guest.find("#position")).to_have_text("2 of 2")


def test_an_image_of_a_grid_can_be_removed_and_all_of_them(visit):
    guest = visit()
    guest.choose(SAMPLES / "farm.jpg", SAMPLES / "garden.jpg")
    expect(guest.find(ANSWERED)).to_have_count(2)
    guest.page.get_by_role("button", name="Remove farm.jpg").click()
    expect(guest.find(".tile")).to_have_count(1)
    guest.page.get_by_role("button", name="Clear").click()
    expect(guest.find("#gallery")).to_be_hidden()


@pytest.mark.parametrize(
    "name",
    ["street.jpg", 'it\'s; a, "trap" $(id).jpg', "-d.jpg", "back\\slash.jpg", "Straße 1.jpg"],
)
def test_the_line_for_the_terminal_gets_the_same_labels(visit, server, tmp_path, name):
    (tmp_path / name).write_bytes(STREET.read_bytes())
    guest = visit()
    guest.choose(tmp_path / name)
    expect(guest.find("#answer")).to_contain_text("Car")
    assert guest.run_line(tmp_path) == answer(server)
    guest.move("#detail-threshold-slider", 0.005)
    assert guest.run_line(tmp_path) == guest.passing() == answer(server, threshold=0.005)


def test_the_line_of_a_sample_needs_no_file_and_is_copied(visit, server):
    guest = visit(permissions=["clipboard-read", "clipboard-write"])
    guest.try_sample("Street")
    assert guest.run_line(ROOT / "conf") == answer(server)
    guest.page.get_by_role("button", name="Copy", exact=True).click()
    expect(guest.page.get_by_role("button", name="Copied")).to_be_visible()
    copied = guest.page.evaluate("() => navigator.clipboard.readText()")
    assert copied == guest.find("#call").text_content()


@pytest.mark.parametrize(
    "frame",
    [
        InputTransform(),
        InputTransform(224, 256),
        InputTransform(299, 342),
        InputTransform(224, 224),
    ],
)
def test_the_part_that_the_network_sees_is_that_of_the_server(visit, frame):
    guest = visit()
    script = f"""([width, height, frame]) => import("/page/{DIGEST}/frame.js")
      .then(({{seenPart}}) => seenPart(width, height, frame))"""
    for width, height in ((640, 480), (375, 500), (31, 1000), (300, 300)):
        across, down = frame.uncut(width, height)
        left, top = frame.corner(across, down)
        arguments = [width, height, {"side": frame.side, "resize": frame.resize}]
        part = guest.page.evaluate(script, arguments)
        assert part["left"] == pytest.approx(left / across, abs=1 / across)
        assert part["top"] == pytest.approx(top / down, abs=1 / down)
        assert part["width"] == pytest.approx(frame.side / across, abs=1 / across)
        assert part["height"] == pytest.approx(frame.side / down, abs=1 / down)
