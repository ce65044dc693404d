"""The version that answers a request is chosen once, by its routing key or by chance, and held until the answer."""

import base64
import io

import pytest

from app.web.input.client import routing_key
from app.web.limits import MAX_ROUTING_KEY
from tests.helpers import gray, make_entry, make_light, make_manifest, wait_until
from tests.test_predict_route import send, send_json

SHARED = make_manifest(
    make_entry("light", 3), make_entry("light", 4), traffic={"light": {"3": 1, "4": 1}}
)
BRIGHT = gray(255)
B64 = base64.b64encode(BRIGHT).decode()
ROUTES = {
    "model_predict": lambda client: send(client, BRIGHT, path="/model_predict"),
    "predict, the model in the query": lambda client: send(client, BRIGHT, query="?model=light"),
    "predict, the model in the JSON": lambda client: send_json(
        client, {"images": [{"b64": B64}], "model": "light"}
    ),
    "v1": lambda client: client.post(
        "/v1/models/light:predict", json={"instances": [{"b64": B64}]}
    ),
    "v2": lambda client: client.post(
        "/v2/models/light/infer",
        json={"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [B64]}]},
    ),
}


def test_a_clients_own_key_is_used_up_to_its_limit(client):
    for sent, taken in (("anna", "anna"), ("a" * 5000, "a" * MAX_ROUTING_KEY)):
        with client.application.test_request_context(headers={"X-Routing-Key": sent}):
            assert routing_key() == taken
    with client.application.test_request_context():
        assert routing_key() == ""


@pytest.mark.parametrize("route", ROUTES)
def test_the_version_that_was_checked_is_the_one_that_answers(client_of, route):
    client = client_of(manifest=SHARED)
    server = client.application.extensions["model_server"]
    find, servables = server.find, []

    def find_and_note(*target):
        servables.append(find(*target))
        return servables[-1]

    server.find = find_and_note
    answered = []
    for _ in range(200 if route == "model_predict" else 20):
        response = ROUTES[route](client)
        assert response.status_code == 200, response.text
        answered.append(int(response.headers["X-Model-Version"]))
    assert answered == [servable.model.version for servable in servables]
    assert set(answered) == {3, 4}


class SlowBody(io.BytesIO):
    """A body that triggers a call while it is read."""

    def __init__(self, data: bytes, happens) -> None:
        super().__init__(data)
        self._happens = happens

    def read(self, *size: int) -> bytes:
        self._happens()
        return super().read(*size)

    def readinto(self, buffer) -> int:
        self._happens()
        return super().readinto(buffer)


def test_a_version_that_retires_while_the_body_arrives_still_answers(client_of):
    manifests = [make_manifest(make_entry("light", 3))]
    client = client_of(lambda *rest: make_light(rest[-1]), lambda: manifests[0], poll_s="0.01")
    server = client.application.extensions["model_server"]

    def move() -> None:
        manifests[0] = make_manifest(make_entry("light", 4))
        wait_until(lambda: server.find().model.version == 4)

    def ask(body):
        return client.post(
            "/predict", input_stream=body, content_type="image/png", content_length=len(BRIGHT)
        )

    during = ask(SlowBody(BRIGHT, move))
    assert (during.status_code, during.headers["X-Model-Version"]) == (200, "3")
    assert ask(io.BytesIO(BRIGHT)).headers["X-Model-Version"] == "4"
