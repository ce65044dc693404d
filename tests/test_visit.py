"""The page as people meet it: a real Chromium, the whole server, and no manual."""

import json
import os
import shlex
import shutil
import subprocess

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from app.images import Frame
from app.web.page import DIGEST
from tests.browser import PHONE, Visit
from tests.conftest import DEMO
from tests.helpers import ROOT, SAMPLES, STREET, encode, photo_like, png_bomb, wait_until
from tests.server import Server

MEGABYTE = 1024 * 1024
ANSWERED = ".tile[data-state=done]"
FAILED = ".tile[data-state=failed]"
# What of that which was seen has jumped, and how far by the measure of browsers, where 0.1 is called good.
SHIFTS = """() => new Promise((resolve) => {
  const nameOf = ({node}) => node?.id || node?.className || node?.nodeName;
  const tell = (each) => [each.value, ...each.sources.map(nameOf)];
  const observer = new PerformanceObserver((list) =>
    resolve(list.getEntries().filter((each) => !each.hadRecentInput).map(tell)));
  observer.observe({type: "layout-shift", buffered: true});
  setTimeout(() => resolve([]), 300);
})"""


@pytest.fixture(scope="module")
def chromium():
    """Return Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None and not os.environ.get("CI"):
        pytest.skip("no chromium; scripts/setup test installs it")
    assert path, "CI needs chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, server):
    """Return a maker of visits; when the test ends each must have gone without a complaint."""
    visits = []

    def make(url: str = server.url, **options: object) -> Visit:
        visits.append(Visit(chromium, url, **options))
        return visits[-1]

    yield make
    for each in visits:
        each.close()


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """Return a server with low limits that turns photographs upright, and has two models."""
    folder, models = tmp_path_factory.mktemp("strict"), tmp_path_factory.mktemp("models")
    shutil.copytree(DEMO, models / "twin" / "1")
    folders = {"demo": DEMO.parent, "twin": models / "twin"}
    configs = [f"config {{ name: '{name}' base_path: '{path}' }}" for name, path in folders.items()]
    models_file = models / "models.config"
    models_file.write_text(f"model_config_list {{ {' '.join(configs)} }}")
    rows = {"max_body_mb": "1", "max_pixels": "200000", "exif_rotate": "on"}
    # A cache of its own: servers with one cache in common have one lineup.
    rows |= {"models_file": str(models_file), "cache": str(models / "cache")}
    live = Server(folder, precision="fp32", **rows)
    live.start()
    try:
        live.wait_ready()
        wait_until(lambda: requests.get(f"{live.url}/v2/models/twin/ready", timeout=60).ok, 90)
        yield live
    finally:
        live.remove()


def answer(server, path=STREET, **options) -> list[str]:
    """Return the labels that the server answers, strongest first."""
    files = {"image": path.read_bytes()}
    found = requests.post(f"{server.url}/predict", files=files, data=options, timeout=60).json()
    return [label["label"] for label in found["images"][0]["labels"]]


def test_a_sample_gets_the_labels_that_the_server_answers(visit, server):
    guest = visit()
    guest.try_sample("Street")
    assert guest.passing() == answer(server) == ["Car", "Person", "Bus", "Bicycle"]
    expect(guest.find("#answer")).to_have_text("Car, Person, Bus and Bicycle")
    expect(guest.find("#by")).to_contain_text("demo, version 1")
    expect(guest.find("#announcer")).to_contain_text("street.jpg: Car, Person")
    car = guest.page.get_by_role("meter", name="Car")
    expect(car).to_have_attribute("aria-valuetext", "> 99.9 %")
    for part in ("upload", "decode", "queue", "forward", "network"):
        expect(guest.find(f"#latency dt.{part} + dd")).to_contain_text(" ms")


def test_the_files_are_compressed_on_the_way_and_still_recognised(server):
    url = f"{server.url}/page/{DIGEST}/main.js"
    first = requests.get(url, timeout=60)
    assert first.headers["Content-Encoding"] == "gzip"
    again = requests.get(url, headers={"If-None-Match": first.headers["ETag"]}, timeout=60)
    assert again.status_code == 304


def test_the_page_says_that_the_demo_knows_pictograms_only(visit):
    guest = visit()
    expect(guest.find("#knows")).to_contain_text("drawn pictograms")
    expect(guest.find("#knows")).to_contain_text("not photographs")
    guest.find("#classes summary").click()
    expect(guest.find("#classes li")).to_have_count(20)


def test_the_threshold_starts_at_the_models_own_and_moves_without_another_request(visit, server):
    guest = visit()
    guest.try_sample("Street")
    expect(guest.find("#detail-threshold output")).to_have_text("the model’s own: above 62.2 %")
    for threshold in (0.97, 0.005, 0):
        guest.move("#detail-threshold-slider", threshold)
        assert guest.passing() == answer(server, threshold=threshold)
    expect(guest.find("#answer")).to_have_text("Car, Person, Bus, Bicycle, Motorbike and 15 more")
    guest.move("#detail-threshold-slider", 1)
    expect(guest.find("#answer")).to_have_text("No label passes")
    guest.page.get_by_role("button", name="Model’s own").click()
    assert guest.passing() == answer(server)
    assert guest.predictions() == 1


@pytest.mark.parametrize("kind", ["paste", "dragenter dragover drop"])
def test_a_picture_is_pasted_or_dropped(visit, kind):
    guest = visit()
    guest.hand_over(kind, SAMPLES / "garden.jpg")
    expect(guest.find("#answer")).to_have_text("Dog and Potted Plant")
    expect(guest.find("#drop-cover")).to_be_hidden()


def test_many_pictures_are_a_grid_where_each_has_its_own_answer_or_error(visit, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"this is no picture")
    guest = visit()
    guest.choose(*sorted(SAMPLES.glob("*.jpg")), tmp_path / "broken.jpg")
    expect(guest.find(ANSWERED)).to_have_count(8)
    expect(guest.find(FAILED)).to_have_count(1)
    expect(guest.find("#gallery-title")).to_have_text("9 pictures")
    expect(guest.find("#gallery-count")).to_have_text("1 failed")
    expect(guest.find("#announcer")).to_have_text("8 pictures answered, 1 failed.")
    expect(guest.find(FAILED)).to_contain_text("This file cannot be read as a picture")
    expect(guest.find(f"{FAILED} .tile-retry")).to_be_hidden()
    guest.page.get_by_role("button", name="harbour.jpg").first.click()
    expect(guest.find("#answer")).to_have_text("Bird and Boat")
    expect(guest.find("#position")).to_have_text("4 of 9")
    guest.page.keyboard.press("ArrowLeft")
    expect(guest.find("#answer")).to_have_text("Dog and Potted Plant")
    guest.page.go_back()
    expect(guest.find(".tile:has-text('garden.jpg') .tile-open")).to_be_focused()
    guest.move("#gallery-threshold-slider", 1)
    expect(guest.find(ANSWERED).first).to_contain_text("No label passes")


def test_a_picture_of_a_grid_can_be_removed_and_all_of_them(visit):
    guest = visit()
    guest.choose(SAMPLES / "farm.jpg", SAMPLES / "garden.jpg")
    expect(guest.find(ANSWERED)).to_have_count(2)
    guest.page.get_by_role("button", name="Remove farm.jpg").click()
    expect(guest.find(".tile")).to_have_count(1)
    guest.page.get_by_role("button", name="Clear").click()
    expect(guest.find("#gallery")).to_be_hidden()


@pytest.mark.parametrize(
    ("name", "data", "headline", "detail"),
    [
        ("notes.txt", b"buy milk", "cannot be read as a picture", "it begins with b'buy milk'"),
        ("scan.tif", b"II*\x00 and so on", "type of file is not read", "image is TIFF"),
        ("empty.png", b"", "cannot be read as a picture", "Image is empty: 0 bytes"),
    ],
)
def test_what_is_no_picture_is_told_in_clear_words(visit, name, data, headline, detail):
    guest = visit()
    guest.choose({"name": name, "mimeType": "image/png", "buffer": data})
    expect(guest.find("#problem-title")).to_contain_text(headline)
    expect(guest.find("#problem-detail")).to_contain_text(detail, ignore_case=True)
    expect(guest.find("#announcer")).to_contain_text(headline)
    expect(guest.find("#no-preview")).to_be_visible()
    expect(guest.find("#retry")).to_be_hidden()


def test_a_file_over_the_limit_is_refused_before_it_is_sent(visit, strict):
    guest = visit(strict.url)
    expect(guest.find("#limits")).to_contain_text("up to 1 MB")
    guest.choose({"name": "big.png", "mimeType": "image/png", "buffer": bytes(2 * MEGABYTE)})
    expect(guest.find("#problem-title")).to_have_text("This file is too large")
    expect(guest.find("#problem-detail")).to_have_text("The file has 2 MB; the server takes 1 MB.")
    assert guest.predictions() == 0


def test_a_picture_with_too_many_pixels_is_refused_in_the_servers_words(visit, strict):
    guest = visit(strict.url)
    guest.choose({"name": "wide.png", "mimeType": "image/png", "buffer": png_bomb(3000)})
    expect(guest.find("#problem-title")).to_have_text("This picture has too many pixels")
    expect(guest.find("#problem-detail")).to_contain_text("the limit is 200,000")


def test_a_photograph_is_shown_as_the_server_reads_it(visit, server, strict):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned = encode(photo_like(300, 200), "JPEG", exif=exif)
    for url, shape, is_told in ((server.url, 300 / 200, True), (strict.url, 200 / 300, False)):
        guest = visit(url)
        guest.choose({"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": turned})
        expect(guest.find("#results")).to_be_visible()
        box = guest.find("#photo").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(shape, rel=0.02)
        expect(guest.find("#sideways")).to_be_visible(visible=is_told)


def test_a_busy_server_is_asked_again_when_it_says(visit):
    guest = visit()
    busy = {"status": 429, "headers": {"Retry-After": "1"}, "body": '{"code": "queue_full"}'}
    guest.page.route("**/predict", lambda route: route.fulfill(**busy), times=1)
    guest.choose(STREET)
    expect(guest.find("#waiting-words")).to_contain_text("The server is busy; trying again in")
    expect(guest.find("#answer")).to_contain_text("Car")
    assert guest.predictions() == 2


def test_without_a_network_the_picture_waits_for_it(visit):
    guest = visit()
    guest.context.set_offline(True)
    guest.choose(STREET)
    expect(guest.find("#problem-title")).to_have_text("You are offline")
    guest.context.set_offline(False)
    expect(guest.find("#answer")).to_contain_text("Car")


def test_the_page_is_used_by_keyboard_alone(visit):
    guest = visit()
    keys = guest.page.keyboard
    keys.press("Tab")
    expect(guest.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    focused = guest.find(":focus")
    for _ in range(30):
        keys.press("Tab")
        if focused.get_attribute("class") == "sample":
            break
    outline = focused.evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    keys.press("Enter")
    expect(guest.find("#answer")).to_have_text("Car, Person, Bus and Bicycle")
    for _ in range(30):
        keys.press("Tab")
        if focused.get_attribute("id") == "detail-threshold-slider":
            break
    keys.press("End")
    expect(guest.find("#answer")).to_have_text("No label passes")
    keys.press("Escape")
    expect(guest.find("#gallery")).to_be_visible()
    expect(guest.find(".tile-open")).to_be_focused()


def test_dark_colours_follow_the_system_and_a_choice_is_remembered(visit):
    guest = visit(color_scheme="dark")
    root = guest.find("html")
    expect(root).to_have_attribute("data-theme", "dark")
    guest.page.get_by_role("button", name="Dark colours").click()
    expect(root).to_have_attribute("data-theme", "light")
    guest.page.reload()
    expect(root).to_have_attribute("data-theme", "light")


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_stands_over_the_edge_and_nothing_jumps(visit, width):
    guest = visit(viewport={"width": width, "height": 740})
    too_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not guest.page.evaluate(too_wide)
    shifts = guest.page.evaluate(SHIFTS)
    assert sum(value for value, *_ in shifts) < 0.05, shifts
    guest.try_sample("Living room")
    assert not guest.page.evaluate(too_wide)
    guest.page.go_back()
    guest.choose(SAMPLES / "farm.jpg", SAMPLES / "kitchen.jpg", SAMPLES / "garden.jpg")
    expect(guest.find(ANSWERED)).to_have_count(4)
    assert not guest.page.evaluate(too_wide)


def test_on_a_phone_one_takes_a_photo_and_every_button_is_large_enough(visit):
    guest = visit(viewport=PHONE, has_touch=True, is_mobile=True)
    expect(guest.page.get_by_role("button", name="Take a photo")).to_be_visible()
    expect(guest.find("#photograph-input")).to_have_attribute("capture", "environment")
    expect(guest.find(".with-mouse")).to_be_hidden()
    guest.find(".sample").first.tap()
    expect(guest.find("#results")).to_be_visible()
    for button in guest.find("button:visible").all():
        box = button.bounding_box()
        own = button.evaluate("element => getComputedStyle(element, '::after').position")
        assert own == "absolute" or min(box["width"], box["height"]) >= 24, button


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_no_barrier(visit, colours):
    guest = visit(color_scheme=colours)

    def barriers() -> list[str]:
        found = Axe().run(guest.page).response["violations"]
        return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found]

    assert barriers() == []
    guest.try_sample("Street")
    assert barriers() == []
    guest.page.go_back()
    guest.choose({"name": "broken.png", "mimeType": "image/png", "buffer": b"broken"})
    expect(guest.find("#problem")).to_be_visible()
    assert barriers() == []
    guest.page.go_back()
    expect(guest.find(".tile")).to_have_count(2)
    assert barriers() == []


@pytest.mark.parametrize(
    "name",
    ["street.jpg", 'it\'s; a, "trap" $(id).jpg', "-d.jpg", "back\\slash.jpg", "Straße 1.jpg"],
)
def test_the_line_for_the_terminal_gets_the_same_labels(visit, server, tmp_path, name):
    (tmp_path / name).write_bytes(STREET.read_bytes())
    guest = visit()
    guest.choose(tmp_path / name)
    expect(guest.find("#answer")).to_contain_text("Car")
    assert run_line(guest, tmp_path) == answer(server)
    guest.move("#detail-threshold-slider", 0.995)
    assert run_line(guest, tmp_path) == guest.passing() == answer(server, threshold=0.995)


def test_the_line_of_a_sample_needs_no_file_and_is_copied(visit, server):
    guest = visit(permissions=["clipboard-read", "clipboard-write"])
    guest.try_sample("Street")
    assert run_line(guest, ROOT / "conf") == answer(server)
    guest.page.get_by_role("button", name="Copy").click()
    expect(guest.page.get_by_role("button", name="Copied")).to_be_visible()
    copied = guest.page.evaluate("() => navigator.clipboard.readText()")
    assert copied == guest.find("#curl").text_content()


def run_line(guest, folder) -> list[str]:
    """Run the line that is shown in a shell, and return the labels."""
    line = guest.find("#curl").text_content()
    assert shlex.split(line)[0] == "curl"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return [label["label"] for label in json.loads(done.stdout)["images"][0]["labels"]]


@pytest.mark.parametrize("frame", [Frame(), Frame(224, 256), Frame(299, 342), Frame(224, 224)])
def test_the_part_that_the_network_sees_is_that_of_the_server(visit, frame):
    guest = visit()
    script = f"""([width, height, frame]) => import("/page/{DIGEST}/frame.js")
      .then(({{seenPart}}) => seenPart(width, height, frame))"""
    for width, height in ((640, 480), (375, 500), (31, 1000), (300, 300)):
        across, down = frame.uncut(width, height)
        left, top = frame.corner(across, down)
        asked = [width, height, {"side": frame.side, "resize": frame.resize}]
        part = guest.page.evaluate(script, asked)
        assert part["left"] == pytest.approx(left / across, abs=1 / across)
        assert part["top"] == pytest.approx(top / down, abs=1 / down)
        assert part["width"] == pytest.approx(frame.side / across, abs=1 / across)
        assert part["height"] == pytest.approx(frame.side / down, abs=1 / down)


def test_the_worlds_browsers_back_button_does_not_leave_the_page(visit):
    guest = visit()
    guest.try_sample("Farm")
    guest.page.go_back()
    expect(guest.find("#home")).to_be_visible()
    guest.page.go_forward()
    expect(guest.find("#answer")).to_have_text("Cow, Sheep and Horse")
    guest.page.reload()
    expect(guest.find("#home")).to_be_visible()


def test_among_several_models_one_is_chosen_and_asked_about_every_picture(visit, strict):
    guest = visit(strict.url)
    guest.try_sample("Street")
    expect(guest.find("#by")).to_contain_text("demo, version 1")
    guest.page.get_by_label("Model", exact=True).select_option("twin")
    expect(guest.find("#by")).to_contain_text("twin, version 1")
    line = guest.find("#curl").text_content()
    assert "-F model=twin" in line
    assert run_line(guest, ROOT) == guest.passing()


def test_a_server_that_is_gone_is_told_in_clear_words_and_asked_again_on_demand(visit, strict):
    guest = visit(strict.url)
    strict.stop()
    guest.choose(STREET)
    expect(guest.find("#problem-title")).to_have_text("The server does not answer")
    strict.start().wait_ready()
    guest.page.get_by_role("button", name="Try again").click()
    expect(guest.find("#answer")).to_contain_text("Car")
