"""The page reports errors in clear words and offers a remedy."""

import re
import shutil

import pytest
import requests
from PIL import Image
from playwright.sync_api import expect

from tests.helpers import ROOT, STREET, encode, photo_like, png_bomb, wait_until

MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def strict_server(new_server, tiny_models, tmp_path_factory):
    """Return a server with low limits that turns photographs upright, and has two models."""
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_models / "demo", models / "twin")
    folders = {"demo": tiny_models / "demo", "twin": models / "twin"}
    configs = [f"config {{ name: '{name}' base_path: '{path}' }}" for name, path in folders.items()]
    models_file = models / "models.config"
    models_file.write_text(f"model_config_list {{ {' '.join(configs)} }}")
    rows = {"max_body_mb": "1", "max_pixels": "200000", "exif_rotate": "on"}
    # A cache of its own: servers with one cache in common have one manifest.
    rows |= {"models_file": str(models_file), "cache": str(models / "cache")}
    live = new_server(**rows).start().wait_ready()
    wait_until(lambda: requests.get(f"{live.url}/v2/models/twin/ready", timeout=60).ok, 90)
    yield live
    live.remove()


@pytest.mark.parametrize(
    ("name", "data", "headline", "detail"),
    [
        (
            "notes.txt",
            b"buy milk",
            "not a readable image",
            'it is text that begins with "buy milk"',
        ),
        ("scan.tif", b"II*\x00 and so on", "file type is not supported", "image is TIFF"),
        ("empty.png", b"", "not a readable image", "Image is empty: 0 bytes"),
    ],
)
def test_a_file_that_is_not_an_image_is_reported_in_clear_words(
    visit, name, data, headline, detail
):
    guest = visit()
    guest.choose({"name": name, "mimeType": "image/png", "buffer": data})
    expect(guest.find("#problem-title")).to_contain_text(headline)
    expect(guest.find("#problem-detail")).to_contain_text(detail, ignore_case=True)
    expect(guest.find("#announcer")).to_contain_text(headline)
    expect(guest.find("#no-preview")).to_be_visible()
    expect(guest.find("#retry")).to_be_hidden()


def test_a_file_over_the_limit_is_refused_before_it_is_sent(visit, strict_server):
    guest = visit(strict_server.url)
    expect(guest.find("#limits")).to_contain_text("up to 1 MiB and 0.2 megapixels")
    guest.choose({"name": "big.png", "mimeType": "image/png", "buffer": bytes(2 * MEGABYTE)})
    expect(guest.find("#problem-title")).to_have_text("This file is too large")
    expect(guest.find("#problem-advice")).to_contain_text("The file has 2 MiB; the limit is 1 MiB.")
    assert guest.predictions() == 0


def test_an_image_with_too_many_pixels_is_refused_in_the_servers_words(visit, strict_server):
    guest = visit(strict_server.url)
    guest.choose({"name": "wide.png", "mimeType": "image/png", "buffer": png_bomb(3000)})
    expect(guest.find("#problem-title")).to_have_text("This image is too large")
    expect(guest.find("#problem-advice")).to_contain_text("The limit is 0.2 megapixels.")
    expect(guest.find("#problem-detail")).to_contain_text("the limit is 200,000")


def test_a_portrait_of_a_phone_is_shown_and_classified_upright(visit):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned = encode(photo_like(300, 200), "JPEG", exif=exif)
    guest = visit()
    guest.choose({"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": turned})
    expect(guest.find("#results")).to_be_visible()
    box = guest.find("#photo").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(200 / 300, rel=0.02)
    with guest.page.expect_response("**/predict") as found:
        guest.page.reload()
        guest.choose({"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": turned})
    (image,) = found.value.json()["images"]
    assert (image["width"], image["height"]) == (200, 300)


def test_a_busy_server_is_retried_after_its_retry_after(visit):
    guest = visit()
    busy = {"status": 429, "headers": {"Retry-After": "1"}, "body": '{"code": "queue_full"}'}
    guest.page.route("**/predict", lambda route: route.fulfill(**busy), times=1)
    guest.choose(STREET)
    expect(guest.find("#waiting-words")).to_contain_text("The server is busy; trying again in")
    expect(guest.find("#answer")).to_contain_text("Car")
    assert guest.predictions() == 2


def test_a_request_that_hangs_can_be_canceled_and_ends_by_itself(visit):
    guest = visit()
    guest.page.clock.install()
    guest.page.route("**/predict", lambda route: None)  # never answered
    guest.choose(STREET)
    guest.page.clock.fast_forward("00:05")
    expect(guest.find("#waiting-words")).to_contain_text("· 5 s")
    guest.page.get_by_role("button", name="Cancel").click()
    expect(guest.find("#problem-title")).to_have_text("Canceled")
    with guest.page.expect_request("**/predict"):
        guest.page.get_by_role("button", name="Try again").click()
    guest.page.clock.fast_forward("01:01")
    expect(guest.find("#problem-title")).to_have_text("The server did not answer in time")
    guest.page.unroute("**/predict")
    guest.page.get_by_role("button", name="Try again").click()
    expect(guest.find("#answer")).to_contain_text("Car")


def test_a_sign_in_page_is_not_taken_for_an_answer(visit):
    guest = visit()
    guest.page.route("**/predict", lambda route: route.fulfill(body="<h1>Sign in</h1>"))
    guest.choose(STREET)
    expect(guest.find("#problem-title")).to_have_text("This is not an answer from the server")


def test_a_server_without_a_model_is_asked_again_and_says_so(visit, server):
    guest = visit()
    problem = {"status": 503, "headers": {"Retry-After": "30"}, "body": '{"code": "not_ready"}'}
    guest.page.route(f"{server.url}/?*", lambda route: route.fulfill(**problem))
    guest.page.reload()
    expect(guest.find("#outage-title")).to_have_text("The model is not ready yet")
    expect(guest.find("#outage-next")).to_have_text(re.compile(r"Trying again in (30|2\d) s"))
    expect(guest.find("#add")).to_be_hidden()
    guest.page.unroute(f"{server.url}/?*")
    guest.page.get_by_role("button", name="Try now").click()
    expect(guest.find("#outage")).to_be_hidden()
    expect(guest.find(".sample")).to_have_count(8)


def test_an_image_waits_while_the_browser_is_offline(visit):
    guest = visit()
    guest.context.set_offline(True)
    guest.choose(STREET)
    expect(guest.find("#problem-title")).to_have_text("You are offline")
    guest.context.set_offline(False)
    expect(guest.find("#answer")).to_contain_text("Car")


def test_the_chosen_one_of_several_models_is_used_for_every_image(visit, strict_server):
    guest = visit(strict_server.url)
    guest.try_sample("Street")
    expect(guest.find("#by")).to_contain_text("demo, version 1")
    guest.page.get_by_label("Choose a model", exact=True).select_option("twin")
    expect(guest.find("#by")).to_contain_text("twin, version 1")
    line = guest.find("#call").text_content()
    assert "-F model=twin" in line
    assert guest.run_line(ROOT) == guest.passing()


def test_an_unreachable_server_is_reported_in_clear_words_and_retried_on_demand(
    visit, strict_server
):
    guest = visit(strict_server.url)
    strict_server.stop()
    guest.choose(STREET)
    expect(guest.find("#problem-title")).to_have_text("The server does not answer")
    guest.page.go_back()
    expect(guest.find("#outage-title")).to_have_text("The server does not answer")
    guest.find(".tile-open").click()
    strict_server.start().wait_ready()
    guest.page.get_by_role("button", name="Try again").click()
    expect(guest.find("#answer")).to_contain_text("Car")
