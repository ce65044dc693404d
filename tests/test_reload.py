"""Old workers survive every failure of a reload, and the next reload works.

Gunicorn with the project's own configuration around tests/reloadable.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.helpers import ROOT, gray, make_entry, make_manifest, wait_until
from tests.server import free_port

pytestmark = pytest.mark.live


class Gunicorn:
    """Gunicorn with a copy of the project's configuration that the test may change."""

    def __init__(self, folder: Path):
        """Start it."""
        self.url = f"http://127.0.0.1:{free_port()}"
        self.conf, self.file, self.path = folder / "conf.py", folder / "says", folder / "log"
        self.right = (ROOT / "conf" / "gunicorn.conf.py").read_text()
        self.conf.write_text(self.right)
        self.file.write_text("loads")
        address = self.url.removeprefix("http://")
        command = [sys.executable, "-m", "gunicorn", "-c", self.conf, "-b", address]
        environment = os.environ | {
            "RELOADABLE": str(self.file),
            "SERVING_CACHE": str(folder / "cache"),
            "SERVING_PRECISION": "fp32",
            "SERVING_WORKERS": "2",
            "SERVING_LOAD_TIMEOUT_S": "30",
        }
        with self.path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "tests.reloadable:app"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self.states() == ["ready", "ready"], 60)

    def states(self) -> list[str]:
        """Return the states of all the workers, by slot; none while there is no answer."""
        try:
            answer = requests.get(f"{self.url}/readyz", timeout=10).json()
            return list(answer["workers"].values())
        except (requests.RequestException, KeyError):
            return []

    def slots(self) -> list[int]:
        """Return the workers' slots."""
        return sorted(map(int, requests.get(f"{self.url}/readyz", timeout=10).json()["workers"]))

    def pids(self) -> set[int]:
        """Return the processes of the workers."""
        pid = self.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def predict(self) -> int:
        """Return the status of an answer."""
        files = {"image": gray(200)}
        return requests.post(f"{self.url}/model_predict", files=files, timeout=40).status_code

    def says(self, text: str, times: int = 1) -> None:
        """Wait until the log has a text."""
        wait_until(lambda: self.path.read_text().count(text) >= times, 40, text)

    def lines(self, text: str) -> list[dict]:
        """Return the lines of the log with a text."""
        return [json.loads(line) for line in self.path.read_text().splitlines() if text in line]

    def hang_up(self) -> None:
        """Send Gunicorn a HUP."""
        self.process.send_signal(signal.SIGHUP)

    def reload_well(self) -> None:
        """Reload and wait until the old workers are gone."""
        before = self.pids()
        self.hang_up()
        wait_until(lambda: len(self.pids()) == 2 and not before & self.pids(), 40, "new workers")


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory):
    """Return Gunicorn with two workers; a test restores the files that it breaks."""
    running = Gunicorn(tmp_path_factory.mktemp("reload"))
    yield running
    running.process.terminate()
    running.process.wait(timeout=60)


BREAKS = {
    "a syntax error": ("def when_ready(server", "def when_ready(server:", "SyntaxError"),
    "an unknown module": ("import warnings\n", "import warnings, nowhere\n", "nowhere"),
    "an exit": ("import warnings\n", "import warnings\nsys.exit('enough')\n", "enough"),
    "a wrong value": ("timeout = 60", "timeout = 'soon'", "soon"),
    "recursion": ("planner.make(settings)", "(f := lambda: f())()", "RecursionError"),
    "no memory": ("planner.make(settings)", "bytes(1 << 62)", "MemoryError"),
    "a wrong setting": (
        "settings = Settings.from_env(os.environ)",
        "settings = Settings.from_env({'SERVING_DEVICE': 'tpu'})",
        "SERVING_DEVICE='tpu'",
    ),
    "an unreadable folder": ("planner.make(settings)", "os.listdir('/root/nowhere')", "nowhere"),
    "a hook": (
        "    log_plan()\n\n\ndef log_plan",
        "    1 / 0\n\n\ndef log_plan",
        "division by zero",
    ),
}


def test_the_old_workers_survive_any_error_of_a_reload_and_the_log_says_why(gunicorn):
    before = gunicorn.pids()
    for number, (right, wrong, message) in enumerate(BREAKS.values(), start=1):
        assert right in gunicorn.right
        gunicorn.conf.write_text(gunicorn.right.replace(right, wrong))
        gunicorn.hang_up()
        gunicorn.says("the reload failed, what is served goes on", number)
        line = gunicorn.lines("the reload failed, what is served goes on")[-1]
        assert message in line["message"], line
        assert "\n" not in line["message"]
        assert gunicorn.process.poll() is None
        assert gunicorn.pids() == before
        assert gunicorn.predict() == 200
    assert "Traceback" not in gunicorn.path.read_text()
    gunicorn.conf.write_text(gunicorn.right)
    gunicorn.reload_well()
    assert gunicorn.predict() == 200


