"""Take screenshots of a running server's page, for review.

    python -m scripts.screenshots build/screenshots --url http://localhost:8999

Needs Debian's chromium-headless-shell (``scripts/setup test``). ``--readme`` takes only the README's image.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = sorted((ROOT / "samples").glob("*.jpg"))
BROKEN = FilePayload(name="holiday.jpg", mimeType="image/jpeg", buffer=b"no picture at all")
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
TABLET: dict[str, Any] = {"viewport": {"width": 820, "height": 1180}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
SMALL: dict[str, Any] = {**PHONE, "viewport": {"width": 320, "height": 568}}


def show_home(page: Page) -> None:
    """The start page."""


def show_answer(page: Page) -> None:
    """One image with its labels."""
    page.get_by_role("button", name="Street", exact=True).click()
    expect(page.locator("#results")).to_be_visible()


def show_heat(page: Page) -> None:
    """One label's heat map over the image."""
    show_answer(page)
    page.get_by_role("button", name="Bus,").click()
    expect(page.locator("#heat")).to_be_visible()
    page.mouse.move(0, 0)


def show_threshold(page: Page) -> None:
    """A changed threshold, with all labels shown."""
    show_answer(page)
    page.locator("#detail-threshold-slider").fill("0.005")
    page.locator("#more").click()


def show_grid(page: Page) -> None:
    """Several images, one of them corrupt."""
    page.set_input_files("#choose-input", SAMPLES)
    page.set_input_files("#choose-input", BROKEN)
    page.locator("#back").click()
    expect(page.locator(".tile[data-state=done]")).to_have_count(len(SAMPLES))
    expect(page.locator(".tile[data-state=failed]")).to_have_count(1)
    page.mouse.move(0, 0)


def show_error(page: Page) -> None:
    """A file that is not an image."""
    page.set_input_files("#choose-input", BROKEN)
    expect(page.locator("#problem")).to_be_visible()


def show_busy(page: Page) -> None:
    """A busy server (429)."""
    page.route(
        "**/predict",
        lambda route: route.fulfill(
            status=429, headers={"Retry-After": "30"}, body='{"code": "queue_full"}'
        ),
    )
    page.set_input_files("#choose-input", SAMPLES[0])
    expect(page.locator("#waiting-words")).to_contain_text("trying again")


VIEWS: tuple[Callable[[Page], None], ...] = (
    show_home,
    show_answer,
    show_heat,
    show_threshold,
    show_grid,
    show_error,
    show_busy,
)
SCREENS = {"desktop": DESKTOP, "tablet": TABLET, "phone": PHONE, "small": SMALL}


def open_page(browser: Browser, url: str, **options: Any) -> Page:
    """Open the page in a new browser context; ``options`` are Playwright's."""
    page = browser.new_context(reduced_motion="reduce", **options).new_page()
    page.goto(url)
    expect(page.locator(".sample")).to_have_count(len(SAMPLES))
    page.wait_for_load_state("networkidle")
    return page


def take_all(browser: Browser, url: str, folder: Path) -> None:
    """Take every view on every screen, in light and dark mode."""
    for screen, options in SCREENS.items():
        for colors in ("light", "dark"):
            for view in VIEWS:
                page = open_page(browser, url, color_scheme=colors, **options)
                view(page)
                name = f"{screen}-{view.__name__.removeprefix('show_')}-{colors}.png"
                page.screenshot(path=folder / name)
                page.context.close()


def take_readmes(browser: Browser, url: str, path: Path) -> None:
    """Take the README's image."""
    page = open_page(browser, url, **DESKTOP)
    show_heat(page)
    page.screenshot(path=path)
    page.context.close()
    with Image.open(path) as image:
        opaque = image.convert("RGB")
    opaque.save(path, optimize=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="scripts.screenshots", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "screenshots")
    parser.add_argument("--url", default="http://localhost:8999")
    parser.add_argument("--readme", action="store_true", help="only docs/page.png")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium-headless-shell"), args=["--no-sandbox"]
        )
        if arguments.readme:
            take_readmes(browser, arguments.url, ROOT / "docs" / "page.png")
        else:
            take_all(browser, arguments.url, arguments.folder)


if __name__ == "__main__":
    main()
