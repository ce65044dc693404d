"""Monitoring covers all workers in one answer, over kills and reloads; the rules and the dashboard are valid."""

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from app.settings import Settings
from tests.helpers import ROOT, STREET, wait_until
from tests.scrape import DOCUMENTED, answered, scrape

FOLDER = ROOT / "deploy" / "monitoring"
GRAFANA = FOLDER / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboard.json").read_text())
ALL = [
    each for top in DASHBOARD["panels"] for each in (top, *top.get("panels", []))
]  # folded rows hold theirs
PANELS = [panel for panel in ALL if panel["type"] not in ("row", "text")]
ANNOTATIONS = DASHBOARD["annotations"]["list"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS += [annotation["target"]["expr"] for annotation in ANNOTATIONS]
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
PATHS = ("/metrics", "/monitoring/prometheus/metrics")


def predict_many(server, count, clients=16):
    data = STREET.read_bytes()
    with ThreadPoolExecutor(clients) as pool:
        statuses = list(pool.map(lambda _: server.predict(data).status_code, range(count)))
    assert set(statuses) == {200}


# Two workers


@pytest.fixture(scope="module")
def two_worker_server(new_server):
    """Return a server with two workers; each test leaves both ready."""
    live = new_server(workers="2")
    yield live.start().wait_ready(2)
    live.remove()


def test_every_request_is_counted_regardless_of_the_worker(two_worker_server):
    before = scrape(two_worker_server)
    predict_many(two_worker_server, 40)
    assert two_worker_server.predict(b"text").status_code == 400
    metrics = scrape(two_worker_server)
    counted = metrics.since(before)
    assert answered(counted) == 40
    assert counted.total("serving_errors_total", code="unreadable_image") == 1
    assert counted.total("serving_pictures_total", outcome="answered") == 40
    assert counted.total("serving_batch_size_sum") == 40
    pids = {str(pid) for pid in two_worker_server.worker_pids()}
    assert metrics.values_of("serving_worker_memory_bytes", "pid") == pids


def test_a_killed_worker_loses_no_count(two_worker_server):
    before = scrape(two_worker_server)
    predict_many(two_worker_server, 20)
    victim = two_worker_server.worker_pids()[0]
    two_worker_server.kill_worker(victim)
    wait_until(lambda: victim not in two_worker_server.worker_pids(), 60)
    two_worker_server.wait_ready(2)
    predict_many(two_worker_server, 20)
    metrics = scrape(two_worker_server)
    metrics.never_counts_back(before)
    counted = metrics.since(before)
    assert answered(counted) == 40
    assert counted.total("serving_worker_deaths_total") == 1


def test_a_start_counts_from_0(two_worker_server):
    predict_many(two_worker_server, 2)
    assert answered(scrape(two_worker_server)) >= 2
    two_worker_server.control("restart", "gunicorn")
    two_worker_server.wait_ready(2)
    assert answered(scrape(two_worker_server)) == 0


# Without a model, and with one worker


def test_refusals_are_counted_with_their_reason_while_no_model_is_ready(start_server, tmp_path):
    version = tmp_path / "leaves" / "7"
    version.mkdir(parents=True)
    (version / "class_name.json").write_text('{"0": "Healthy"}')
    (version / "model.npz").write_bytes(b"torn")
    server = start_server(models=str(tmp_path))
    wait_until(lambda: "the model cannot be served" in server.log("gunicorn"), 60)
    metrics = scrape(server)
    (((_, labels), value),) = [
        item for item in metrics.samples.items() if item[0][0] == "serving_version_refused_info"
    ]
    labels = dict(labels)
    assert (labels["model"], labels["version"], value) == ("leaves", "7", 1)
    assert "model.npz cannot be read as weights" in labels["reason"]
    assert str(tmp_path) not in labels["reason"]
    assert metrics.total("serving_workers", state="failed") == metrics.total("serving_workers") >= 1
    assert metrics.total("serving_workers_planned") >= 1
    assert not metrics.families["serving_model_info"].samples


def test_sixteen_clients_fill_the_batches(server):
    """Batching computes fewer forward passes than images."""
    before = scrape(server)
    predict_many(server, 96, clients=16)
    counted = scrape(server).since(before)
    limit = scrape(server).total("serving_batch_limit")
    batches = counted.total("serving_batch_size_count")
    assert counted.total("serving_batch_size_sum") == 96
    assert batches < 96 / 2
    assert counted.total("serving_batch_size_bucket", le=f"{limit}") == batches
    computing_s = counted.total("serving_computing_seconds_total")
    assert 0 < computing_s < counted.total("serving_forward_duration_seconds_sum")


def test_a_slow_upload_counts_as_the_clients_time(server):
    """A worker gets the request once nginx has the whole body, and nginx reports that time."""
    body = b'--X\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body += STREET.read_bytes() + b"\r\n--X--\r\n"
    head = (
        "POST /model_predict HTTP/1.1\r\nHost: x\r\nX-Request-ID: slow-1\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=X\r\nContent-Length: {len(body)}\r\n"
        "X-Upload-Time: 9999.000\r\nX-Request-Start: t=1.000\r\n\r\n"  # a client's own word counts for nothing
    )
    before = scrape(server)
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(head.encode() + body[:5000])
        time.sleep(0.5)  # a slow line
        client.sendall(body[5000:])
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
    counted = scrape(server).since(before)
    (line,) = server.lines_of("slow-1")
    assert 450 < line["upload_ms"] < 9_000
    assert line["accept_ms"] < 9_000
    assert counted.total("serving_upload_duration_seconds_sum") * 1000 == pytest.approx(
        line["upload_ms"]
    )
    assert counted.total("serving_upload_duration_seconds_count") == 1
    assert line["client"] == "127.0.0.1"
    assert line["bytes_in"] == len(body)


@pytest.mark.parametrize("path", PATHS)
def test_both_paths_answer_the_documented_metrics(server, path):
    found = scrape(server, path).families
    assert {name: family.type for name, family in found.items()} == {
        name: kind for name, (kind, _) in DOCUMENTED.items()
    }


# Files for Prometheus and Grafana


def promtool(*words: str | Path, text: str = "") -> str:
    return run_tool("promtool", *words, text=text)


def run_tool(*words: str | Path, text: str = "") -> str:
    """Run a program of scripts/setup; return what it prints, or fail."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        words,
        input=text,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def names_in(text: str) -> set[str]:
    """Return the names of our metrics in an expression, as the documentation has them."""
    found = set(re.findall(r"\bserving_\w+", text))
    return {
        name if name in DOCUMENTED else re.sub(r"_(bucket|sum|count)$", "", name) for name in found
    }


def test_prometheus_finds_no_fault_in_the_metrics(server):
    server.predict(STREET.read_bytes())
    assert (
        promtool("check", "metrics", text=requests.get(f"{server.url}/metrics", timeout=10).text)
        == ""
    )


def test_prometheus_takes_the_example_and_the_rules():
    assert "SUCCESS" in promtool("check", "config", FOLDER / "prometheus.yml")
    assert "SUCCESS" in promtool("test", "rules", FOLDER / "alerts_test.yml")


def test_every_rule_has_a_test_case_and_uses_existing_metrics():
    rules = (FOLDER / "alerts.yml").read_text()
    names = re.findall(r"- alert: (\w+)", rules)
    cases = (FOLDER / "alerts_test.yml").read_text()
    fired = re.findall(r"- alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts:", cases)
    assert sorted(names) == sorted(fired)
    assert names_in(rules) <= DOCUMENTED.keys()


def test_the_dashboards_queries_are_prometheus_own(tmp_path):
    variables = {
        "$__rate_interval": "5m",
        "$__range": "1h",
        "$job": "resnet-serving",
        "$instance": ".*",
        "$model": ".*",
    }
    rules = []
    for number, expression in enumerate(EXPRESSIONS):
        query = re.sub(r"\$\w+", lambda match: variables[match[0]], expression)
        rules.append({"record": f"dashboard:{number}", "expr": query})
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(EXPRESSIONS)} rules found" in promtool("check", "rules", file)


def test_the_dashboard_uses_existing_metrics_and_is_valid():
    queries = " ".join(EXPRESSIONS) + json.dumps(DASHBOARD["templating"])
    assert names_in(queries) <= DOCUMENTED.keys()
    ids = [panel["id"] for panel in ALL]
    assert len(ids) == len(set(ids))
    taken = set()
    for panel in ALL:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_the_workers_panel_is_green_only_if_all_planned_workers_are_ready():
    (panel,) = [panel for panel in PANELS if panel["title"] == "Workers ready"]
    (target,) = panel["targets"]
    ready, _, planned = target["expr"].partition(" / ")
    assert 'state="ready"' in ready
    assert "serving_workers_planned" in planned
    last = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]
    assert last == {"color": "green", "value": 1}


def test_the_gpus_are_in_a_folded_row():
    for row in (each for each in DASHBOARD["panels"] if each["type"] == "row"):
        queries = json.dumps(row["panels"])
        assert row["collapsed"] == bool(row["panels"]) == ("serving_gpu" in queries)
    shown = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
    assert "serving_gpu" not in json.dumps(shown)


# The compose file


def test_every_file_that_compose_mounts_exists():
    named = COMPOSE["volumes"]
    for service in COMPOSE["services"].values():
        for source, _, _ in (volume.partition(":") for volume in service["volumes"]):
            assert source in named or (FOLDER / source).exists(), source
    assert (FOLDER / COMPOSE["services"]["server"]["build"] / "Dockerfile").exists()


def test_prometheus_scrapes_the_server_and_notifies_alertmanager_by_their_compose_names():
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (alertmanagers,) = config["alerting"]["alertmanagers"]
    found = [
        target
        for each in (job, alertmanagers)
        for group in each["static_configs"]
        for target in group["targets"]
    ]
    assert found == ["server:8999", "alertmanager:9093"]
    address = COMPOSE["services"]["prometheus"]["networks"]["default"]["ipv4_address"]
    (pool,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(pool["subnet"])
    environment = COMPOSE["services"]["server"]["environment"]
    assert address in Settings.from_env(environment).metrics_from[-1]
    assert {target.partition(":")[0] for target in found} <= COMPOSE["services"].keys()
    assert job["job_name"] in (FOLDER / "alerts.yml").read_text()


def test_grafana_is_provisioned_with_prometheus_and_the_dashboard():
    folder = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((folder / "dashboards" / "resnet-serving.yaml").read_text())[
        "providers"
    ]
    mounts = dict(
        volume.removesuffix(":ro").split(":")
        for volume in COMPOSE["services"]["grafana"]["volumes"]
    )
    assert Path(mounts["./grafana/dashboard.json"]).parent == Path(provider["options"]["path"])
    for kind in ("datasources", "dashboards"):
        assert mounts[f"./grafana/provisioning/{kind}"] == f"/etc/grafana/provisioning/{kind}"
    assert f"3000/d/{DASHBOARD['uid']}>" in (ROOT / "docs" / "monitoring.md").read_text()


def test_only_the_server_is_open_to_other_machines():
    for name, service in COMPOSE["services"].items():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:") == (name != "server")


def test_alertmanager_takes_the_example():
    assert "SUCCESS" in run_tool("amtool", "check-config", FOLDER / "alertmanager.yml")
    routed = run_tool(
        "amtool",
        "config",
        "routes",
        "test",
        f"--config.file={FOLDER / 'alertmanager.yml'}",
        "severity=critical",
    )
    assert routed.splitlines()[0] == "on-call"


def test_the_page_names_only_existing_metrics_and_settings():
    page = (ROOT / "docs" / "monitoring.md").read_text()
    reference = (ROOT / "docs" / "reference.md").read_text()
    assert names_in(page) <= DOCUMENTED.keys()
    assert all(f"`{name}`" in reference for name in re.findall(r"SERVING_[A-Z_]+", page))
