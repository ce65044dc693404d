"""TensorFlow Serving's policies choose the versions of folders."""

import pytest

from app.control.repository import Policy
from app.errors import SettingsError


@pytest.mark.parametrize(
    ("policy", "candidates", "limit"),
    [
        ("latest:1", [10, 5, 2, 1], 1),
        ("latest:2", [10, 5, 2, 1], 2),
        ("all", [10, 5, 2, 1], None),
        ("2", [2], None),
        ("2,7,1", [2, 1], None),
        ("7", [], None),
    ],
)
def test_a_policy_names_the_versions_to_try_highest_first(policy, candidates, limit):
    parsed = Policy.from_text(policy)
    assert (parsed.candidates([1, 2, 5, 10]), parsed.limit) == (candidates, limit)


@pytest.mark.parametrize("text", ["latest", "latest:0", "newest", "1,", "0", "-1", "1 2", ""])
def test_an_invalid_policy_is_refused(settings, text):
    with pytest.raises(SettingsError, match=r"SERVING_VERSIONS='.*': expected latest:N, all, or"):
        settings(versions=text)
