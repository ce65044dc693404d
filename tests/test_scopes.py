"""API keys open routes by their scope; every route has one."""

import json
import logging
import re

import pytest

from app import metrics
from app.commands import keys as command
from app.keys import SCOPES
from app.settings import Settings
from app.web import access, keys
from app.web.app import create_app
from app.web.openapi.document import build_document
from app.web.scopes import ROUTES, STATUS
from tests.helpers import ROOT, check_problem, gray

RULES = [
    (rule, method)
    for rule in create_app(Settings.from_env({})).url_map.iter_rules()
    for method in sorted(rule.methods - {"HEAD", "OPTIONS"})
]
STRANGER = {"X-Serving-Stranger": "1"}
VALUES = {"version": "1", "action": "load", "rest": "models", "digest": "0", "name": "light"}


def fill(rule: str) -> str:
    """Return a path that a rule matches."""
    return re.sub(r"<(?:[^:<>]+:)?(\w+)>", lambda match: VALUES[match[1]], rule)


@pytest.fixture
def path(tmp_path):
    """Return the path of a file of keys."""
    return tmp_path / "keys"


@pytest.fixture
def make_key(path):
    """Return a function that adds a key with scopes, and returns it."""
    return lambda *scopes, name="bob", expires=None: command.add(
        path, name, frozenset(scopes), expires
    )


@pytest.fixture
def closed(client_of, path, make_key):
    """Return a client of a server that has keys and no public scope, and a key for each scope."""
    held = {scope: make_key(scope, name=scope) for scope in SCOPES}
    return client_of(keys=str(path), public="none"), held


@pytest.fixture
def lines(monkeypatch):
    """Return the fields of the access log's lines, and let no flood be seen."""
    found = []
    monkeypatch.setattr(
        access.logger, "log", lambda level, *_, extra: found.append((level, extra["fields"]))
    )
    monkeypatch.setattr(keys, "refusals", keys.Refusals())
    return found


def bearer(key: str) -> dict[str, str]:
    """Return the header with a key."""
    return {"Authorization": f"Bearer {key}"}


def test_every_route_has_a_scope_and_no_other_has():
    assert {rule.endpoint for rule, _ in RULES} == ROUTES.keys()
    assert set(ROUTES.values()) == {*SCOPES, STATUS}


def test_every_route_needs_a_key_with_its_scope(closed):
    """Walks the URL map: without a key 401, with a key of all other scopes 403, with its own neither."""
    client, held = closed
    for rule, method in RULES:
        scope, url = ROUTES[rule.endpoint], fill(rule.rule)
        if scope == STATUS:
            assert client.open(url, method=method).status_code == 200, url
            continue
        refused = client.open(url, method=method, headers={"Accept": "text/html"})
        assert refused.status_code == 401, f"{method} {url}"
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        for other in SCOPES.keys() - {scope}:
            answer = client.open(url, method=method, headers=bearer(held[other]))
            assert answer.status_code == 403, f"{method} {url} with the scope {other}"
        headers = bearer(held[scope]) | {"Accept": "text/html"}
        answer = client.open(url, method=method, headers=headers)
        assert answer.status_code not in (401, 403), f"{method} {url}"


def test_the_documented_scope_of_every_route_is_the_codes():
    text = (ROOT / "docs" / "security.md").read_text()
    table = text.split("## What needs which scope")[1].split("\n## ")[0]
    shown = {}
    for scope, routes in re.findall(r"^\| `(\w+)` \|(.*?)\|", table, re.MULTILINE):
        for route in re.findall(r"`(\w+ /[^`]*)`", routes):
            shown[route] = scope
    assert shown == {f"{method} {rule.rule}": ROUTES[rule.endpoint] for rule, method in RULES}


def test_a_route_without_a_row_is_closed_to_everybody(client_of, monkeypatch):
    client = client_of()
    assert client.get("/samples").status_code == 200
    monkeypatch.delitem(ROUTES, "samples.index")
    check_problem(client.get("/samples"), 401, "unauthorized")


def test_without_keys_everything_is_open(client):
    assert client.get("/").json["model"] == "light"
    assert client.get("/metrics").status_code == 200
    assert client.get("/", headers=bearer("whatever")).status_code == 200


def test_by_default_people_see_the_pages_that_ask_for_a_key_and_nothing_else(client_of, path):
    client = client_of(keys=str(path))
    assert client.get("/", headers={"Accept": "text/html"}).status_code == 200
    assert client.get("/docs").status_code == 200
    check_problem(client.get("/"), 401, "unauthorized")
    assert client.get("/readyz", headers=STRANGER).json == {"status": "ready"}
    for url in ("/metrics", "/samples", "/health"):
        check_problem(client.get(url), 401, "unauthorized")


def test_details_of_readiness_are_for_operators_and_readers(closed):
    client, held = closed
    for scope, told in (("metrics", False), ("read", True)):
        answer = client.get("/readyz", headers=STRANGER | bearer(held[scope])).json
        assert ("model" in answer, "workers" in answer) == (told, told)
    assert client.get("/readyz").json["workers"] == {"0": "ready"}


def test_paths_that_are_no_route_need_no_key_and_tell_nothing(closed):
    client, _ = closed
    assert "light" not in check_problem(client.get("/nothing"), 404, "not_found")
    assert "light" not in check_problem(client.get("/predict"), 405, "method_not_allowed")
    assert client.options("/predict").status_code == 200, "a preflight has no key"


