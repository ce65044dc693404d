"""Two servers run on one machine from one folder, by settings alone."""

import os
import signal
import subprocess

import pytest
import requests

from tests.helpers import STREET, wait_until
from tests.server import free_port

READY_WITHIN_S = 90


@pytest.fixture(scope="module")
def second_environment(server):
    """Return the environment of a second server that runs from the folder of the first."""
    run = server.folder / "second" / "run"  # scripts/serve makes it
    environment = server.environment | {
        "SERVING_RUN": str(run),
        "SERVING_PORT": str(free_port()),
        "SERVING_DIRECT_PORT": str(free_port()),
        "SERVING_HOST": "127.0.0.1",
    }
    console = (server.folder / "second-console").open("wb")
    process = subprocess.Popen(
        ["scripts/serve"], cwd=server.folder, env=environment, stdout=console, stderr=console
    )
    yield environment
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait(timeout=90)
    console.close()


def url_of(environment):
    return f"http://127.0.0.1:{environment['SERVING_PORT']}"


def answers(url):
    """Return whether a server answers an image."""
    try:
        image = {"image": STREET.read_bytes()}
        return requests.post(f"{url}/model_predict", files=image, timeout=30).status_code == 200
    except requests.RequestException:
        return False


def control(server, environment, *words):
    """Run supervisorctl as documented in docs/operate.md for another runtime folder."""
    socket_url = f"unix://{environment['SERVING_RUN']}/supervisor.sock"
    return server.run("supervisorctl", "-c", "conf/supervisor.conf", "-s", socket_url, *words)


def test_two_servers_run_from_one_folder_and_stop_on_their_own(server, second_environment):
    run = server.folder / "second" / "run"
    console = server.folder / "second-console"
    wait_until(lambda: answers(url_of(second_environment)), READY_WITHIN_S, "an answer")
    wait_until(lambda: "Ctrl-C stops everything" in console.read_text(), 20)
    assert url_of(second_environment).replace("127.0.0.1", "localhost") in console.read_text()
    direct = f"http://127.0.0.1:{second_environment['SERVING_DIRECT_PORT']}"
    assert requests.get(f"{direct}/healthz", timeout=10).status_code == 200

    for status in (server.control("status"), control(server, second_environment, "status")):
        assert status.stdout.count("RUNNING") == 5, status.stdout
    pids = {
        control(server, second_environment, "pid", "gunicorn").stdout,
        server.control("pid", "gunicorn").stdout,
    }
    assert len(pids) == 2
    written = {path.name for path in run.iterdir()}
    assert {"gunicorn.sock", "nginx.pid", "manifest.json", "metrics", "gunicorn.log"} <= written

    # A start of nginx ends the orphans of its own runtime folder; the other's workers are none.
    assert "started" in control(server, second_environment, "restart", "nginx").stdout
    assert answers(server.url)
    assert "shut down" in control(server, second_environment, "shutdown").stdout.lower()
    wait_until(lambda: not answers(url_of(second_environment)), 60)
    assert answers(server.url)
    assert server.control("status").stdout.count("RUNNING") == 5


def test_nginx_listens_on_the_addresses_of_the_setting_only(server, tmp_path):
    environment = server.environment | {"SERVING_HOST": "127.0.0.1,::1", "SERVING_PORT": "1234"}
    environment["SERVING_RUN"] = str(tmp_path / "run")
    done = subprocess.run(
        ["scripts/run-nginx", "-t"],
        cwd=server.folder,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert b"syntax is ok" in done.stderr
    lines = (tmp_path / "run" / "nginx" / "listen.conf").read_text().splitlines()
    assert lines == ["listen 127.0.0.1:1234;", "listen [::1]:1234;"]
    assert os.listdir(tmp_path) == ["run"]
