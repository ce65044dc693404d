"""Real requests through nginx are answered by the whole server."""

import csv
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests

from tests import reference
from tests.helpers import SAMPLES, STREET, check_problem, encode, photo_like, png_bomb, wait_until


def test_every_sample_shows_its_labels(server):
    with (SAMPLES / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        answer = server.predict((SAMPLES / row["image"]).read_bytes()).json()
        assert set(answer["result"]) == set(row["labels"].split(" | ")), row["image"]


def test_every_sample_and_photograph_is_answered_as_the_reference_answers(
    server, demo_network, class_names, photos
):
    paths = [*sorted(SAMPLES.glob("*.jpg")), *photos]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: server.predict(path.read_bytes()), paths))
    for path, response in zip(paths, answers, strict=True):
        assert response.status_code == 200, path.name
        assert response.headers["Content-Type"] == "application/json"
        expected = reference.answer(demo_network, class_names, path.read_bytes())
        assert response.json() == expected, path.name


def test_the_direct_port_answers_the_same_as_nginx(server):
    data = STREET.read_bytes()
    direct = requests.post(f"{server.direct_url}/model_predict", files={"image": data}, timeout=30)
    assert direct.json() == server.predict(data).json()


BAD_REQUESTS = {
    "no field": ({"files": {"file": b"x"}}, 400, "missing_image", "it has file"),
    "text in the field": ({"files": {"image": (None, "x")}}, 400, "missing_image", "holds text"),
    "an empty file": ({"files": {"image": b""}}, 400, "unreadable_image", "0 bytes"),
    "a text file": ({"files": {"image": b"hello"}}, 400, "unreadable_image", "hello"),
    "a truncated JPEG": (
        {"files": {"image": STREET.read_bytes()[:4000]}},
        400,
        "unreadable_image",
        "JPEG but is damaged",
    ),
    "169 megapixels": (
        {"files": {"image": png_bomb()}},
        413,
        "image_too_large",
        "169,000,000 pixels (13,000 × 13,000); the limit is 50,000,000",
    ),
    "60 MB": (
        {"files": {"image": bytes(60_000_000)}},
        413,
        "body_too_large",
        "the limit is 33,554,432",
    ),
    "JSON": ({"json": {"image": "x"}}, 415, "unsupported_type", "application/json"),
    "HEIC": (
        {"files": {"image": b"\0\0\0\x18ftypheic" + bytes(99)}},
        415,
        "unsupported_type",
        "HEIC",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_input_is_reported_at_once_and_disturbs_no_other_request(server, name):
    options, status, code, message = BAD_REQUESTS[name]
    data = STREET.read_bytes()
    with ThreadPoolExecutor(9) as pool:
        good = [pool.submit(server.predict, data) for _ in range(6)]
        url = f"{server.url}/model_predict"
        bad = [pool.submit(requests.post, url, timeout=30, **options) for _ in range(3)]
        for request in bad:
            assert message in check_problem(request.result(), status, code)
        for request in good:
            assert request.result().json()["status"] == 1


def test_bad_input_leaves_no_memory_behind(server):
    """Bombs and large bodies are refused before they are decoded: the workers' peak hardly moves."""
    (pid,) = server.worker_pids()

    def peak_mib() -> float:
        with open(f"/proc/{pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

    server.predict(STREET.read_bytes())
    before = peak_mib()
    bomb = png_bomb()
    with ThreadPoolExecutor(4) as pool:
        statuses = {r.status_code for r in pool.map(server.predict, [bomb] * 16)}
    assert statuses == {413}
    assert peak_mib() - before < 60


def test_a_wrong_method_and_an_unknown_path_are_reported(server):
    response = requests.get(f"{server.url}/model_predict", timeout=30)
    check_problem(response, 405, "method_not_allowed")
    assert "POST" in response.headers["Allow"]
    check_problem(requests.post(f"{server.url}/nowhere", timeout=30), 404, "not_found")


def ask(server, line: bytes, headers: bytes = b"") -> requests.Response:
    """Send a request as it is, well formed or not; return the answer."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(line + b"\r\nHost: a\r\nConnection: close\r\n" + headers + b"\r\n")
        head, _, body = raw.makefile("rb").read().decode().partition("\r\n\r\n")
    status, *rows = head.split("\r\n")
    response = requests.Response()
    response.status_code = int(status.split()[1])
    response.headers.update(row.split(": ", 1) for row in rows)
    response._content, response.encoding = body.encode(), "utf-8"
    return response


@pytest.mark.parametrize(
    ("line", "headers", "status", "code"),
    [
        (b"GET / HTTP/1.1", b"Host: b\r\n", 400, "bad_request"),
        (b"GET /%00 HTTP/1.1", b"", 400, "bad_request"),
        (b"GET /../.. HTTP/1.1", b"", 400, "bad_request"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1", b"", 414, "uri_too_long"),
        (b"GET / HTTP/1.1", b"X-A: " + b"a" * 9000 + b"\r\n", 431, "headers_too_large"),
        (b"POST /predict HTTP/1.1", b"Transfer-Encoding: foo\r\n", 501, "not_implemented"),
        (b"GET / HTTP/2.0", b"", 505, "http_version_not_supported"),
        (b"GET //healthz/ HTTP/1.1", b"", 404, "not_found"),
        (b"GET /.problem HTTP/1.1", b"", 404, "not_found"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_requests_that_nginx_cannot_parse_get_the_same_error_form(
    server, line, headers, status, code
):
    check_problem(ask(server, line, headers), status, code)


@pytest.mark.parametrize(
    ("line", "headers"), [(b"A / HTTP/1.1", b""), (b"GET / HTTP/1.1", b"X-A: \x01\r\n")]
)
def test_requests_that_gunicorn_cannot_parse_get_the_same_error_form(server, line, headers):
    response = ask(server, line, headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Request-ID"]


def test_gunicorn_can_parse_every_request_that_nginx_can(server):
    assert ask(server, b"GET /healthz?" + b"a" * 8100 + b" HTTP/1.1").status_code == 200
    many = b"".join(b"X-%d: a\r\n" % number for number in range(180))
    assert ask(server, b"GET /healthz HTTP/1.1", many).status_code == 200


def test_too_many_headers_are_reported(server):
    response = ask(server, b"GET /healthz HTTP/1.1", b"X: a\r\n" * 300)
    assert (response.status_code, response.json()["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT", b"QUERY", b"DELETE"])
def test_an_unsupported_method_is_reported_with_the_supported_ones(server, method):
    response = ask(server, method + b" /predict HTTP/1.1")
    check_problem(response, 405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


def test_a_large_body_is_refused_before_it_is_sent(server):
    """A client that asks first (Expect: 100-continue), as curl does, sends nothing in vain."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            b"POST /model_predict HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n"
            b"Content-Type: multipart/form-data; boundary=X\r\nExpect: 100-continue\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF"])
def test_images_of_every_kind_are_served(server, demo_network, class_names, kind):
    data = encode(photo_like(300, 200), kind)
    expected = reference.answer(demo_network, class_names, data)
    assert server.predict(data).json() == expected


def test_the_clients_request_id_is_in_the_answer_and_in_the_log(server):
    response = server.predict(STREET.read_bytes(), headers={"X-Request-ID": "from-a-test"})
    assert response.headers["X-Request-ID"] == "from-a-test"
    lines = server.lines_of("from-a-test")
    assert [(line["logger"], line["status"]) for line in lines] == [("access", 200)]


def test_a_refusal_by_nginx_has_a_request_id_and_a_log_line(server):
    response = server.predict(bytes(40_000_000))
    (line,) = server.lines_of(response.headers["X-Request-ID"], "nginx")
    assert line["status"] == 413


def test_every_line_of_the_application_log_is_json(server):
    server.predict(b"text")
    lines = [line for line in server.log("gunicorn").splitlines() if line.strip()]
    assert [line for line in lines if not line.startswith("{")] == []


def test_a_client_that_disconnects_while_waiting_is_not_computed(server):
    """The place in the queue is freed at its turn; the log has nginx's own status."""
    image = STREET.read_bytes()
    body = (
        b'--X\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
        + image
        + b"\r\n--X--\r\n"
    )
    head = (
        "POST /model_predict HTTP/1.1\r\nHost: x\r\nX-Request-ID: impatient-1\r\n"
        f"Content-Type: multipart/form-data; boundary=X\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    address = urlsplit(server.url)
    with ThreadPoolExecutor(24) as pool:
        patient = [pool.submit(server.predict, image) for _ in range(24)]
        wait_until(lambda: any(answer.done() for answer in patient))  # the others are in the queue
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(head.encode() + body)
            time.sleep(0.1)  # long enough to be queued, too short to be answered
        assert {answer.result().status_code for answer in patient} == {200}
    (line,) = server.lines_of("impatient-1")
    assert line["status"] == 499


@pytest.mark.timing
def test_32_concurrent_clients_wait_equally_long(server):
    """Requests are answered in order of arrival: none is delayed in favor of others."""
    data = STREET.read_bytes()
    rounds, clients = 4, 32

    def client(_: int) -> list[float]:
        waits = []
        with requests.Session() as session:
            for _ in range(rounds):
                began = time.monotonic()
                url = f"{server.url}/model_predict"
                assert session.post(url, files={"image": data}, timeout=60).status_code == 200
                waits.append(time.monotonic() - began)
        return waits

    with ThreadPoolExecutor(clients) as pool:
        waits = list(pool.map(client, range(clients)))
    totals = [sum(own) for own in waits]
    assert max(totals) / min(totals) < 1.5, sorted(totals)
    steady = [wait for own in waits for wait in own[1:-1]]
    assert max(steady) < 1.5 * statistics.median(steady), sorted(steady)
