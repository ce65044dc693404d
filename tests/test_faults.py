"""Operations and failures lose no request in flight."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.helpers import ROOT, STREET, check_problem, wait_until
from tests.load import Load
from tests.scrape import answered, scrape


@pytest.fixture(scope="module", params=[1, 2], ids="{} workers".format)
def server_and_workers(request, new_server):
    """Return a server with one or two workers, and the number; each test leaves all of them ready."""
    live = new_server(workers=str(request.param)).start().wait_ready(request.param)
    yield live, request.param
    live.remove()


def wait_for_others_than(server, pids, workers):
    """Wait until that many workers are ready, excluding those."""
    wait_until(lambda: not set(pids) & set(server.worker_pids()), 60, "new workers")
    server.wait_ready(workers)
    wait_until(lambda: len(server.worker_pids()) == workers, 60)


def test_killing_a_worker_under_load_loses_no_request_and_no_count(server_and_workers):
    server, workers = server_and_workers
    before = scrape(server)
    load = Load(server)
    with load.running():
        for _ in range(3):
            load.wait_for_more()
            victim = server.worker_pids()[0]
            server.kill_worker(victim)
            wait_for_others_than(server, [victim], workers)
        load.wait_for_more()
        wait_until(lambda: scrape(server).total("serving_queue_depth") > 0)
    load.check_nothing_lost()
    metrics = scrape(server)
    metrics.never_counts_back(before)
    counted = metrics.since(before)
    assert answered(counted) >= len(load.answers)
    assert counted.total("serving_worker_deaths_total") == 3
    assert metrics.total("serving_queue_depth") == 0, "images that died with their worker"
    assert metrics.total("serving_workers", state="ready") == workers
    assert metrics.total("serving_workers_planned") == workers


def test_a_reload_under_load_loses_no_request_no_count_and_leaves_no_files_behind(
    server_and_workers,
):
    server, workers = server_and_workers
    before = scrape(server)
    load = Load(server)
    with load.running():
        for _ in range(3):
            load.wait_for_more()
            pids = server.worker_pids()
            assert server.control("signal", "HUP", "gunicorn").returncode == 0
            wait_for_others_than(server, pids, workers)
            metrics = scrape(server)
            metrics.never_counts_back(before)
        load.wait_for_more()
    counted = scrape(server).since(before)
    assert answered(counted) == len(load.answers)
    assert counted.total("serving_worker_deaths_total") == 0, "a reload is no death"
    load.check_nothing_lost()
    files = {path.name for path in (server.folder / "run" / "metrics").iterdir()}
    kinds = ("counter", "gauge_livesum", "histogram")
    slots = range(2 * workers)  # two for each worker, however many came and went
    assert files <= {f"{kind}_{slot}.db" for kind in kinds for slot in slots}


def test_stopping_answers_requests_in_flight(start_server):
    demo = str(ROOT / "models")  # it takes its time
    server = start_server(max_batch="1", models=demo).wait_ready()
    data = STREET.read_bytes()
    server.predict(data)
    with ThreadPoolExecutor(12) as pool:
        requests_in_flight = [pool.submit(server.predict, data) for _ in range(12)]
        wait_until(lambda: any(request.done() for request in requests_in_flight))
        assert server.stop(signal.SIGTERM) == 0
        statuses = [request.result().status_code for request in requests_in_flight]
    assert statuses == [200] * 12


@pytest.fixture
def models(tiny_models, tmp_path):
    """Return a folder of models with one in it, to be damaged."""
    shutil.copytree(tiny_models / "demo", tmp_path / "pictograms")
    return tmp_path


def test_a_failed_load_does_not_take_the_other_workers_down(start_server, models):
    server = start_server(workers="2", precision="fp32", models=str(models)).wait_ready(2)
    shutil.rmtree(models / "pictograms" / "1" / "optimized")  # the workers load it

    server.kill_worker(server.worker_pids()[0])
    wait_until(lambda: "failed" in server.readiness().get("workers", {}).values(), 60)
    load = Load(server)
    with load.running():
        load.wait_for_more(60)
    load.check_nothing_lost()
    messages = [line["message"] for line in server.log_lines()]
    (failure,) = [message for message in messages if "the model cannot be served" in message]
    assert "there is no fp32 network" in failure

    server.control("signal", "HUP", "gunicorn")
    wait_until(lambda: set(server.readiness().get("workers", {}).values()) == {"ready"}, 60)


@pytest.mark.parametrize("mended", ["by a reload", "by itself"])
def test_a_server_that_cannot_load_reports_it_and_recovers(start_server, models, mended):
    names = models / "pictograms" / "1" / "class_name.json"
    right = names.read_text()
    names.write_text(json.dumps({"0": "Only one"}))
    server = start_server(models=str(models), poll_s="0" if mended == "by a reload" else "1")
    watch = ["scripts/ready", "--wait", str(server.process.pid)]
    terminal = subprocess.Popen(
        watch, cwd=server.folder, env=server.environment, stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: "the model cannot be served" in server.log("gunicorn"), 60)

    assert requests.get(f"{server.url}/healthz", timeout=10).status_code == 200
    response = requests.get(f"{server.url}/readyz", timeout=10)
    check_problem(response, 503, "not_ready")
    response = server.predict(STREET.read_bytes())
    detail = check_problem(response, 503, "not_ready")
    assert detail.startswith("the model cannot be served: pictograms, version 1: it was refused: ")
    assert "20 outputs, but class_name.json names 1 classes" in detail
    assert "/" not in detail
    cure = "then send Gunicorn a HUP" if mended == "by a reload" else "loaded automatically"
    assert detail.endswith(cure)
    assert requests.get(f"{server.url}/readyz", timeout=10).json()["detail"] == detail
    assert server.run("scripts/ready").stdout == f"not ready: {detail}\n"
    assert int(response.headers["Retry-After"]) >= 1
    (line,) = [line for line in server.log_lines() if line["level"] == "ERROR"]
    assert "20 outputs, but class_name.json names 1 classes" in line["message"]
    wait_until(lambda: "RUNNING" in server.control("status", "gunicorn").stdout)

    shown = "".join(terminal.stdout.readline() for _ in range(3))
    assert shown == f"\nnot ready: {detail}\nStill waiting; run/gunicorn.log has more.\n"

    names.write_text(right)
    if mended == "by a reload":
        server.control("signal", "HUP", "gunicorn")
    server.wait_ready()
    assert server.predict(STREET.read_bytes()).status_code == 200
    with terminal:
        shown = terminal.stdout.read()
    assert shown.startswith(f"\n\nready: {server.url.replace('127.0.0.1', 'localhost')} serves")


def test_a_loading_server_is_alive_and_says_when_to_retry(start_server):
    server = start_server()

    def is_alive():
        try:
            return requests.get(f"{server.url}/healthz", timeout=30).status_code == 200
        except requests.RequestException:
            return False

    wait_until(is_alive, 60)
    response = server.predict(STREET.read_bytes())
    assert check_problem(response, 503, "not_ready") == "the model is loading"
    assert response.headers["Retry-After"] == "5"
    check_problem(requests.get(f"{server.url}/readyz", timeout=30), 503, "not_ready")
    server.wait_ready()
    assert server.predict(STREET.read_bytes()).status_code == 200


def test_a_program_that_cannot_be_kept_running_stops_the_server_and_is_named(start_server):
    server = start_server(device="tpu")
    server.process.wait(timeout=60)
    console = server.console()
    assert "SERVING_DEVICE='tpu': expected auto, cpu, cuda or cuda:N" in console
    # nginx needs the settings too: whichever fails for the last time first is named.
    assert re.search("(gunicorn|nginx) cannot be kept running", console)


def test_supervisorctl_controls_the_programs(start_server):
    server = start_server().wait_ready()
    for program in ("gunicorn", "nginx"):
        wait_until(lambda name=program: "RUNNING" in server.control("status", name).stdout)
    assert "model ready" in server.control("tail", "-5000", "gunicorn").stdout

    assert "stopped" in server.control("stop", "gunicorn").stdout
    response = server.predict(STREET.read_bytes())
    assert "restarting" in check_problem(response, 502, "not_ready")
    assert response.headers["Retry-After"] == "5"
    assert "started" in server.control("start", "gunicorn").stdout
    server.wait_ready()

    assert "started" in server.control("restart", "all").stdout
    server.wait_ready()
    assert server.predict(STREET.read_bytes()).status_code == 200


def test_scripts_serve_prints_the_curl_line_stops_at_ctrl_c_and_starts_again(
    lay_out_server, tmp_path
):
    server = lay_out_server()
    for attempt in range(2):
        (server.folder / "run" / "console").write_text("")
        began = time.monotonic()
        server.start(["scripts/serve"])
        wait_until(lambda: "Ctrl-C stops everything" in server.console(), 90, "the banner")
        assert attempt == 0 or time.monotonic() - began < 60, "a second start takes seconds"

        (line,) = [line for line in server.console().splitlines() if line.startswith("    curl")]
        pasted = os.popen(f"cd {server.folder} && {line} -s")
        assert json.loads(pasted.read())["status"] == 1
        pasted.close()

        second = server.run("scripts/serve")
        assert second.returncode == 1
        assert "running already" in second.stderr

        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20
        assert processes_of(server) == []


def processes_of(server) -> list[str]:
    """Return the command lines of processes that still run in the server's folder."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/cwd").startswith(str(server.folder)):
                command = Path(f"/proc/{entry}/cmdline").read_text()
                found.append(command.replace("\0", " "))
        except OSError:
            continue
    return found


