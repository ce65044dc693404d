"""The page takes images from wherever they are: folders, other formats, cameras, URLs, the server's samples."""

import base64
import json

from PIL import Image
from playwright.sync_api import expect

from tests.helpers import SAMPLES, STREET

ANSWERED = ".tile[data-state=done]"
# Pastes text as the visitor does.
PASTE = """(text) => {
  const data = new DataTransfer();
  data.setData("text/plain", text);
  const paste = new ClipboardEvent("paste", {clipboardData: data, bubbles: true});
  document.body.dispatchEvent(paste);
}"""


def test_an_avif_image_is_converted_by_the_browser_and_the_page_says_so(visit, tmp_path):
    guest = visit()
    with Image.open(STREET) as image:
        image.save(tmp_path / "street.avif", quality=90)
    guest.choose(tmp_path / "street.avif")
    expect(guest.find("#answer")).to_contain_text("Car")
    expect(guest.find("#origin")).to_contain_text("does not read AVIF files")
    expect(guest.find("#call")).to_contain_text("image=@street.jpg")
    name, content = guest.download("#save-file")
    (tmp_path / name).write_bytes(content)
    assert guest.run_code("curl", tmp_path) == guest.passing()
    guest.page.go_back()
    guest.choose(STREET)
    expect(guest.find("#answer")).to_contain_text("Car")
    expect(guest.find("#origin")).to_be_hidden()


def test_a_file_that_the_browser_cannot_read_either_is_sent_as_it_is(visit):
    guest = visit()
    guest.choose({"name": "scan.heic", "mimeType": "image/heic", "buffer": b"no image at all"})
    expect(guest.find("#problem")).to_be_visible()
    assert guest.predictions() == 1


def test_a_folder_is_sorted_and_its_other_files_are_skipped(visit, tmp_path):
    album = tmp_path / "album"
    album.mkdir()
    for place in (10, 9, 1):
        (album / f"{place}.jpg").write_bytes(STREET.read_bytes())
    (album / "readme.txt").write_text("about the album")
    (album / "Thumbs.db").write_bytes(b"thumbs")
    guest = visit()
    guest.drag(album)
    guest.drop(album)
    expect(guest.find(ANSWERED)).to_have_count(3)
    assert guest.find(".tile-name").all_text_contents() == ["1.jpg", "9.jpg", "10.jpg"]
    expect(guest.find("#toast")).to_have_text("Skipped 2 files that are not images.")


def test_the_same_sample_or_file_is_one_image(visit):
    guest = visit()
    for _ in range(3):
        guest.try_sample("Street")
        guest.page.go_back()
    guest.choose(SAMPLES / "garden.jpg")
    expect(guest.find("#results")).to_be_visible()
    guest.page.go_back()
    guest.choose(SAMPLES / "garden.jpg", SAMPLES / "farm.jpg")
    expect(guest.find(ANSWERED)).to_have_count(3)
    assert guest.predictions() == 3


def test_the_camera_takes_an_image_and_classifies_live_until_the_page_is_hidden(visit):
    guest = visit(permissions=["camera"])
    guest.find("#open-camera").click()
    guest.find("#camera-take").click()
    expect(guest.find("#detail-name")).to_have_text("camera-1.jpg")
    expect(guest.find("#results")).to_be_visible()
    expect(guest.find("#call-unsaved")).to_contain_text("camera-1.jpg exists on this page only.")
    guest.page.go_back()
    guest.find("#open-camera").click()
    before = guest.predictions()
    guest.find("#camera-live").click()
    expect(guest.find("#camera-rate")).to_contain_text("images per second")
    expect(guest.find("#camera-labels li").first).to_be_visible()
    assert guest.predictions() > before
    guest.page.evaluate(
        """() => {
          Object.defineProperty(document, "hidden", {value: true});
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    expect(guest.find("#camera")).to_be_hidden()
    assert guest.page.evaluate("document.getElementById('camera-video').srcObject") is None


def test_a_visitor_without_a_camera_is_told_so(visit):
    guest = visit()
    guest.page.evaluate(
        """() => {
          navigator.mediaDevices.getUserMedia =
            () => Promise.reject(new DOMException("", "NotFoundError"));
        }"""
    )
    guest.find("#open-camera").click()
    expect(guest.find("#camera-words")).to_have_text("No camera was found.")
    expect(guest.find("#camera-take")).to_be_disabled()
    guest.page.keyboard.press("Escape")
    expect(guest.find("#camera")).to_be_hidden()


def test_pasted_text_is_answered_with_a_hint(visit):
    guest = visit()
    guest.page.evaluate(PASTE, "hello")
    expect(guest.find("#toast")).to_have_text("The clipboard holds no image.")
    guest.page.evaluate(PASTE, "https://images.example.org/street.jpg")
    expect(guest.find("#toast")).to_contain_text("does not fetch images from URLs")
    expect(guest.find(".tile")).to_have_count(0)


def test_the_url_of_an_image_is_sent_if_the_server_fetches_from_its_host(visit, server):
    """The server of this test fetches nothing: the image is put in the place of its URL on the way."""
    guest = visit()
    url = f"{server.url}/samples/street.jpg"
    bodies = []

    def allow(route):
        route.fulfill(json=route.fetch().json() | {"url_hosts": ["images.example.org"]})

    def answer(route):
        body = route.request.post_data_json
        bodies.append(body)
        image = {"b64": base64.b64encode(STREET.read_bytes()).decode()}
        route.fulfill(response=route.fetch(post_data=json.dumps(body | {"images": [image]})))

    guest.page.route(f"{server.url}/?", allow)
    guest.page.route("**/predict", answer)
    guest.page.reload()
    expect(guest.find("#url-hosts")).to_have_text(
        "Or paste the URL of an image from images.example.org."
    )
    guest.page.evaluate(PASTE, f" {url}\n")
    expect(guest.find("#answer")).to_contain_text("Car")
    assert bodies[0]["images"] == [{"url": url}]
    expect(guest.find("#photo")).to_have_attribute("src", url)
    assert json.dumps(url) in guest.find("#call").text_content()
    guest.page.get_by_role("tab", name="Python").click()
    expect(guest.find("#call")).to_contain_text(f'json={{"images": [{{"url": "{url}"}}]')


def test_the_samples_of_a_model_are_shown_whatever_their_labels(visit, server):
    guest = visit()
    own = {"name": "own.jpg", "url": "samples/street.jpg?model=demo", "labels": []}
    listed = {"model": "demo", "samples": [own | {"width": 325, "height": 351}]}
    guest.page.route("**/samples?model=demo", lambda route: route.fulfill(json=listed))
    guest.page.reload()
    expect(guest.find(".sample")).to_have_text(["Own"])
    guest.page.route("**/samples/*", lambda route: route.fulfill(path=STREET))
    guest.try_sample("Own")
    assert f"curl -s '{server.url}/samples/street.jpg?model=demo'" in guest.page.inner_text("#call")
