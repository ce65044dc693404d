"""nginx knows the ids of API keys: without one it refuses an upload before it reads the body."""

import http.client
import json
import threading

import pytest

from app.commands import keys as command
from app.commands import watch
from app.gateway.includes import render_keys
from app.keys import CLIENT_SCOPES, make_key
from app.settings import Settings
from tests.gateway import Gateway
from tests.helpers import wait_until


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """Return nginx that knows one key, its key, and the file."""
    folder = tmp_path_factory.mktemp("gateway")
    path = folder / "keys"
    key = command.add(path, "bob", CLIENT_SCOPES, None)
    gateway = Gateway(folder / "run", keys=str(path))
    yield gateway, key, path
    gateway.close()


def test_an_upload_without_a_known_key_is_refused_before_its_body_is_sent(keyed):
    gateway, _, _ = keyed
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "30000000")
    connection.endheaders()
    response = connection.getresponse()  # not a byte of the body was sent
    problem = json.loads(response.read())
    connection.close()
    assert (response.status, problem["code"]) == (401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.headers["Content-Type"] == "application/problem+json"


def test_nginx_and_the_application_read_the_same_headers(keyed):
    gateway, key, _ = keyed
    _, other = make_key("eve", CLIENT_SCOPES)
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"authorization": f"bearer   {key}"},
        {"X_API_Key": key},
        {"X_API_Key": key, "Authorization": "Basic dTpw"},
    ):
        for path in ("/predict", "/model_predict", "/v1/models/demo:predict", "/v2/models/m/infer"):
            assert gateway.ask(path, "POST", body=b"x", **headers).status == 200, (path, headers)
    for headers in (
        {},
        {"Authorization": key},
        {"Authorization": f"Bearer {other}"},
        {"Authorization": f"Bearer {other}", "X_API_Key": key},
        {"X_API_Key": other},
    ):
        for path in ("/predict", "/V1/models/demo:predict", "/v2/repository/index"):
            assert gateway.ask(path, "POST", body=b"x", **headers).status == 401, (path, headers)


def test_what_takes_no_upload_is_left_to_the_application(keyed):
    gateway, _, _ = keyed
    for path in ("/", "/healthz", "/docs", "/v1/models/demo", "/nothing"):
        assert gateway.ask(path).status == 200, path


def test_nginx_takes_over_added_and_removed_keys(keyed, monkeypatch):
    gateway, _, path = keyed
    monkeypatch.setattr(watch, "CHECK_S", 0.05)
    monkeypatch.setattr("app.keys.CHECK_S", 0)
    settings = Settings.from_env(
        {k: v for k, v in gateway.environment.items() if k.startswith("SERVING_")}
    )
    threading.Thread(target=watch.follow_keys, args=(settings,), daemon=True).start()
    added = command.add(path, "eve", CLIENT_SCOPES, None)

    def status() -> int:
        return gateway.ask("/predict", "POST", body=b"x", X_API_Key=added).status

    wait_until(lambda: status() == 200, 10, "nginx knows the new key")
    command.remove(path, "eve")
    wait_until(lambda: status() == 401, 10, "nginx has forgotten the key")


def test_only_uploads_of_closed_scopes_need_a_key():
    closed = render_keys((), frozenset({"read"}))
    assert '"~*^POST /v2/repository/" 0;' in closed
    assert '"~*^POST /(predict|model_predict|v1/|v2/)" 1;' in closed
    key, text = make_key("bob", CLIENT_SCOPES)
    known = render_keys([key], frozenset())
    assert f"    {key.id} bob;" in known
    assert text.partition(".")[2] not in known
    assert key.digest not in known
