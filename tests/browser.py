"""A visit to the page in a real Chromium, which notes everything that goes wrong behind the visitor's back."""

import base64
import mimetypes
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect

PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}
# Hands files to the page as a drop or a paste would: browsers let no test carry real files across.
HAND_OVER = """([kind, files]) => {
  const transfer = new DataTransfer();
  for (const {name, type, data} of files) {
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
    transfer.items.add(new File([bytes], name, {type}));
  }
  const options = {bubbles: true, cancelable: true};
  const send = (event) => document.body.dispatchEvent(event);
  if (kind === "paste") return send(new ClipboardEvent("paste", {...options, clipboardData: transfer}));
  for (const type of kind.split(" ")) send(new DragEvent(type, {...options, dataTransfer: transfer}));
}"""


class Visit:
    """One person's visit. ``complaints`` is what the browser said of errors and of broken rules.

    Attributes:
        page: Playwright's page.
        requests: the address of every request, in order.
        complaints: exceptions, and errors and warnings of the console but those of answers with an error.
    """

    def __init__(self, browser: Browser, url: str, **options: object) -> None:
        """Open the page as a new visitor; ``options`` are those of Playwright's contexts."""
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", **options}
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(20_000)
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
        """Keep what the console says; the browser's own line about an answer with an error is none of ours."""
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def close(self) -> None:
        """End the visit; fail where something was wrong, or where another host was asked for anything."""
        self.context.close()
        assert not self.complaints
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

    def hand_over(self, kind: str, *paths: Path) -> None:
        """Paste or drop files; ``kind`` has the events that the browser would send, in order."""
        files = [
            {
                "name": path.name,
                "type": mimetypes.guess_type(path.name)[0],
                "data": base64.b64encode(path.read_bytes()).decode(),
            }
            for path in paths
        ]
        self.page.evaluate(HAND_OVER, [kind, files])

    def passing(self) -> list[str]:
        """Return the labels that pass, as they are shown from above."""
        return self.find(".label.passes button").all_text_contents()

    def move(self, slider: str, value: float) -> None:
        """Move a slider."""
        self.find(slider).fill(str(value))

    def predictions(self) -> int:
        """Return how many pictures were sent."""
        return sum(url == f"{self.url}/predict" for url in self.requests)