@pytest.mark.parametrize("how", ["fails", "crashes", "raises"])
def test_the_old_workers_keep_serving_if_no_new_one_can(gunicorn, how):
    before, message = gunicorn.pids(), "the old workers go on: no new one can serve"
    times = len(gunicorn.lines(message))
    gunicorn.file.write_text(how)
    gunicorn.hang_up()
    wait_until(
        lambda: gunicorn.predict() == 200 and len(gunicorn.lines(message)) > times, 40, message
    )
    wait_until(lambda: gunicorn.pids() == before)
    gunicorn.file.write_text("loads")
    gunicorn.reload_well()
    wait_until(lambda: gunicorn.states() == ["ready", "ready"])


def test_old_workers_serve_until_the_new_ones_can(gunicorn):
    before, done = gunicorn.pids(), len(gunicorn.lines("the old ones finish their requests"))
    gunicorn.file.write_text("loads slowly")
    gunicorn.hang_up()
    wait_until(lambda: sorted(gunicorn.states()) == ["loading"] * 2 + ["ready"] * 2)
    assert [gunicorn.predict() for _ in range(10)] == [200] * 10
    gunicorn.hang_up()  # another reload waits for this one
    gunicorn.says("the next reload follows")
    assert gunicorn.pids() > before
    gunicorn.file.write_text("loads")
    gunicorn.says("the old ones finish their requests", done + 2)
    wait_until(lambda: len(gunicorn.pids()) == 2 and not before & gunicorn.pids(), 40)


def test_workers_that_must_unload_first_do_so_one_by_one_and_lose_no_request(
    gunicorn,
):
    """Memory holds one version: each worker stops accepting while it has none."""
    gunicorn.file.write_text("has no room")
    manifest = gunicorn.file.with_name("manifest.json")
    ended, statuses = [], []

    def ask():
        while not ended:
            with suppress(requests.ConnectionError):  # closed before it was read: nginx tries again
                statuses.append(gunicorn.predict())

    def live():
        found = requests.get(f"{gunicorn.url}/readyz", timeout=10).json().get("live", {})
        return [each["light"] for each in found.values()]

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            manifest.write_text(make_manifest(make_entry("light", 5)).as_text())
            wait_until(lambda: live() == [[5], [5]], 40)
        finally:
            ended.append(True)
            manifest.unlink()
            gunicorn.file.write_text("loads")
    for each in asking:
        each.result()
    assert gunicorn.lines("memory does not hold both")
    assert set(statuses) == {200}, Counter(statuses)
    wait_until(lambda: live() == [[4], [4]], 40)


def test_every_placement_is_used_once_after_a_reload_and_crashes(gunicorn):
    """A slot's placement is its number modulo the placements of the plan."""
    gunicorn.reload_well()
    wait_until(lambda: gunicorn.states() == ["ready", "ready"])
    for pid in sorted(gunicorn.pids(), reverse=True):  # the higher slot first
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: pid not in gunicorn.pids() and len(gunicorn.pids()) == 2)
        wait_until(lambda: gunicorn.states() == ["ready", "ready"])
        assert {slot % 2 for slot in gunicorn.slots()} == {0, 1}, gunicorn.slots()


@pytest.mark.parametrize("name", ["SIGUSR2", "SIGTTIN", "SIGTTOU"])
def test_signals_that_would_change_the_number_of_masters_or_workers_are_refused(gunicorn, name):
    before = gunicorn.pids()
    gunicorn.process.send_signal(signal.Signals[name])
    gunicorn.says(f"{name} is refused")
    time.sleep(0.3)
    assert gunicorn.pids() == before
    assert gunicorn.predict() == 200


def test_a_stop_during_a_reload_is_as_fast_as_any(tmp_path):
    running = Gunicorn(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        running.file.write_text("loads slowly")
        running.hang_up()
        wait_until(lambda: sorted(running.states()) == ["loading"] * 2 + ["ready"] * 2)
        answers = [pool.submit(running.predict) for _ in range(4)]
        time.sleep(0.05)
        began = time.monotonic()
        running.process.terminate()
        assert running.process.wait(timeout=60) == 0
        assert time.monotonic() - began < 20
        assert [answer.result() for answer in answers] == [200] * 4


def test_a_stop_while_the_configuration_is_read_is_not_delayed(tmp_path):
    """Measuring a new model takes minutes, for example."""
    running = Gunicorn(tmp_path)
    sleep = "__import__('subprocess').run(['sleep', '100'])"
    running.conf.write_text(running.right.replace("planner.make(settings)", sleep))
    running.hang_up()
    wait_until(lambda: len(running.pids()) == 3)
    running.process.terminate()
    assert running.process.wait(timeout=30) == 0
    assert "the reload failed, what is served goes on: the server is to stop" in (
        running.path.read_text()
    )
