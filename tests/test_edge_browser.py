"""A web page of another origin may use the server in a real Chromium if its origin is listed."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.gateway import Gateway

SEND = """async ({url, size, options}) => {
  try {
    const body = new Blob([new Uint8Array(size)]);
    const response = await fetch(url, {method: "POST", body, ...options});
    return [response.status, response.headers.get("X-Request-ID"), response.headers.get("Retry-After")];
  } catch (error) {
    return error.name;
  }
}"""


class Page(BaseHTTPRequestHandler):
    """A handler that answers an empty page."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Log nothing."""


@pytest.fixture
def app():
    """Return the port of another server, with a page that could be anybody's."""
    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_browser_lets_a_listed_page_send_and_read_and_no_other(chromium, app, tmp_path):
    gateway = Gateway(tmp_path / "run", cors_origins=f"http://127.0.0.1:{app}")
    url = f"http://127.0.0.1:{gateway.port}"
    headers = {"Content-Type": "application/json", "X-API-Key": "a"}  # need a preflight
    page = chromium.new_page()

    def send(path: str, size: int = 10, **options):
        return page.evaluate(SEND, {"url": url + path, "size": size, "options": options})

    try:
        page.goto(f"http://127.0.0.1:{app}/")
        status, request_id, _ = send("/predict", headers=headers)
        assert (status, len(request_id)) == (200, 32)
        status, request_id, _ = send("/nowhere", 20_000, headers=headers)
        assert (status, len(request_id)) == (413, 32), "errors of nginx are readable too"
        page.goto(f"http://localhost:{app}/")
        before = len(gateway.paths)
        assert send("/predict") == "TypeError"
        assert send("/predict", mode="no-cors") == [0, None, None]
        assert gateway.paths[before:] == [], "it did not reach the application"
        page.goto(f"{url}/")
        assert send("/predict", headers=headers)[0] == 200, "its own page"
    finally:
        page.close()
        gateway.close()
