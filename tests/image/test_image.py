"""The built image runs the right processes as the right user, answers on its port, starts, stops and fails."""

import csv
import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests
import torch
from torchvision.models import resnet50

from tests.helpers import SAMPLES, STREET

# requests leaves the sockets open for a while that a stopping server has reset.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

# A custom model of seven classes. Its last layer ignores its input, so that its outputs are known for
# any image; 0.5 does not pass, 0.6 does.
OUTPUTS = {"Fig": 2, "Plum": -1, "Pear": 0.5, "Lime": 0.6, "Kiwi": 1, "Date": 0, "Nut": -3}
PASSING = ["Lime", "Kiwi", "Fig"]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Return a models folder that holds one bare custom model: only weights and class names."""
    folder = tmp_path_factory.mktemp("models")
    own = folder / "fruit"
    own.mkdir()
    folder.chmod(0o755)  # the server is another user
    network = resnet50(num_classes=len(OUTPUTS))
    torch.nn.init.zeros_(network.fc.weight)
    network.fc.bias.data = torch.tensor(list(OUTPUTS.values()), dtype=torch.float32)
    torch.save(network.state_dict(), own / "model.pth")
    (own / "class_name.json").write_text(json.dumps(dict(enumerate(OUTPUTS))))
    return folder


def begin_post(url):
    """Send a request except for its last byte. The server has accepted it: it answers "100 Continue".

    Returns:
        The connection, and the byte to send.
    """
    request = requests.Request("POST", url, files={"image": STREET.read_bytes()}).prepare()
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.putrequest("POST", address.path)
    for name, value in {**request.headers, "Expect": "100-continue"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.sock.recv(1024).startswith(b"HTTP/1.1 100 ")
    connection.send(request.body[:-1])
    return connection, request.body[-1:]


# Processes


def test_supervisord_is_pid_1(server):
    assert "supervisord\0-c\0conf/supervisor.conf" in server.execute("cat", "/proc/1/cmdline")


def test_no_process_runs_as_root(server):
    lines = server.execute("sh", "-c", "cat /proc/[0-9]*/status 2>/dev/null").splitlines()
    users = [line.split()[1:] for line in lines if line.startswith("Uid:")]
    assert len(users) > 5
    assert {user for row in users for user in row} == {"10001"}


def test_the_server_cannot_change_its_own_files(operated_server):
    writable = operated_server.execute(
        "find", "/srv", "/opt", "-writable", "-not", "-path", "/srv/run*"
    )
    assert writable == ""


def test_the_bill_of_materials_names_every_installed_package(server):
    parts = json.loads(server.execute("cat", "sbom.json"))["components"]
    versions = {part["name"]: part["version"] for part in parts}
    installed = "from importlib.metadata import version; print(version('torch'))"
    assert versions["torch"] == server.execute("python", "-c", installed).strip()
    installed = server.execute("dpkg-query", "-W", "-f", "${Version}", "nginx")
    assert versions["nginx"] == installed
    assert versions["python"].startswith("3.11.")


# Answers and logs


def test_every_sample_gets_its_labels(server):
    rows = list(csv.DictReader((SAMPLES / "labels.csv").read_text(encoding="utf-8").splitlines()))
    assert rows
    for row in rows:
        response = server.classify(SAMPLES / row["image"])
        assert response.status_code == 200
        answer = response.json()
        assert answer == {"result": answer["result"], "status": 1}
        assert set(answer["result"]) == set(row["labels"].split(" | ")), row["image"]


def test_the_demos_reduced_precisions_were_measured_while_the_image_was_built(server):
    report = json.loads(server.execute("cat", "models/demo/1/precision.json"))
    found = {row["precision"]: row["agreement"]["everywhere"] for row in report["measurements"]}
    assert found["fp32"]["differing"] == 0
    served = requests.get(server.url, timeout=10).json()
    assert served["precision"] != "fp32"
    assert found[served["precision"]]["bound"] >= 0.99
    assert served["engine"] == "openvino"
    assert f"openvino, {served['precision']}: " in server.execute("scripts/plan-workers")


def test_the_plan_fits_a_small_container(run):
    small = run("--memory", "700m", "--memory-swap", "700m", "--cpus", "1")
    small.wait_until_ready()
    plan = small.execute("scripts/plan-workers")
    assert "of 0.7 GiB free" in plan
    assert "1 cores → 1 worker would use them" in plan
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(small.classify, [STREET] * 40))
    assert {answer.status_code for answer in answers} == {200}
    assert not small.state()["OOMKilled"]
    assert "SIGKILL" not in small.log()


def test_the_log_is_json_and_has_the_id_that_the_client_got(server):
    request_id = server.classify(STREET).headers["X-Request-ID"]

    def lines_of_the_request():
        lines = [json.loads(line) for line in server.log().splitlines()]
        return [line for line in lines if line.get("request_id") == request_id]

    server.wait_until(lines_of_the_request, "a line with the request's id")
    assert [line["status"] for line in lines_of_the_request()] == [200]


def test_metrics_are_counted_with_only_run_writable(server):
    """They are asked for inside, because they are for this machine: the container."""
    assert server.classify(STREET).status_code == 200
    program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8999/metrics').read().decode())"
    text = server.execute("python", "-c", program)
    assert 'serving_pictures_total{model="demo",outcome="answered",version="1"}' in text
    assert "counter_0.db" in server.execute("ls", "run/metrics")


def test_a_key_can_be_made_inside(server):
    made = server.execute("env", "SERVING_KEYS=/srv/run/keys", "scripts/keys", "add", "archive")
    listed = server.execute("env", "SERVING_KEYS=/srv/run/keys", "scripts/keys", "list")
    assert made.strip().partition(".")[0] in listed
    assert "archive" in listed


@pytest.mark.parametrize("mounted, name", [(".", "fruit"), ("fruit", "models")])
def test_a_custom_model_needs_only_its_weights_and_its_class_names(run, models, mounted, name):
    server = run("--volume", f"{(models / mounted).resolve()}:/srv/models:ro")
    server.wait_until_ready()
    assert requests.get(server.url, timeout=10).json()["model"] == name
    assert server.classify(STREET).json() == {"result": PASSING, "status": 1}


# Operations


def test_supervisorctl_shows_both_programs_running(operated_server):
    programs = dict(
        line.split()[:2] for line in operated_server.supervisorctl("status").splitlines()
    )
    assert programs["nginx"] == programs["gunicorn"] == "RUNNING"


def test_supervisorctl_tails_a_log(operated_server):
    assert "model ready" in operated_server.supervisorctl("tail", "gunicorn")


def test_supervisorctl_stops_starts_and_restarts(operated_server):
    operated_server.supervisorctl("stop", "gunicorn")
    assert "STOPPED" in operated_server.supervisorctl("status", "gunicorn")
    refused = operated_server.classify(STREET)
    assert refused.status_code == 502
    assert refused.headers["Content-Type"] == "application/problem+json"
    operated_server.supervisorctl("start", "gunicorn")
    operated_server.wait_until_ready()
    operated_server.supervisorctl("restart", "all")
    operated_server.wait_until_ready()
    assert operated_server.classify(STREET).status_code == 200


def test_a_hup_replaces_the_workers_without_losing_a_request(operated_server):
    def count_loads():
        return int(operated_server.execute("grep", "-c", "model ready", "run/gunicorn.log"))

    loads, statuses = count_loads(), []
    operated_server.supervisorctl("signal", "HUP", "gunicorn")

    def is_loaded_anew():
        statuses.append(operated_server.classify(STREET).status_code)
        return count_loads() > loads

    operated_server.wait_until(is_loaded_anew, "new workers")
    assert set(statuses) == {200}


def test_a_killed_nginx_is_replaced_though_its_orphans_become_supervisords_children(
    operated_server,
):
    old = operated_server.execute("cat", "run/nginx.pid")
    operated_server.execute("sh", "-c", "kill -9 $(cat run/nginx.pid)")
    operated_server.wait_until(
        lambda: operated_server.execute("cat", "run/nginx.pid") != old, "another nginx"
    )
    operated_server.wait_until_ready()
    assert operated_server.classify(STREET).status_code == 200
    titles = operated_server.execute("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'")
    assert titles.count("nginx: master process") == 1
    assert titles.count("nginx: worker process") == 2


# How it ends


def test_a_stop_waits_for_the_requests_that_were_accepted(run):
    server = run()
    server.wait_until_ready()
    requests_in_flight = [begin_post(f"{server.url}/model_predict") for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        stopped = pool.submit(server.stop)
        server.wait_until(lambda: not server.is_ready(), "no new connection")
        for connection, last_byte in requests_in_flight:
            connection.send(last_byte)
        answers = [connection.getresponse() for connection, _ in requests_in_flight]
        assert [answer.status for answer in answers] == [200] * 4
        stopped.result()
    assert server.state()["ExitCode"] == 0
    assert "Shutting down: Master" in server.log()  # the log is whole to its end


def test_a_stop_under_load_loses_no_request(run):
    server = run()
    server.wait_until_ready()
    url, image = f"{server.url}/model_predict", STREET.read_bytes()
    outcomes = []  # (start time, status or None without an answer)

    def post_until_refused():
        while not outcomes or outcomes[-1][1]:
            begun = time.monotonic()
            try:
                status = requests.post(url, files={"image": image}, timeout=60).status_code
            except requests.ConnectionError:
                status = None
            outcomes.append((begun, status))

    with ThreadPoolExecutor(6) as pool:
        for _ in range(6):
            pool.submit(post_until_refused)
        server.wait_until(lambda: len(outcomes) > 12, "load")
        stopped_at = time.monotonic()
        server.stop()
    assert {status for begun, status in outcomes if begun < stopped_at} == {200}
    assert {status for _, status in outcomes} == {200, None}
    assert server.state()["ExitCode"] == 0


def test_a_killed_container_starts_again_without_repeating_its_log(run):
    server = run()
    server.wait_until_ready()
    server.kill()
    server.start()
    server.wait_until_ready()
    assert server.log().count("Starting gunicorn") == 2


def test_a_program_that_cannot_run_ends_the_container_and_the_log_says_why(run):
    server = run("--env", "SERVING_DEVICE=nonsense")
    server.wait_until(lambda: not server.state()["Running"], "the end of the container")
    assert "SERVING_DEVICE='nonsense': expected auto, cpu, cuda or cuda:N" in server.log()
    assert "gunicorn cannot be kept running" in server.log()
