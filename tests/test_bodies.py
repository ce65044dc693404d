"""Request bodies share a memory budget and have a time limit."""

import gc
import gzip
import io
from _queue import SimpleQueue

import gevent
import pytest

from app.settings import MEGABYTE
from app.system.machine import process_memory
from tests.helpers import bright_or_not, check_problem, gray, make_light

IMAGE = gray(200)


@pytest.fixture
def crowded(client_of):
    """Return a client and its server, whose budget of 64 MiB others can hold."""
    client = client_of(max_bodies_mb="64", deadline_s="0.5")
    return client, client.application.extensions["model_server"]


def post(client, data=IMAGE, **headers):
    return client.post("/predict", data=data, content_type="image/png", headers=headers)


def test_a_body_without_memory_is_refused_in_time_with_the_limit(crowded):
    client, server = crowded
    with server.bodies.hold(64 * MEGABYTE):
        response = post(client)
    detail = check_problem(response, 429, "queue_full")
    assert detail == "67,108,864 bytes of request bodies are held; the limit is 67,108,864"
    assert response.headers["Retry-After"] == "1"
    assert post(client).status_code == 200


def test_a_body_waits_until_memory_becomes_free(crowded):
    client, server = crowded

    def hold():
        with server.bodies.hold(64 * MEGABYTE):
            gevent.sleep(0.1)

    holding = gevent.spawn(hold)
    gevent.sleep(0)
    assert post(client).status_code == 200
    holding.join()


def test_a_compressed_body_counts_with_its_inflated_size(crowded):
    client, server = crowded
    small = gzip.compress(IMAGE)
    with server.bodies.hold(40 * MEGABYTE):
        assert post(client).status_code == 200
        refused = post(client, small, **{"Content-Encoding": "gzip"})
        assert refused.status_code == 429
    assert post(client, small, **{"Content-Encoding": "gzip"}).status_code == 200


def test_answers_and_errors_release_their_memory(crowded):
    client, server = crowded
    for _ in range(5):
        assert post(client).status_code == 200
        assert post(client, b"no picture").status_code == 400
        assert post(client, b"no gzip", **{"Content-Encoding": "gzip"}).status_code == 400
        assert client.post("/predict", data={"a": "b"}).status_code == 400
        assert client.get("/nothing").status_code == 404
    with server.bodies.hold(64 * MEGABYTE):
        pass


def test_a_late_image_does_not_fail_the_other_images(client_of):
    gate = SimpleQueue()

    def load(_settings, _slot, entry):
        def answer(images):
            if any(int(image.mean()) == 200 for image in images):
                gate.get()
            return bright_or_not(images)

        return make_light(entry, answer, max_batch=1)

    client = client_of(load, deadline_s="1", decode_threads="1")  # so the first one is first
    files = [(io.BytesIO(gray(level)), f"{level}.png") for level in (100, 200)]
    response = client.post("/predict", data={"image": files})
    gate.put(None)
    assert response.status_code == 200
    first, second = response.json["images"]
    assert first["labels"]
    assert second["error"]["code"] == "deadline_passed"


@pytest.mark.parametrize("path", ["/predict", "/model_predict"])
def test_a_refused_body_is_not_kept_alive_by_its_error(client_of, path):
    """Frames in the error's traceback would hold it until the next garbage collection."""
    client = client_of()
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = head + b"\xff\xd8" + bytes(8 * MEGABYTE) + b"\r\n--b--\r\n"
    gc.collect()
    gc.disable()
    try:
        before = process_memory()
        for _ in range(8):
            form = "multipart/form-data; boundary=b"
            assert client.post(path, data=body, content_type=form).status_code in (400, 413)
        assert process_memory() - before < 40 * MEGABYTE
    finally:
        gc.enable()
