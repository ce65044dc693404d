"""Parse the answer of /metrics."""

import re
from collections import Counter

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "monitoring.md").read_text()
DOCUMENTED = {  # name → (type, labels), as the page has them
    name: (kind, {label for label in labels.split(", ") if label})
    for name, kind, labels in re.findall(
        r"^\| `(serving_\w+)` \| (\w+) \| ([\w, ]*?) ?\|", PAGE, re.MULTILINE
    )
}


class Scrape:
    """An answer of /metrics.

    Attributes:
        families: name → prometheus_client's Metric; a counter's name ends in ``_total``.
        samples: (name, labels as sorted pairs) → value.
    """

    def __init__(self, text: str):
        """Read the text."""
        found = list(text_string_to_metric_families(text))
        suffix = {"counter": "_total"}
        self.families = {each.name + suffix.get(each.type, ""): each for each in found}
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in found
            for sample in family.samples
        }

    def total(self, name: str, /, **labels: object) -> float:
        """Return the sum of the samples of that name that have these labels, among others."""
        expected = {key: str(value) for key, value in labels.items()}
        return sum(
            value
            for (found, pairs), value in self.samples.items()
            if found == name and expected.items() <= dict(pairs).items()
        )

    def values_of(self, name: str, label: str) -> set[str]:
        """Return the values of a label."""
        return {dict(pairs)[label] for found, pairs in self.samples if found == name}

    def since(self, before: "Scrape") -> "Scrape":
        """Return how much everything rose after an earlier answer."""
        rise = Scrape("")
        rise.families = self.families
        rise.samples = dict(Counter(self.samples))
        for key, value in before.samples.items():
            if key in rise.samples:
                rise.samples[key] -= value
        return rise

    def never_counts_back(self, before: "Scrape") -> None:
        """Assert that no count is below that of an earlier answer, or gone; only those of a process may end with it."""
        for name, family in before.families.items():
            if family.type not in ("counter", "histogram") or name.startswith("serving_worker_cpu"):
                continue
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert self.samples.get(key, -1) >= sample.value, key


def scrape(server, path: str = "/metrics") -> Scrape:
    """Scrape a server's metrics."""
    response = requests.get(f"{server.url}{path}", timeout=30)
    assert response.status_code == 200, response.text
    return Scrape(response.text)


def answered(found: Scrape) -> float:
    """Return how many requests to /model_predict were answered 200."""
    return found.total("serving_requests_total", route="/model_predict", status=200)
