"""Run clients that send requests without a pause and record every answer."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import requests

from tests.helpers import STREET, wait_until

CLIENTS = 8


@dataclass(frozen=True)
class Answer:
    """A status or the name of an error, the body, and the version that answered."""

    status: object
    text: str
    version: str = ""


class Load:
    """Clients that post repeatedly, each its next request after the previous answer.

    Attributes:
        answers: every request that ended, with any outcome.
    """

    def __init__(self, server, clients=CLIENTS, data=None, pause_s=0.0):
        """Prepare clients of that server that send an image file."""
        self._clients = clients
        self._pause_s = pause_s
        self._data = data or STREET.read_bytes()
        self.answers: list[Answer] = []
        self._server = server
        self._going = threading.Event()

    def _client(self) -> None:
        while self._going.is_set():
            try:
                response = self._server.predict(self._data)
                version = response.headers.get("X-Model-Version", "")
                self.answers.append(Answer(response.status_code, response.text, version))
            except requests.RequestException as error:
                self.answers.append(Answer(type(error).__name__, str(error)))
            time.sleep(self._pause_s)

    @contextmanager
    def running(self):
        """Run the clients while the block runs; each finishes its request."""
        self._going.set()
        with ThreadPoolExecutor(self._clients) as pool:
            ended = [pool.submit(self._client) for _ in range(self._clients)]
            try:
                yield
            finally:
                self._going.clear()
        for client in ended:
            client.result()

    def wait_for_more(self, count: int = 3 * CLIENTS) -> None:
        """Wait until that many further requests have ended."""
        goal = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= goal, 60, f"{count} more answers")

    def check_nothing_lost(self) -> None:
        """Assert that every request got the right answer."""
        right = self._server.predict(self._data).text
        lost = [each for each in self.answers if (each.status, each.text) != (200, right)]
        assert not lost, f"{len(lost)} of {len(self.answers)} lost: {lost[:3]}"
