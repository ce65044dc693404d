"""What only gevent's own sockets can do: wait side by side, and be left in time. Run by test_patched.py."""

from tests.test_fetching import (  # noqa: F401
    PICTURE,
    at,
    error_of,
    fetcher,
    gallery,
)


def test_a_server_that_never_ends_is_left_in_time(gallery):  # noqa: F811
    rules = fetcher(gallery, timeout_s=0.5, max_bytes=10**9)
    (found,) = rules.fetch_all([at(gallery, "/endless")])
    assert "longer than 0.5 s" in error_of(found)


def test_pictures_are_fetched_side_by_side(gallery):  # noqa: F811
    """Each is answered only once all three are asked for."""
    found = fetcher(gallery).fetch_all([at(gallery, "/together")] * 3)
    assert [each.read() for each in found] == [PICTURE] * 3
