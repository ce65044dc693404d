"""nginx in front of the server limits the client data that it stores, accepts and logs."""

import os
import socket
import stat
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.helpers import STREET, check_problem, wait_until

MIB = 1024 * 1024


def begin(server, line: str, *headers: str, sent: bytes = b"") -> socket.socket:
    """Send a request's head, and the beginning of its body; return the connection."""
    address = urlsplit(server.url)
    client = socket.create_connection((address.hostname, address.port), timeout=10)
    head = "\r\n".join([f"{line} HTTP/1.1", "Host: a", "Connection: close", *headers])
    client.sendall(head.encode("latin-1") + b"\r\n\r\n")
    with suppress(ConnectionError):  # it may be refused before it is read
        client.sendall(sent)
    return client


def read(client: socket.socket) -> requests.Response:
    """Return the answer."""
    with client.makefile("rb") as stream:
        status = stream.readline().decode()
        rows = [row.decode().rstrip() for row in iter(stream.readline, b"\r\n")]
        length = next(int(row.split()[1]) for row in rows if row.startswith("Content-Length"))
        body = stream.read(length)
    response = requests.Response()
    response.status_code = int(status.split()[1])
    response.headers.update(row.split(": ", 1) for row in rows)
    response._content, response.encoding = body, "utf-8"
    return response


def stored_bytes(server) -> int:
    """Return the bytes of bodies and answers that nginx holds on disk, including unlinked files."""
    (master,) = [int((server.folder / "run" / "nginx.pid").read_text())]
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    total = 0
    for pid in children:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed between two looks
                if str(server.folder / "run" / "nginx") in os.readlink(link):
                    total += link.stat().st_size
    return total


@pytest.mark.parametrize(
    "line",
    [
        "POST /nothing-here",
        "POST /",
        "GET /healthz",
        "GET /predict",
        "DELETE /v1/models/demo",
        "TRACE /predict",
        "TRACE /metrics",
        "POST /page/x/../../samples",
    ],
)
def test_a_large_body_is_not_stored_on_routes_without_images(server, line):
    with closing(begin(server, line, f"Content-Length: {32 * MIB}", sent=bytes(4 * MIB))) as client:
        client.settimeout(5)
        assert client.recv(4096).split()[1] == b"413"
        assert stored_bytes(server) == 0


def test_a_chunked_body_is_not_stored_on_routes_without_images(server):
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    for line in ("POST /nothing-here", "GET /predict"):
        with closing(begin(server, line, "Transfer-Encoding: chunked", sent=chunk * 64)) as client:
            assert client.recv(4096).split()[1] == b"413"
            assert stored_bytes(server) == 0


def test_a_refused_body_is_reported_with_its_limit(server):
    data = bytes(20_000)
    detail = check_problem(
        requests.post(f"{server.url}/nowhere", data=data, timeout=30), 413, "body_too_large"
    )
    assert detail == "the body has 20000 bytes; the limit is 16,384"
    detail = check_problem(
        requests.get(f"{server.url}/predict", data=data, timeout=30), 413, "body_too_large"
    )
    assert detail == "the body has 20000 bytes; the limit is 16,384"
    assert requests.post(f"{server.url}/nowhere", data=data[:16_000], timeout=30).status_code == 404


def test_slow_bodies_are_limited_in_number_and_delay_no_other_client(server):
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                closing(
                    begin(
                        server,
                        "POST /predict",
                        f"Content-Length: {32 * MIB}",
                        sent=bytes(2 * MIB),
                    )
                )
            )
            for _ in range(40)
        ]
        wait_until(lambda: stored_bytes(server) > 8 * MIB, 10)
        assert stored_bytes(server) <= 16 * 32 * MIB
        refused = 0
        for client in clients:
            client.settimeout(0.2)
            try:
                assert client.recv(4096).startswith(b"HTTP/1.1 429 ")
                refused += 1
            except (TimeoutError, ConnectionError):
                continue
        assert refused >= 30
        assert server.predict(STREET.read_bytes()).status_code == 200
        with closing(begin(server, "POST /predict", f"Content-Length: {5 * MIB}")) as client:
            response = read(client)
        assert "over 4 MB" in check_problem(response, 429, "too_many_uploads")
        assert response.headers["Retry-After"] == "1"
    wait_until(lambda: stored_bytes(server) == 0, 20)
    large = STREET.read_bytes() + bytes(5 * MIB)
    wait_until(lambda: server.predict(large).status_code == 200, 20)


