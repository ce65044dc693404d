"""Images by URL come from a real server beside the test, and never from forbidden addresses.

What needs gevent's own sockets is in urls_patched.py, which test_patched.py runs.
"""

import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import requests
from urllib3 import exceptions

from app.errors import FetchFailed, SettingsError, UrlRefused
from app.settings import Settings
from app.web.input.fetch_errors import explain_fetch
from app.web.input.urls import Fetcher, connect, is_public
from tests.helpers import check_problem, gray

IMAGE = gray(90)


class Gallery(BaseHTTPRequestHandler):
    """A handler that answers images, redirects and malformed responses."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        place = self.path.partition("?")[0]
        self.server.seen.append((self.headers["Host"], self.path))
        self.server.headers.append(self.headers)
        if place.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif place in ("/picture.png", "/") and self.path != "/":
            self.answer(200, IMAGE)
        elif place == "/large":
            self.answer(200, bytes(10_000))
        elif place == "/endless":
            self.send_response(200)
            self.end_headers()
            self.drip()
        elif place == "/negative":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"-5\r\nhello\r\n")
        elif place == "/together":
            self.server.barrier.wait(timeout=10)
            self.answer(200, IMAGE)
        else:
            self.answer(404, b"nothing")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def drip(self) -> None:
        """Send a byte from time to time, so that no single wait is long."""
        while not self.server.closing.wait(0.05):
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def log_message(self, *_):
        """Log nothing."""


class GalleryServer(ThreadingHTTPServer):
    """A server that accepts many connections at once."""

    request_queue_size = 64


@pytest.fixture
def gallery():
    """Return a server on loopback."""
    server = GalleryServer(("127.0.0.1", 0), Gallery)
    server.seen, server.headers, server.closing = [], [], threading.Event()
    server.barrier = threading.Barrier(3)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def fetcher(gallery, hosts=("localhost:{}",), max_bytes=5000, timeout_s=5.0) -> Fetcher:
    """Return a fetcher that may use the gallery's port, and loopback, which is forbidden in production."""
    port = gallery.server_port
    return Fetcher([host.format(port) for host in hosts], max_bytes, timeout_s, lambda _: True)


def at(gallery, path: str) -> str:
    return f"http://localhost:{gallery.server_port}{path}"


def error_of(found) -> str:
    assert isinstance(found, UrlRefused | FetchFailed), found
    return found.message


def test_images_are_fetched_each_with_its_own_error_and_in_order(gallery):
    urls = [at(gallery, path) for path in ("/picture.png?a=1#part", "/missing", "/picture.png")]
    first, missing, third = fetcher(gallery).fetch_all(urls)
    assert first.read() == third.read() == IMAGE
    assert "answered with the status 404" in error_of(missing)
    assert (f"localhost:{gallery.server_port}", "/picture.png?a=1") in gallery.seen


def test_redirects_are_followed_and_checked_like_the_url_itself(gallery):
    good = at(gallery, f"/to/{at(gallery, '/to//picture.png')}")
    away = at(gallery, "/to/http://169.254.169.254/latest/meta-data")
    scheme = at(gallery, "/to/file:///etc/passwd")
    found = fetcher(gallery).fetch_all([good, away, scheme])
    assert found[0].read() == IMAGE
    assert "not on this server's list" in error_of(found[1])
    assert "neither http nor https" in error_of(found[2])


def test_a_redirect_from_https_to_http_is_refused(gallery, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr("app.web.input.urls.tls_context", lambda: trusting)
    gallery.socket = context.wrap_socket(gallery.socket, server_side=True)
    secure = at(gallery, "/picture.png").replace("http:", "https:")
    good, bad = (
        secure.replace("/picture.png", f"/to/{place}")
        for place in (secure, at(gallery, "/picture.png"))
    )
    found, refused = fetcher(gallery).fetch_all([good, bad])
    assert found.read() == IMAGE
    assert "redirected from https to http" in error_of(refused)


def test_redirects_are_limited(gallery):
    path = "/picture.png"
    for _ in range(4):
        path = f"/to/{path}"
    assert "more than 3 redirects" in error_of(fetcher(gallery).fetch_all([at(gallery, path)])[0])


def test_the_images_of_a_request_share_one_limit(gallery):
    (alone,) = fetcher(gallery, max_bytes=len(IMAGE)).fetch_all([at(gallery, "/picture.png")])
    assert alone.read() == IMAGE
    (large,) = fetcher(gallery).fetch_all([at(gallery, "/large")])
    assert "larger than the limit of 5,000 bytes" in error_of(large)
    both = fetcher(gallery, max_bytes=len(IMAGE) + 1).fetch_all([at(gallery, "/picture.png")] * 2)
    assert sum(isinstance(found, FetchFailed) for found in both) >= 1


def test_an_unreachable_server_is_reported(gallery):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        port = taken.getsockname()[1]
        rules = Fetcher([f"localhost:{port}"], 5000, 5.0, lambda _: True)
        (found,) = rules.fetch_all([f"http://localhost:{port}/a.png"])
    assert error_of(found).endswith(
        "/a.png' cannot be fetched: its host accepts no connection at this port"
    )


def test_https_must_be_proven(gallery):
    """The gallery speaks no TLS, so that the handshake fails."""
    url = at(gallery, "/picture.png").replace("http://", "https://")
    found = error_of(fetcher(gallery).fetch_all([url])[0])
    assert "cannot be fetched: no secure connection could be made" in found


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "its host name could not be resolved"),
        (ssl.SSLCertVerificationError("self-signed"), "no secure connection could be made"),
        (exceptions.ReadTimeoutError(None, "/", "slow"), "its host did not answer in time"),
        (exceptions.ProtocolError("Connection aborted."), "its host broke off"),
        (ConnectionResetError(104, "reset"), "its host closed the connection"),
        (OSError(113, "No route to host"), "the connection failed"),
    ],
)
def test_a_failed_fetch_is_explained_without_pythons_names(error, reason):
    assert explain_fetch(error).startswith(reason)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://localhost/a.png", "neither http nor https"),
        ("picture.png", "neither http nor https"),
        ("http:///a.png", "plain host"),
        ("http://user:word@localhost/a.png", "plain host"),
        ("http://localhost\r\nX: y/a.png", "is no URL"),
        ("http://localhost/\r\nX: y", "plain host"),
        ("http://bücher.example/a.png", "plain host"),
        ("http://localhost:99999/a.png", "is no URL"),
        ("http://[::1/a.png", "is no URL"),
        ("http://localhost/a.png", "not on this server's list"),  # another port
        ("http://evil.example/a.png", "not on this server's list"),
        ("http://localhost.evil.example/a.png", "not on this server's list"),
    ],
)
def test_a_url_that_is_not_allowed_is_never_requested(gallery, url, said):
    assert said in error_of(fetcher(gallery).fetch_all([url])[0])
    assert gallery.seen == []


