"""The memory that request bodies may take together, and that it is given back."""

import gzip

import gevent
import pytest

from app.settings import MEGABYTE
from tests.helpers import check_problem, grey

PICTURE = grey(200)


@pytest.fixture
def crowded(client_of):
    """Return a client, and its server whose budget of 64 MiB others can hold."""
    client = client_of(max_bodies_mb="64", deadline_s="0.5")
    return client, client.application.extensions["model_server"]


def post(client, data=PICTURE, **headers):
    return client.post("/predict", data=data, content_type="image/png", headers=headers)


def test_a_body_that_finds_no_memory_is_refused_in_time_and_names_the_limit(crowded):
    client, server = crowded
    with server.hold_body(64 * MEGABYTE):
        response = post(client)
    told = check_problem(response, 429, "queue_full")
    assert told == "67,108,864 bytes of request bodies are held; the limit is 67,108,864"
    assert response.headers["Retry-After"] == "1"
    assert post(client).status_code == 200


def test_a_body_waits_for_memory_that_becomes_free(crowded):
    client, server = crowded

    def hold():
        with server.hold_body(64 * MEGABYTE):
            gevent.sleep(0.1)

    holding = gevent.spawn(hold)
    gevent.sleep(0)
    assert post(client).status_code == 200
    holding.join()


def test_a_compressed_body_counts_as_what_it_may_inflate_to(crowded):
    client, server = crowded
    small = gzip.compress(PICTURE)
    with server.hold_body(40 * MEGABYTE):
        assert post(client).status_code == 200
        refused = post(client, small, **{"Content-Encoding": "gzip"})
        assert refused.status_code == 429
    assert post(client, small, **{"Content-Encoding": "gzip"}).status_code == 200


def test_no_answer_and_no_error_keeps_memory(crowded):
    client, server = crowded
    for _ in range(5):
        assert post(client).status_code == 200
        assert post(client, b"no picture").status_code == 400
        assert post(client, b"no gzip", **{"Content-Encoding": "gzip"}).status_code == 400
        assert client.post("/predict", data={"a": "b"}).status_code == 400
        assert client.get("/nothing").status_code == 404
    with server.hold_body(64 * MEGABYTE):
        pass