def test_an_answer_that_is_not_read_is_not_stored(server):
    address = urlsplit(server.url)
    with ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((address.hostname, address.port))
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 8)
        wait_until(lambda: requests.get(f"{server.url}/healthz", timeout=5).ok, 5)
        assert stored_bytes(server) == 0


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-Ssl: on",
        "X-Forwarded-Protocol: ssl",
        "X-Forwarded-Protocol: https",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Scheme: https",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Port: 443",
        "X-Forwarded-Prefix: /a",
        "Forwarded: for=1.2.3.4;proto=https",
        "SCRIPT_NAME: /a",
        "X-Serving-Request: chosen",
    ],
)
def test_headers_of_another_proxy_change_nothing(server, header):
    name, _, value = header.partition(": ")
    response = requests.get(f"{server.url}/healthz", headers={name: value}, timeout=10)
    assert (response.status_code, response.json()) == (200, {"status": "alive"})
    assert (
        requests.get(f"{server.url}/a/healthz", headers={name: value}, timeout=10).status_code
        == 404
    )


def test_errors_are_not_cached_and_types_are_not_sniffed(server):
    for response in (
        requests.get(f"{server.url}/nowhere", timeout=10),
        requests.post(f"{server.url}/nowhere", data=bytes(20_000), timeout=10),
    ):
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Cache-Control" not in requests.get(f"{server.url}/healthz", timeout=10).headers


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_no_method_bypasses_the_rules_of_a_path(server, method):
    """Requests refused by nginx reach the application as a method that no route answers."""
    with closing(begin(server, f"{method} /metrics")) as client:
        response = read(client)
    assert "GET" in response.headers["Allow"]
    assert method in check_problem(response, 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("/nowhere?secret=1", "/nowhere"),
        ("/a%C2%85b", "/a%C2%85b"),
        ("/" + "a" * 6000, "/" + "a" * 299),
        ('/"quoted"\\', '/"quoted"\\'),
        ("/caf\xe9", "/caf"),
    ],
    ids=["a query", "escapes", "a long path", "quotes", "eight bits"],
)
def test_the_log_line_of_a_refusal_names_its_own_path(server, target, logged):
    with closing(
        begin(server, f"POST {target}", "Content-Length: 20000", sent=bytes(20_000))
    ) as client:
        request_id = read(client).headers["X-Request-ID"]
    (line,) = server.lines_of(request_id, "nginx")
    assert line["message"] == f"POST {logged} 413"


def test_nginxs_log_lines_are_short_for_any_method(server):
    before = len(server.log_lines("nginx"))
    with closing(begin(server, "A" * 5000 + " /" + "b" * 3000, "X-A: \x01")) as client:
        client.recv(4096)
    with closing(begin(server, "POST /nowhere", "Content-Length: 99999999999")) as client:
        client.recv(4096)
    wait_until(lambda: len(server.log_lines("nginx")) > before, 10)
    assert max(map(len, server.log("nginx").splitlines())) < 2000


def test_the_socket_accepts_only_the_servers_own_nginx(server):
    mode = (server.folder / "run" / "gunicorn.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("TRACE /v2/models/demo", b"x" * 40),
        ("TRACE /", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("CONNECT /predict", b"y" * 300),
        ("GET /.problem", b"z" * 50),
        ("POST /.problem", b"z" * 50),
    ],
)
def test_a_body_dropped_by_nginx_does_not_corrupt_the_next_request(server, line, body):
    """The application gets the length of a body that never arrives: on a kept connection it would wait for it."""
    for _ in range(6):  # as many as nginx keeps connections to it, and more
        with closing(begin(server, line, f"Content-Length: {len(body)}", sent=body)) as client:
            assert client.recv(9) == b"HTTP/1.1 "
        for _ in range(3):
            answer = requests.get(f"{server.url}/v2/models/demo", timeout=30)
            assert answer.status_code == 200, answer.text
            assert answer.json()["name"] == "demo"


def test_long_json_is_compressed_and_short_answers_are_not(server):
    """The direct port never compresses: there is no nginx in between."""
    image = STREET.read_bytes()

    def encoding(method: str, path: str, url: str = server.url) -> str | None:
        body = {"files": {"image": image}} if method == "POST" else {}
        response = requests.request(method, f"{url}{path}", timeout=60, **body)
        assert response.status_code == 200, response.text
        assert response.json()
        return response.headers.get("Content-Encoding")

    assert encoding("GET", "/openapi.json") == "gzip"
    assert encoding("POST", "/predict?scores=all&heatmap_top_k=20") == "gzip"
    for path in ("/model_predict", "/predict", "/predict?heatmap=all"):
        assert encoding("POST", path) is None
    for path in ("/health", "/healthz", "/readyz"):
        assert encoding("GET", path) is None
    assert encoding("GET", "/openapi.json", server.direct_url) is None
