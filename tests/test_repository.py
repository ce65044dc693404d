"""Which versions are wanted: TensorFlow Serving's policies, held against folders."""

import pytest

from app.control.repository import Policy, choose_versions
from app.errors import SettingsError

FOUR = {1: "a", 2: "b", 5: "c", 10: "d"}


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        ("latest:1", [10]),
        ("latest:2", [5, 10]),
        ("latest:9", [1, 2, 5, 10]),
        ("all", [1, 2, 5, 10]),
        ("2", [2]),
        ("2,7,1", [1, 2]),
        ("7", []),
    ],
)
def test_a_policy_chooses_by_number(policy, chosen):
    assert choose_versions(Policy.from_text(policy), FOUR, lambda *_: True) == chosen


@pytest.mark.parametrize(
    ("policy", "chosen"), [("latest:1", [5]), ("latest:2", [2, 5]), ("all", [1, 2, 5]), ("10", [])]
)
def test_a_version_that_cannot_be_served_does_not_count(policy, chosen):
    def is_servable(version, folder):
        assert FOUR[version] == folder
        return version != 10

    assert choose_versions(Policy.from_text(policy), FOUR, is_servable) == chosen


def test_latest_asks_no_further_than_it_has_to():
    asked = []
    choose_versions(Policy(latest=2), FOUR, lambda version, _: asked.append(version) or True)
    assert asked == [10, 5]


@pytest.mark.parametrize("text", ["latest", "latest:0", "newest", "1,", "0", "-1", "1 2", ""])
def test_a_policy_that_is_none_is_refused(settings, text):
    with pytest.raises(SettingsError, match=r"SERVING_VERSIONS='.*': expected latest:N, all, or"):
        settings(versions=text)
