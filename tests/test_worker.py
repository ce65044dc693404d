"""Gunicorn with our worker class and our configuration, around a model that can die."""

import os
import subprocess
import sys
from contextlib import suppress

import pytest
import requests
from PIL import Image

from tests.helpers import ROOT, encode, photo_like, wait_until
from tests.server import free_port


@pytest.fixture
def url(tmp_path):
    """Return where Gunicorn serves tests/mortal.py with two workers; it is stopped afterwards."""
    address = f"127.0.0.1:{free_port()}"
    conf = str(ROOT / "conf" / "gunicorn.conf.py")
    command = [sys.executable, "-m", "gunicorn", "-c", conf, "-b", address, "-w", "2"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "tests.mortal:app"], cwd=ROOT, env=os.environ, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: states(f"http://{address}") == ["ready", "ready"], 60)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def states(url: str) -> list[str]:
    """Return the states of all the workers, by slot; none while there is no answer."""
    try:
        return list(requests.get(f"{url}/readyz", timeout=10).json()["workers"].values())
    except (requests.RequestException, KeyError):
        return []


def predict(url: str, image: Image.Image) -> requests.Response:
    files = {"image": encode(image, "PNG")}
    return requests.post(f"{url}/model_predict", files=files, timeout=30)


def test_a_worker_whose_model_dies_is_gone_at_once_and_replaced(url):
    white = Image.new("RGB", (8, 8), "white")
    for _ in range(2):
        with suppress(requests.ConnectionError):  # nginx would try it again
            assert predict(url, white).status_code in (500, 503)
        assert {predict(url, photo_like()).status_code for _ in range(20)} == {200}
        wait_until(lambda: states(url) == ["ready", "ready"], 30)
