"""Models with names beyond ASCII work on every route: in paths, options, answers and headers."""

import base64
import json
from urllib.parse import quote

import pytest
import requests
import torch
from torchvision.models import shufflenet_v2_x0_5

from tests.helpers import STREET, check_problem, gray, make_entry, make_manifest
from tests.random_models import CLASSES, write_model
from tests.tiny import CONFIG as TINY

NAMES = ["叶子", "листья", "Blätter 2", "100 % | a,b; c=\"d\" 'e'"]
LEAVES = NAMES[0]
PATH = quote(LEAVES)
JPEG = {"image": STREET.read_bytes()}
B64 = {"b64": base64.b64encode(STREET.read_bytes()).decode()}


@pytest.mark.parametrize("name", NAMES)
def test_headers_hold_any_name_as_ascii(client_of, name):
    client = client_of(manifest=make_manifest(make_entry(name, 4)))
    for response in (
        client.get("/v2/models/" + quote(name)),
        client.post("/predict", data=gray(9), content_type="image/png"),
    ):
        assert response.status_code == 200, response.text
        assert response.headers["X-Model-Name"] == quote(name)
        for value in response.headers.values():
            assert value.isascii() and value.isprintable()


@pytest.fixture(scope="module")
def unicode_server(new_server, tmp_path_factory):
    """Return a whole server with a small network in a folder named 叶子."""
    torch.manual_seed(7)
    network = shufflenet_v2_x0_5(num_classes=CLASSES)
    models = tmp_path_factory.mktemp("models")
    write_model(models / LEAVES, network.state_dict(), TINY)
    (models / LEAVES / "class_name.json").write_text(
        json.dumps({str(index): f"叶 {index}" for index in range(CLASSES)})
    )
    live = new_server(precision="fp32", workers="1", models=str(models))
    yield live.start().wait_ready()
    live.remove()


V2_INPUT = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [B64["b64"]]}]}
CALLS = {
    "index": ("GET", "/", {}),
    "model_predict": ("POST", "/model_predict", {"files": JPEG}),
    "predict": ("POST", f"/predict?heatmap=strongest&model={PATH}", {"files": JPEG}),
    "a form that names it": ("POST", "/predict", {"files": JPEG, "data": {"model": LEAVES}}),
    "heatmap": ("POST", "/predict/heatmap", {"files": JPEG}),
    "heatmap's numbers": (
        *("POST", f"/predict/heatmap?label={quote('叶 1')}"),
        {"files": JPEG, "headers": {"Accept": "application/json"}},
    ),
    "v1 status": ("GET", f"/v1/models/{PATH}", {}),
    "v1 metadata": ("GET", f"/v1/models/{PATH}/metadata", {}),
    "v1 predict": ("POST", f"/v1/models/{PATH}:predict", {"json": {"instances": [B64]}}),
    "v1 version": ("POST", f"/v1/models/{PATH}/versions/1:predict", {"json": {"instances": [B64]}}),
    "v2 metadata": ("GET", f"/v2/models/{PATH}", {}),
    "v2 ready": ("GET", f"/v2/models/{PATH}/ready", {}),
    "v2 infer": ("POST", f"/v2/models/{PATH}/versions/1/infer", {"json": V2_INPUT}),
    "v2 index": ("POST", "/v2/repository/index", {"json": {}}),
    "readyz": ("GET", "/readyz", {}),
    "metrics": ("GET", "/metrics", {}),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_model_of_any_name_answers_on_every_route(unicode_server, call):
    method, path, options = CALLS[call]
    response = requests.request(method, unicode_server.url + path, timeout=60, **options)
    assert response.status_code == 200, response.text
    assert response.headers.get("X-Model-Name", PATH) == PATH
    if call == "heatmap":
        assert response.headers["X-Heatmap-Label"].startswith(quote("叶 "))
    if call == "metrics":
        assert f'model="{LEAVES}"' in response.text
    if call in ("index", "predict", "heatmap's numbers", "v2 metadata", "v2 index", "readyz"):
        assert LEAVES in str(response.json())


def test_errors_of_a_model_of_any_name_have_the_request_id_and_the_path(unicode_server):
    headers = {"X-Request-ID": "leaf-1"}
    url = f"{unicode_server.url}/predict?model={PATH}&label=x"
    response = requests.post(url, files=JPEG, headers=headers, timeout=60)
    check_problem(response, 422, "invalid_option")
    assert response.headers["X-Request-ID"] == "leaf-1"
    assert response.json()["instance"] == "/predict"
    (line,) = unicode_server.lines_of("leaf-1")
    assert line["status"] == 422
    wrong = requests.post(f"{unicode_server.url}/model_predict/{PATH}", files=JPEG, timeout=60)
    check_problem(wrong, 404, "not_found")
    assert wrong.json()["instance"] == f"/model_predict/{LEAVES}"


def test_requests_to_a_model_of_any_name_are_logged_with_its_name(unicode_server):
    answer = requests.post(f"{unicode_server.url}/model_predict", files=JPEG, timeout=60)
    (line,) = unicode_server.lines_of(answer.headers["X-Request-ID"])
    assert (line["model"], line["status"]) == (LEAVES, 200)