def test_both_headers_carry_a_key_and_the_query_does_not(closed):
    client, held = closed
    key = held["read"]
    for headers in (
        bearer(key),
        {"authorization": f"bearer   {key} "},
        {"X-API-Key": key},
        {"X-API-Key": key, "Authorization": "Basic dTpw"},
    ):
        assert client.get("/samples", headers=headers).status_code == 200, headers
    for headers in (
        {"X-API-Key": key, "Authorization": "Bearer wrong"},
        {"Authorization": key},
        {"X-API-Key": key.upper()},
    ):
        assert client.get("/samples", headers=headers).status_code == 401, headers
    assert client.get(f"/samples?api_key={key}&key={key}").status_code == 401


def test_the_dialects_refuse_in_their_own_form(closed):
    client, held = closed
    for url in ("/v1/models/light", "/v2/models/light"):
        answer = client.get(url)
        assert answer.status_code == 401
        assert answer.json.keys() == {"error"}
        answer = client.get(url, headers=bearer(held["docs"]))
        assert answer.status_code == 403
        assert answer.json["error"] == "the API key of 'docs' has the scopes docs; this needs read"


def test_an_expired_key_is_refused_with_its_date(client_of, path, make_key):
    key = make_key("read", expires=command.parse_time("2020-01-01"))
    client = client_of(keys=str(path))
    detail = check_problem(client.get("/samples", headers=bearer(key)), 401, "unauthorized")
    assert detail == "the API key of 'bob' expired at 2020-01-01T00:00:00Z"
    wrong = bearer(f"{key[:-1]}!")
    assert "bob" not in check_problem(client.get("/samples", headers=wrong), 401, "unauthorized")


def test_the_clients_name_is_in_the_log_and_the_metrics(client_of, path, make_key, lines):
    key = make_key("predict", name="archive")
    client = client_of(keys=str(path))
    counter = metrics.key_requests.labels("archive")._value
    before = counter.get()
    answer = client.post("/predict", data=gray(0), content_type="image/png", headers=bearer(key))
    assert answer.status_code == 200
    assert lines[-1][1]["key"] == "archive"
    assert counter.get() == before + 1


def test_refusals_are_counted_by_their_reason_and_a_flood_is_not_logged(closed, lines):
    client, held = closed
    counters = {
        reason: metrics.key_refusals.labels(reason)._value
        for reason in ("missing", "unknown", "scope")
    }
    before = {reason: counter.get() for reason, counter in counters.items()}
    for _ in range(3 * keys.LOGGED_PER_S):
        client.get("/samples", headers=bearer("guess"))
    client.get("/samples")
    client.get("/samples", headers=bearer(held["docs"]))
    counted = {reason: counter.get() - before[reason] for reason, counter in counters.items()}
    assert counted == {"missing": 1, "unknown": 3 * keys.LOGGED_PER_S, "scope": 1}
    assert lines[0][1]["key_fault"] == "unknown"
    assert lines[0][1]["client"] == "127.0.0.1"
    logged = [level for level, _ in lines if level == logging.INFO]
    assert keys.LOGGED_PER_S <= len(logged) < len(lines)


def test_no_answer_log_or_metric_repeats_a_key(client_of, path, make_key, caplog, lines):
    valid = make_key("predict", "metrics")
    expired = make_key("read", expires=command.parse_time("2020-01-01"))
    guess = "0123456789abcdef01234567.SecretThatWasNeverGiven"
    client = client_of(keys=str(path))
    caplog.set_level(logging.DEBUG)
    answers = [
        client.open(url, method=method, headers=headers(key))
        for key in (valid, expired, guess)
        for headers in (bearer, lambda key: {"X-API-Key": key})
        for method, url in (
            ("POST", "/predict"),
            ("GET", "/samples"),
            ("GET", "/v1/models"),
            ("GET", "/v2/models/none"),
            ("GET", "/nothing"),
            ("GET", "/metrics"),
        )
    ]
    told = "".join(f"{answer.headers}{answer.text}" for answer in answers)
    told += caplog.text + json.dumps(lines) + client.get("/metrics", headers=bearer(valid)).text
    for key in (valid, expired, guess):
        assert key.partition(".")[2] not in told
    for digest in re.findall(r"[0-9a-f]{64}", path.read_text()):
        assert digest not in told


def test_a_removed_key_is_refused_within_two_seconds(client_of, path, make_key, monkeypatch):
    key = make_key("read")
    client = client_of(keys=str(path))
    assert client.get("/samples", headers=bearer(key)).status_code == 200
    command.remove(path, "bob")
    monkeypatch.setattr("app.keys.CHECK_S", 0)  # time passes
    assert client.get("/samples", headers=bearer(key)).status_code == 401


def test_the_name_of_the_client_is_that_of_its_key(client_of, path, make_key):
    key = make_key("docs", name="archive")
    client = client_of(keys=str(path))
    with client:
        client.get("/docs", headers=bearer(key))
        assert keys.client_name() == "archive"
    with client:
        client.get("/docs", headers=bearer("unknown"))
        assert keys.client_name() == "", "an open route needs no valid key"


def test_the_openapi_document_names_the_scope_of_every_closed_operation(path):
    document = build_document(create_app(Settings.from_env({"SERVING_KEYS": str(path)})))
    shown = {
        drawn["operationId"]: drawn
        for path in document["paths"].values()
        for drawn in path.values()
    }
    assert shown["predict"]["security"] == [{"bearer": ["predict"]}, {"header": ["predict"]}]
    assert shown["index"]["security"][0] == {"bearer": ["read"]}
    assert {"401", "403"} <= shown["metrics"]["responses"].keys()
    assert "security" not in shown["healthz"]
    assert "security" not in shown["docs"]
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["header"]["name"]) == ("bearer", "X-API-Key")
    assert "securitySchemes" not in build_document(create_app(Settings.from_env({})))["components"]
