"""Downloads wait in parallel and end in time with gevent's own sockets. Run by test_patched.py."""

import time

import gevent

from app.web.input.urls import AT_ONCE
from tests.test_urls import (  # noqa: F401
    IMAGE,
    at,
    error_of,
    fetcher,
    gallery,
)


def test_a_server_whose_answer_never_ends_is_given_up_in_time(gallery):  # noqa: F811
    rules = fetcher(gallery, timeout_s=0.5, max_bytes=10**9)
    (found,) = rules.fetch_all([at(gallery, "/endless")])
    assert "longer than 0.5 s" in error_of(found)


def test_images_are_fetched_in_parallel(gallery):  # noqa: F811
    """Each is answered only once all three are requested."""
    found = fetcher(gallery).fetch_all([at(gallery, "/together")] * 3)
    assert [each.read() for each in found] == [IMAGE] * 3


def test_waiting_for_a_place_counts_toward_the_deadline_and_no_request_takes_all_places(gallery):  # noqa: F811
    rules = fetcher(gallery, timeout_s=1.0, max_bytes=10**9)
    slow = gevent.spawn(rules.fetch_all, [at(gallery, "/endless")] * 64)
    gevent.sleep(0.3)
    began = time.monotonic()
    (found,) = rules.fetch_all([at(gallery, "/picture.png")])
    assert found.read() == IMAGE
    assert not slow.ready(), "the slow ones still waited"
    assert all("longer than 1 s" in error_of(each) for each in slow.get())
    assert time.monotonic() - began < 3  # waits one behind the other would take 4 to 8


def test_a_canceled_request_leaves_no_fetch_behind(gallery):  # noqa: F811
    rules = fetcher(gallery, timeout_s=20.0, max_bytes=10**9)
    request = gevent.spawn(rules.fetch_all, [at(gallery, "/endless")] * 64)
    gevent.sleep(0.3)
    request.kill()
    gevent.sleep(0.1)
    assert rules._connections.counter == AT_ONCE
