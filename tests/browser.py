"""Visit the page in a real Chromium and record every error that the visitor does not see."""

import json
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect

PHONE = {"width": 360, "height": 740}
NODE = Path(sys.executable).with_name("node")
DESKTOP = {"width": 1280, "height": 800}
expect.set_options(timeout=20_000)  # ms; other programs may be at work too
# Copies an image of the server, as from another window.
COPY = """async (url) => {
  const bitmap = await createImageBitmap(await (await fetch(url)).blob());
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  const png = await canvas.convertToBlob({type: "image/png"});
  await navigator.clipboard.write([new ClipboardItem({"image/png": png})]);
}"""


def in_words(names: list[str]) -> str:
    """Join names as the page does in English: "A", "A and B", "A, B, and C"."""
    if len(names) <= 2:
        return " and ".join(names)
    return f"{', '.join(names[:-1])}, and {names[-1]}"


class Visit:
    """A visit of one browser; ``complaints`` has the errors and broken rules that the browser reported.

    Attributes:
        page: Playwright's page.
        requests: the address of every request, in order.
        complaints: exceptions, and errors and warnings of the console but those of answers with an error.
    """

    def __init__(self, browser: Browser, url: str, **options: object) -> None:
        """Open the page as a new visitor; ``options`` are those of Playwright's contexts."""
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", **options}
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(20_000)  # ms
        self.page: Page = self.context.new_page()
        self.url = url
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._note)
        self.page.goto(url)
        expect(self.page.locator(".sample")).to_have_count(8)

    def _note(self, message: object) -> None:
        """Record console messages, except the browser's own line about an error response."""
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def close(self) -> None:
        """End the visit; fail on an error or on a request to another host."""
        self.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith((self.url, "blob:"))] == []

    def find(self, selector: str) -> Locator:
        """Return elements by a CSS selector."""
        return self.page.locator(selector)

    def try_sample(self, name: str) -> None:
        """Choose a sample, and wait for its answer."""
        self.page.get_by_role("button", name=name, exact=True).click()
        expect(self.find("#results")).to_be_visible()

    def choose(self, *files: Path | dict) -> None:
        """Choose files as the button does."""
        self.page.set_input_files("#choose-input", list(files))

    def drag(self, *paths: Path) -> None:
        """Drag files or folders from the desktop over the page without dropping them yet."""
        for event in ("dragEnter", "dragOver"):
            self._send_drag(event, *paths)

    def drop(self, *paths: Path) -> None:
        """Drop the dragged files."""
        self._send_drag("drop", *paths)

    def _send_drag(self, event: str, *paths: Path) -> None:
        session = self.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        session.send("Input.dispatchDragEvent", {"type": event, "x": 200, "y": 300, "data": data})

    def paste(self, sample: str) -> None:
        """Copy a sample and paste it."""
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page.evaluate(COPY, f"samples/{sample}")
        self.page.keyboard.press("Control+V")

    def passing(self) -> list[str]:
        """Return the labels that pass, as they are shown from above."""
        return self.find(".label.passes button").all_text_contents()

    def choose_label(self, name: str) -> None:
        """Show the heat map of a label, whether or not it is visible already."""
        button = self.page.get_by_role("button", name=f"{name},")
        if button.get_attribute("aria-pressed") == "true":
            button.click()
            expect(self.find("#heat")).to_be_hidden()
        button.click()
        expect(self.find("#heat")).to_have_attribute("data-label", name)

    def move(self, slider: str, value: float) -> None:
        """Move a slider."""
        self.find(slider).fill(str(value))

    def download(self, button: str) -> tuple[str, bytes]:
        """Click a button, and return the name and the content of the file that it downloads."""
        with self.page.expect_download() as found:
            self.find(button).click()
        return found.value.suggested_filename, Path(found.value.path()).read_bytes()

    def run_code(self, language: str, folder: Path) -> list[str]:
        """Run the displayed code of a language in a folder, and return the labels that it gets."""
        self.page.get_by_role("tab", name=language).click()
        if language == "curl":
            return self.run_line(folder)
        program = folder / ("call.py" if language == "Python" else "call.mjs")
        program.write_text(self.find("#call").text_content())
        command = [sys.executable if language == "Python" else NODE, program.name]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=60, check=True
        )
        return [line.rsplit(" ", 1)[0] for line in done.stdout.splitlines()]

    def run_line(self, folder: Path) -> list[str]:
        """Run the displayed command line, and return the labels that it gets."""
        line = self.find("#call").text_content()
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=60, check=True
        )
        return [label["label"] for label in json.loads(done.stdout)["images"][0]["labels"]]

    def predictions(self) -> int:
        """Return the number of predictions sent."""
        return sum(url == f"{self.url}/predict" for url in self.requests)
