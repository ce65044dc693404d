"""The Postman collection has every route, each request tests its answer, and newman passes all of them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from werkzeug.exceptions import MethodNotAllowed, NotFound

from app.settings import Settings
from app.web.app import create_app
from tests.helpers import ROOT

POSTMAN = ROOT / "docs" / "postman"
COLLECTION = POSTMAN / "resnet-serving.postman_collection.json"
ENVIRONMENT = POSTMAN / "local.postman_environment.json"
PROTOCOLS = (ROOT / "docs" / "protocols.md").read_text()


def read_variables(values):
    return {variable["key"]: variable["value"] for variable in values}


def walk(items):
    """Yield every request of a collection from all its folders."""
    for item in items:
        if "request" in item:
            yield item
        yield from walk(item.get("item", []))


CONTENT = json.loads(COLLECTION.read_text())
DEFAULTS = read_variables(CONTENT["variable"])
REQUESTS = list(walk(CONTENT["item"]))


def program(item):
    """Return the script that checks a request's answer."""
    return "\n".join(
        line
        for event in item["event"]
        if event["listen"] == "test"
        for line in event["script"]["exec"]
    )


def address(item):
    """Return a request's method and path."""
    raw = item["request"]["url"]["raw"].removeprefix("{{base_url}}").partition("?")[0]
    path = re.sub(r"{{(\w+)}}", lambda name: DEFAULTS[name[1]], raw)
    return item["request"]["method"], path


def newman(tmp_path, *words):
    """Run the collection as docs/clients.md says; return newman's exit status and its report."""
    assert (POSTMAN / "node_modules").exists(), "scripts/setup test installs newman"
    report = tmp_path / "report.json"
    command = ["npm", "--prefix", POSTMAN, "test", "--", "--reporters", "json"]
    command += ["--reporter-json-export", report, *words]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert report.exists(), done.stderr
    return done.returncode, json.loads(report.read_text())["run"]


def test_newman_passes_every_test_of_the_collection(server, tmp_path):
    status, run = newman(tmp_path, "--env-var", f"base_url={server.url}")
    failures = [
        f"{failure['source']['name']}: {failure['error']['message']}" for failure in run["failures"]
    ]
    assert (status, failures) == (0, [])
    assert [done["item"]["name"] for done in run["executions"]] == [
        item["name"] for item in REQUESTS
    ]
    assert all(len(done["assertions"]) >= 2 for done in run["executions"]), (
        "one for all, one of its own"
    )


def test_newman_fails_on_answers_of_another_model(server, tmp_path):
    words = ["--env-var", f"base_url={server.url}", "--env-var", "version=7", "--folder", "Labels"]
    status, run = newman(tmp_path, *words)
    assert status == 1
    assert "X-Model-Version" in run["failures"][0]["error"]["message"]


def test_every_route_is_in_the_collection_and_every_request_has_a_route():
    app = create_app(Settings.from_env({}))
    urls = app.url_map.bind("localhost")
    found = set()
    for item in REQUESTS:
        method, path = address(item)
        try:
            rule, _ = urls.match(path, method, return_rule=True)
        except (NotFound, MethodNotAllowed) as error:
            assert f"have.status({error.code})" in program(item), f"{method} {path} has no route"
        else:
            found.add((str(rule), method))
    assert found == {
        (str(rule), method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


def test_every_call_on_the_protocols_page_is_in_the_collection():
    """One route answers all paths under /v1, so the routes alone do not prove it."""
    lines = [
        line for line in PROTOCOLS.splitlines() if "curl " in line and "localhost:8999/" in line
    ]
    called = set()
    for line in lines:
        path = re.search(r"localhost:8999(/\S*)", line)[1]
        posts = re.search(r" (-d|--data-binary|-X POST) ", line)
        called.add(("POST" if posts else "GET", path))
    assert called
    assert called <= {address(item) for item in REQUESTS}


@pytest.mark.parametrize("item", REQUESTS, ids=lambda item: item["name"])
def test_a_request_tests_its_status_and_has_a_description(item):
    assert "pm.response.to.have.status(" in program(item)
    assert item["request"]["description"]


def test_a_refused_request_has_a_name_that_says_so():
    for item in REQUESTS:
        shown = set(re.findall(r": (\d+)$", item["name"])) or {"200"}
        assert shown == set(re.findall(r"have\.status\((\d+)\)", program(item))), item["name"]


def test_the_sent_files_exist():
    bodies = [item["request"].get("body", {}) for item in REQUESTS]
    fields = [field for body in bodies for field in body.get("formdata", [])]
    sent = [field["src"] for field in fields if field["type"] == "file"]
    sent += [body["file"]["src"] for body in bodies if body.get("mode") == "file"]
    assert sent
    for name in sent:
        assert (ROOT / name).is_file(), name


def test_the_environment_has_the_values_of_the_collection():
    environment = json.loads(ENVIRONMENT.read_text())
    assert all(
        DEFAULTS[name] == value for name, value in read_variables(environment["values"]).items()
    )
