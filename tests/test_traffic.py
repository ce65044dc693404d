"""Traffic is distributed by weights at random, and by key if requested."""

from collections import Counter

import pytest

from app.serving import routing
from app.serving.routing import resolve_shares

SHARES, LABELS = {"stable": 95, "canary": 5}, {"stable": 3, "canary": 4}


def choose_version(shares, labels, live, sticky=""):
    return routing.choose_version(resolve_shares(shares, labels), live, live, sticky)


def test_requests_are_distributed_by_the_weights():
    chosen = Counter(choose_version(SHARES, LABELS, {3, 4}) for _ in range(20_000))
    assert set(chosen) == {3, 4}
    assert 700 < chosen[4] < 1300  # 1,000 expected; ten standard deviations are 308


def test_a_sticky_request_gets_the_same_version_again_and_many_get_their_share():
    users = [f"user-{number}" for number in range(20_000)]
    chosen = {user: choose_version(SHARES, LABELS, {3, 4}, user) for user in users}
    assert chosen == {user: choose_version(SHARES, LABELS, {3, 4}, user) for user in users}
    assert 700 < Counter(chosen.values())[4] < 1300


def test_raising_a_share_moves_no_client_back():
    """Users of the canary stay with it while it grows: a rollout moves no user back and forth."""
    users = [f"user-{number}" for number in range(2000)]
    few = {u for u in users if choose_version({"3": 95, "4": 5}, {}, {3, 4}, u) == 4}
    more = {u for u in users if choose_version({"3": 80, "4": 20}, {}, {3, 4}, u) == 4}
    assert few < more


@pytest.mark.parametrize(("live", "chosen"), [({3}, {3}), ({4}, {4}), ({7, 9}, {9}), ({3, 9}, {3})])
def test_a_version_that_is_not_live_gets_no_traffic(live, chosen):
    assert {choose_version(SHARES, LABELS, live) for _ in range(200)} == chosen


def test_weights_by_number_and_by_label_of_one_version_add_up():
    shares = {"stable": 1, "3": 1, "4": 0}
    assert {choose_version(shares, LABELS, {3, 4}) for _ in range(200)} == {3}
