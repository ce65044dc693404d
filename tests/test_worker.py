"""Gunicorn with our worker class and configuration replaces workers whose model dies."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image

from tests.helpers import ROOT, encode, photo_like, wait_until
from tests.server import free_port

pytestmark = pytest.mark.live


@contextmanager
def gunicorn(models, folder):
    """Run Gunicorn serving tests/mortal.py with two workers; yield the process and its address."""
    address = f"127.0.0.1:{free_port()}"
    conf = str(ROOT / "conf" / "gunicorn.conf.py")
    command = [sys.executable, "-m", "gunicorn", "-c", conf, "-b", address, "-w", "2"]
    environment = os.environ | {"SERVING_MODELS": str(models), "SERVING_CACHE": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "tests.mortal:app"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: states(f"http://{address}") == ["ready", "ready"], 60)
        yield process, f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def url(tiny_models, tmp_path_factory):
    """Return a Gunicorn's address; each test leaves both workers ready."""
    with gunicorn(tiny_models, tmp_path_factory.mktemp("gunicorn")) as (_, url):
        yield url


def connect(url: str) -> socket.socket:
    """Return a connection to the server."""
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def states(url: str) -> list[str]:
    """Return the states of all the workers, by slot; none while there is no answer."""
    try:
        return list(requests.get(f"{url}/readyz", timeout=10).json()["workers"].values())
    except (requests.RequestException, KeyError):
        return []


def predict(url: str, image: Image.Image) -> requests.Response:
    files = {"image": encode(image, "PNG")}
    return requests.post(f"{url}/model_predict", files=files, timeout=30)


def test_a_worker_whose_model_thread_dies_ends_at_once_and_is_replaced(url):
    white = Image.new("RGB", (8, 8), "white")
    for _ in range(2):
        with suppress(requests.ConnectionError):  # nginx would try it again
            assert predict(url, white).status_code in (500, 503)
        assert {predict(url, photo_like()).status_code for _ in range(20)} == {200}
        wait_until(lambda: states(url) == ["ready", "ready"], 30)


def test_idle_connections_do_not_delay_the_end_of_a_worker(tiny_models, tmp_path):
    with (
        gunicorn(tiny_models, tmp_path) as (process, url),
        requests.Session() as kept,
        connect(url),
        connect(url) as asking,
    ):
        assert kept.get(f"{url}/healthz", timeout=10).status_code == 200
        asking.sendall(b"GET /healthz HTTP/1.1\r\n")
        began = time.monotonic()
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert time.monotonic() - began < 4  # in vain it would be 30 s


def test_a_slow_body_is_given_up(url):
    """The request bypasses nginx, which passes on only complete bodies."""
    for attempt in range(5):
        try:
            answer = drip_body(url)
            break
        except (
            ConnectionError
        ):  # a byte met the closed connection, which took the unread answer along
            assert attempt < 4
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 2 s" in answer


def drip_body(url) -> bytes:
    """Return what answers a body of which a byte comes every 0.2 s."""
    with connect(url) as slow:
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000\r\n\r\n"
        )
        slow.settimeout(0.2)
        answer = b""
        for _ in range(100):
            with suppress(TimeoutError):
                answer = slow.recv(4096)
                break
            slow.sendall(b"x")
        with slow.makefile("rb") as rest:
            slow.settimeout(10)
            return answer + rest.read()


@pytest.mark.parametrize(
    "body",
    [b"zz\r\n", b"-5\r\nabc\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n", b"ffffffffffffffffffff\r\n"],
)
def test_invalid_chunks_are_a_client_error(url, body):
    """The request bypasses nginx, which reads chunks itself."""
    with connect(url) as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + body
        )
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answer:
            client.settimeout(10)
            assert answer.read(12) == b"HTTP/1.1 400"


@pytest.mark.parametrize(
    ("request_head", "status", "code"),
    [
        (b"GET /" + b"a" * 20_000_000, 414, b"uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 17_000, 431, b"headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 300, 431, b"headers_too_large"),
    ],
    ids=["a request line", "a header", "many headers"],
)
def test_headers_past_nginx_have_limits(url, request_head, status, code):
    with connect(url) as client:
        with suppress(ConnectionError):  # it does not read to the end
            client.sendall(request_head + b"\r\n\r\n")
        began = time.monotonic()
        assert requests.get(f"{url}/healthz", timeout=30).status_code == 200
        assert time.monotonic() - began < 5
        with suppress(ConnectionError):
            answer = client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert code in answer


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-Ssl: on",
        "X-Forwarded-Protocol: ssl",
        "Forwarded: proto=https",
        "SCRIPT_NAME: /a",
    ],
)
def test_no_proxy_header_changes_the_answer(url, header):
    name, _, value = header.partition(": ")
    sent = {name: value, "X-Forwarded-Proto": "http"}
    assert requests.get(f"{url}/healthz", headers=sent, timeout=10).status_code == 200
    assert requests.get(f"{url}/a/healthz", headers=sent, timeout=10).status_code == 404