def test_scripts_serve_names_a_wrong_setting_and_a_taken_port(lay_out_server):
    server = lay_out_server()
    server.environment["SERVING_WORKERS"] = "lots"
    refused = server.run("scripts/serve")
    assert refused.returncode == 1
    assert "SERVING_WORKERS='lots': expected a whole number from 1 to 64, or auto" in refused.stderr

    del server.environment["SERVING_WORKERS"]
    with socket.create_server(("127.0.0.1", int(server.url.rpartition(":")[2]))):
        refused = server.run("scripts/serve")
    assert refused.returncode == 1
    assert "is taken by another program" in refused.stderr


def test_stopping_while_the_model_loads_is_quiet(start_server):
    server = start_server()
    wait_until(lambda: "Booting worker" in server.log("gunicorn"), 60)
    assert server.stop() == 0
    log = server.log("gunicorn")
    assert "Shutting down: Master" in log
    assert "SIGABRT" not in log
    assert "terminate called" not in log


def test_a_terminal_that_is_not_read_stops_no_request(lay_out_server):
    """The server logs more lines than the pipes between the programs and the terminal can hold."""
    server = lay_out_server(workers="1", log_level="DEBUG")
    server.start(stdout=subprocess.PIPE)
    unread = server.process
    try:
        server.wait_ready()
        with requests.Session() as client:
            for number in range(1500):
                path = f"{server.url}/{number}{'x' * 400}"
                assert client.get(path, timeout=10).status_code == 404
                assert client.get(f"{server.url}/healthz", timeout=10).elapsed.total_seconds() < 5
        assert server.predict(STREET.read_bytes()).status_code == 200
        wait_until(lambda: server.log("gunicorn").count('"status": 404') == 1500, 10, "the log")
        assert "RUNNING" in server.control("status", "gunicorn").stdout
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20
    finally:
        unread.stdout.close()


def test_standard_output_may_be_a_socket(lay_out_server):
    """The journal of systemd is one."""
    server = lay_out_server()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server.start(["scripts/serve"], stdout=theirs)
        theirs.close()
        server.wait_ready()
        server.stop()
        ours.settimeout(10)
        with ours.makefile() as lines:
            assert "model ready" in lines.read()


@pytest.mark.parametrize("kind", ["a socket", "closed"])
def test_every_kind_of_standard_output_keeps_the_server_running(lay_out_server, kind):
    server = lay_out_server()
    if kind == "a socket":
        reader, writer = (end.detach() for end in socket.socketpair())
    else:
        reader, writer = os.pipe()
    os.close(reader)
    server.start(stdout=writer)
    os.close(writer)
    server.wait_ready()
    wait_until(lambda: " RUNNING " in server.control("status", "logs").stdout, 15)
    assert server.predict(STREET.read_bytes()).status_code == 200
    assert "exited: logs" not in server.log("supervisord")  # each exit counts towards FATAL
    assert server.stop() == 0