@pytest.mark.parametrize("host", ["a..example.org", ".example.org", f"{'a' * 64}.example.org"])
def test_an_unresolvable_name_fails_only_its_own_image(gallery, host):
    rules = Fetcher(
        ["*.example.org", f"localhost:{gallery.server_port}"], 5000, 5.0, lambda _: True
    )
    refused, found = rules.fetch_all([f"http://{host}/", at(gallery, "/picture.png")])
    assert "plain host" in error_of(refused)
    assert found.read() == IMAGE


def test_an_answer_that_is_not_http_fails_only_its_own_image(gallery):
    broken, found = fetcher(gallery).fetch_all(
        [at(gallery, "/negative"), at(gallery, "/picture.png")]
    )
    assert "cannot be fetched: its host broke off" in error_of(broken)
    assert found.read() == IMAGE


def test_a_url_with_a_query_needs_no_path(gallery):
    (found,) = fetcher(gallery).fetch_all([at(gallery, "?picture=1")])
    assert found.read() == IMAGE
    assert gallery.seen[0][1] == "/?picture=1"


def test_a_url_of_any_length_is_shortened_in_errors():
    (found,) = Fetcher(["a.example"], 5000, 1.0).fetch_all(["http://a.example/" + "a" * 1_000_000])
    assert "1,000,017 characters; a URL has at most 8,192" in error_of(found)
    assert len(error_of(found)) < 300


def test_the_certificate_authorities_are_read_once_for_all_urls():
    url = urlsplit("https://a.example/")
    first, second = (connect(url, 443, "127.0.0.1") for _ in range(2))
    assert first.conn_kw["ssl_context"] is second.conn_kw["ssl_context"]


def test_urls_are_off_without_allowed_hosts():
    (found,) = Fetcher([], 5000, 1.0).fetch_all(["http://example.org/a.png"])
    assert "off here" in error_of(found)


def test_a_name_that_resolves_to_a_private_address_is_refused(gallery):
    rules = Fetcher([f"localhost:{gallery.server_port}"], 5000, 1.0)
    (found,) = rules.fetch_all([at(gallery, "/picture.png")])
    assert "address that is not public" in error_of(found)
    assert gallery.seen == []


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
        # Those that a cloud's machines find their secrets at.
        *("192.0.0.192", "168.63.129.16", "100.100.100.200", "fd00:ec2::254"),
        # Of IANA's registries: 6to4 relays, NAT64, the former site-local addresses, documentation, segment routing.
        *("192.88.99.1", "64:ff9b:1::7f00:1", "fec0::1", "2001:db8::1", "3fff::1", "5f00::1"),
        # An IPv4 address inside.
        *("::7f00:1", "::ffff:0:127.0.0.1", "2a00:1450::5efe:7f00:1", "2a00:1450::200:5efe:a00:1"),
    ],
)
def test_private_addresses_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "168.63.129.17", "2606:2800:220:1::1", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_public(address):
    assert is_public(address)


def test_a_rule_may_allow_any_subdomain(gallery):
    rules = Fetcher(["*.example.org:8080"], 5000, 1.0, lambda _: False)
    (below,) = rules.fetch_all(["http://a.b.example.org:8080/"])
    assert "not on this server's list" not in error_of(below)
    (itself,) = rules.fetch_all(["http://example.org:8080/"])
    assert "not on this server's list" in error_of(itself)


def test_a_worker_refuses_a_name_that_resolves_to_its_own_machine(start_server, gallery):
    port = gallery.server_port
    live = start_server(url_hosts=f"localhost:{port}").wait_ready()
    content = {"images": [{"url": at(gallery, "/picture.png")}] * 3}
    answer = requests.post(f"{live.url}/predict", json=content, timeout=30)
    assert "not public" in check_problem(answer, 422, "url_refused")
    assert len(answer.json()["images"]) == 3
    assert gallery.seen == []


def test_the_allowed_hosts_are_checked_at_startup():
    given = {"SERVING_URL_HOSTS": "a.example, *.b.example:8443"}
    assert Settings.from_env(given).url_hosts == ("a.example", "*.b.example:8443")
    with pytest.raises(SettingsError, match="found 'http://a'"):
        Settings.from_env({"SERVING_URL_HOSTS": "http://a"})
