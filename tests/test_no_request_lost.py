"""All operations on a running server under load keep every answer 200.

supervisord, nginx and Gunicorn around tests/reloadable.py, whose loads take time but no processor.
"""

import base64
from contextlib import ExitStack

import requests

from tests.helpers import gray, make_entry, make_manifest, wait_until
from tests.load import Load


class ByLabel:
    """Sends requests to the version of "voc" with the label "stable"."""

    def __init__(self, server):
        """Send requests to that server."""
        self._server = server

    def predict(self, data: bytes) -> requests.Response:
        """Send an image as TensorFlow Serving's clients do."""
        body = {"instances": [{"b64": base64.b64encode(data).decode()}]}
        url = f"{self._server.url}/v1/models/voc/labels/stable:predict"
        return requests.post(url, json=body, timeout=60)


def test_reloads_labels_defaults_versions_and_deaths_lose_no_request(new_server, tmp_path):
    file = tmp_path / "manifest.json"
    (tmp_path / "says").write_text("loads")

    def show(*entries, stable):
        draft = file.with_suffix(".draft")
        draft.write_text(make_manifest(*entries, labels={"voc": {"stable": stable}}).as_text())
        draft.rename(file)

    old, new = make_entry("voc", 1), make_entry("voc", 2)
    show(old, stable=1)
    rows = {"workers": "2", "precision": "fp32", "poll_s": "0.2"}
    server = new_server("tests.reloadable:app", **rows)
    server.environment["RELOADABLE"] = str(tmp_path / "says")

    def hang_up():
        before = set(server.worker_pids())
        server.control("signal", "HUP", "gunicorn")
        wait_until(lambda: not before & set(server.worker_pids()), 90, "new workers")
        server.wait_ready(2)

    def wait_live(*entries):
        expected: dict[str, list[int]] = {}
        for entry in entries:
            expected.setdefault(entry.name, []).append(entry.version)
        wait_until(lambda: list(server.readiness()["live"].values()) == [expected] * 2, 30)

    loads = [Load(client, clients=2, data=gray(200)) for client in (server, ByLabel(server))]
    try:
        server.start().wait_ready(2)
        with ExitStack() as stack:
            for load in loads:
                stack.enter_context(load.running())
            loads[1].wait_for_more(5)
            hang_up()
            show(
                new, stable=2
            )  # a new version, and the label moves; the old one is not in the manifest
            wait_live(new)
            show(make_entry("leaves", 7), new, stable=2)  # the default changes
            wait_until(lambda: server.predict(gray(200)).headers["X-Model-Name"] == "leaves", 30)
            (victim, _) = server.worker_pids()
            server.kill_worker(victim)
            wait_until(lambda: victim not in server.worker_pids(), 30)
            server.wait_ready(2)
            hang_up()
            loads[1].wait_for_more(5)
    finally:
        server.remove()
    for load in loads:
        lost = [answer for answer in load.answers if answer.status != 200]
        assert not lost, f"{len(lost)} of {len(load.answers)}: {lost[:3]}"
        assert len(load.answers) > 30
