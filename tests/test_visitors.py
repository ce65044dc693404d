"""The page works by keyboard, touch and screen reader, in dark mode and on a small screen."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect

from scripts import screenshots
from tests.browser import PHONE, in_words
from tests.helpers import ROOT, SAMPLES

DAMAGED = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 20
ANSWERED = ".tile[data-state=done]"
# The elements that have shifted, and the layout shift score of browsers; up to 0.1 is called good.
SHIFTS = """() => new Promise((resolve) => {
  const nameOf = ({node}) => node?.id || node?.className || node?.nodeName;
  const tell = (each) => [each.value, ...each.sources.map(nameOf)];
  const observer = new PerformanceObserver((list) =>
    resolve(list.getEntries().filter((each) => !each.hadRecentInput).map(tell)));
  observer.observe({type: "layout-shift", buffered: true});
  setTimeout(() => resolve([]), 300);
})"""


def test_the_page_can_be_used_by_keyboard_alone(visit):
    guest = visit()
    keys = guest.page.keyboard
    keys.press("Tab")
    expect(guest.page.get_by_role("link", name="Skip to content")).to_be_focused()
    focused = guest.find(":focus")
    for _ in range(30):
        keys.press("Tab")
        if focused.get_attribute("class") == "sample":
            break
    outline = focused.evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    keys.press("Enter")
    expect(guest.find("#results")).to_be_visible()
    expect(guest.find("#answer")).not_to_have_text("Nothing recognized")
    for _ in range(30):
        keys.press("Tab")
        if focused.get_attribute("id") == "detail-threshold-slider":
            break
    keys.press("End")
    expect(guest.find("#answer")).to_have_text("Nothing recognized")
    keys.press("Escape")
    expect(guest.find("#gallery")).to_be_visible()
    expect(guest.find(".tile-open")).to_be_focused()


def test_dark_mode_follows_the_system_and_a_choice_is_remembered(visit):
    guest = visit(color_scheme="dark")
    root = guest.find("html")
    expect(root).to_have_attribute("data-theme", "dark")
    guest.page.get_by_role("button", name="Dark theme").click()
    expect(root).to_have_attribute("data-theme", "light")
    guest.page.reload()
    expect(root).to_have_attribute("data-theme", "light")


def test_the_page_speaks_the_visitors_language_until_another_is_chosen(visit):
    guest = visit(locale="zh-CN")
    root = guest.find("html")
    expect(root).to_have_attribute("lang", "zh-CN")
    expect(guest.find("h1").first).to_have_text("图片里有什么？")
    guest.try_sample("Street")
    expect(guest.find("#heat-place")).to_have_text(re.compile("^主要在"))
    switch = guest.page.get_by_role("button", name="Switch to English")
    expect(switch).to_have_attribute("lang", "en")
    switch.click()
    expect(root).to_have_attribute("lang", "en")
    expect(guest.find("#heat-place")).to_have_text(re.compile("^mostly "))
    expect(guest.find("#answer")).to_have_text(in_words(guest.passing()))
    assert guest.predictions() == 1
    guest.page.reload()
    expect(guest.find("#back-words")).to_have_text("Back")


def test_high_contrast_keeps_the_bars_and_paper_keeps_the_rows(visit):
    guest = visit(forced_colors="active")
    guest.try_sample("Street")
    bar = guest.find(".label .bar").first
    assert bar.evaluate("element => getComputedStyle(element).borderTopStyle") == "solid"
    fill = bar.locator(".fill").evaluate("element => getComputedStyle(element).backgroundColor")
    assert fill not in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")
    guest.page.emulate_media(media="print", forced_colors="none")
    row = guest.find(".label.chosen .label-button")
    expect(row).to_be_visible()
    assert row.evaluate("element => getComputedStyle(element, '::after').display") == "none"
    expect(guest.find("#more")).to_be_hidden()


def test_text_grows_with_the_browsers_font_size(visit):
    guest = visit()
    guest.page.evaluate("document.documentElement.style.fontSize = '200%'")
    size = guest.find("#limits").evaluate("element => getComputedStyle(element).fontSize")
    assert float(size.removesuffix("px")) == 28


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_the_layout_neither_overflows_nor_shifts(visit, width):
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
    guest.choose({"name": "a" * 200, "mimeType": "image/jpeg", "buffer": DAMAGED})
    expect(guest.find("#problem-title")).to_have_text("This image file is damaged")
    guest.find("#problem-more summary").click()
    expect(guest.find("#problem-detail")).to_be_visible()
    assert not guest.page.evaluate(too_wide)


def test_a_phone_can_take_a_photo_and_every_button_is_large_enough(visit):
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


@pytest.mark.parametrize("colors", ["light", "dark"])
def test_axe_finds_no_accessibility_problem(visit, colors):
    guest = visit(color_scheme=colors, locale={"light": "en-US", "dark": "zh-CN"}[colors])

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


def test_the_browsers_back_button_does_not_leave_the_page(visit):
    guest = visit()
    guest.try_sample("Farm")
    guest.page.go_back()
    expect(guest.find("#home")).to_be_visible()
    guest.page.go_forward()
    expect(guest.find("#detail-name")).to_have_text("farm.jpg")
    expect(guest.find("#results")).to_be_visible()
    guest.page.go_back()
    guest.page.reload()
    expect(guest.find("#home")).to_be_visible()


@pytest.mark.parametrize("view", screenshots.VIEWS, ids=lambda view: view.__name__)
def test_every_view_of_the_screenshots_can_be_reached(chromium, server, view):
    page = screenshots.open_page(chromium, server.url, **screenshots.PHONE)
    view(page)
    page.context.close()


def test_the_readmes_screenshot_is_a_small_file(chromium, server, tmp_path):
    screenshots.take_readmes(chromium, server.url, tmp_path / "page.png")
    for path in (tmp_path / "page.png", ROOT / "docs" / "page.png"):
        with Image.open(path) as image:
            assert image.size == (1280, 860)
        assert path.stat().st_size < 300_000
