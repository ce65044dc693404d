"""Clients of other servers work with the whole server: tritonclient from PyPI, and TensorFlow Serving's users."""

import base64
import io
import json
import subprocess
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from PIL import Image

from tests import reference
from tests.helpers import ROOT, SAMPLES, STREET, encode
from tests.pages import blocks

FARM = SAMPLES / "farm.jpg"
PROTOCOLS = ROOT / "docs" / "protocols.md"
TOLERANCE = 1e-3  # the server is fp32


@pytest.fixture
def client(server):
    """Return NVIDIA's client, connected through nginx."""
    with triton.InferenceServerClient(urlsplit(server.url).netloc) as connected:
        yield connected


@pytest.fixture(scope="module")
def logits(demo_network):
    """Return the independent reference's logits of the street and the farm: (2, 20)."""
    return np.stack([reference.logits(demo_network, path.read_bytes()) for path in (STREET, FARM)])


def sigmoid(values):
    return 1 / (1 + np.exp(-values.astype(np.float64)))


def close_to(values):
    return pytest.approx(values, abs=TOLERANCE)


def image_input(data, binary=True):
    tensor = triton.InferInput("image", [len(data)], "BYTES")
    tensor.set_data_from_numpy(np.array(data, dtype=object), binary_data=binary)
    return tensor


def pixels_input(pixels, datatype, binary=True):
    tensor = triton.InferInput("pixels", list(pixels.shape), datatype)
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return tensor


def files():
    return [STREET.read_bytes(), FARM.read_bytes()]


def as_base64():
    return [base64.b64encode(data) for data in files()]


# tritonclient


def test_tritonclient_finds_the_server_and_its_model(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("demo")
    assert client.is_model_ready("demo", "1")
    assert not client.is_model_ready("demo", "7")
    assert not client.is_model_ready("half")
    assert client.get_server_metadata()["name"] == "resnet-serving"
    metadata = client.get_model_metadata("demo")
    assert metadata["versions"] == ["1"]
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["image", "pixels"]
    assert metadata["outputs"][0] == {"name": "scores", "datatype": "FP32", "shape": [-1, 20]}
    assert client.get_model_repository_index() == [
        {"name": "demo", "version": "1", "state": "READY", "reason": ""}
    ]


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: image_input(files()),
        lambda: image_input(as_base64(), binary=False),
    ],
    ids=["binary", "JSON"],
)
def test_tritonclient_gets_the_references_outputs_for_files(client, logits, make, binary_out):
    requested = [
        triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("logits", "scores")
    ]
    answer = client.infer("demo", [make()], outputs=requested, request_id="order-66")
    assert answer.as_numpy("logits") == close_to(logits)
    assert answer.as_numpy("scores") == close_to(sigmoid(logits))
    assert answer.as_numpy("scores").dtype == np.float32
    assert answer.get_response()["id"] == "order-66"
    assert answer.get_response()["model_version"] == "1"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("datatype", "dtype"), [("UINT8", np.uint8), ("FP32", np.float32)])
def test_tritonclient_gets_the_references_outputs_for_pixels_too(
    client, demo_network, datatype, dtype, binary
):
    small = Image.open(STREET).convert("RGB").resize((160, 120))
    expected = reference.logits(demo_network, encode(small, "PNG"))
    tensor = pixels_input(np.asarray(small)[None].astype(dtype), datatype, binary)
    answer = client.infer("demo", [tensor], model_version="1")
    assert answer.as_numpy("logits") == close_to(expected[None])


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritonclient_may_compress(client, logits, algorithm):
    answer = client.infer("demo", [image_input(files())], request_compression_algorithm=algorithm)
    assert answer.as_numpy("logits") == close_to(logits)


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_gets_classifications(client, logits, class_names, binary):
    requested = triton.InferRequestedOutput("logits", binary_data=binary, class_count=3)
    answer = client.infer("demo", [image_input(files())], outputs=[requested]).as_numpy("logits")
    assert answer.shape == (2, 3)
    for row, expected in zip(answer, logits, strict=True):
        for text, index in zip(row, np.argsort(-expected), strict=False):
            value, at, label = (text.decode() if binary else text).split(":")
            assert (int(at), label) == (index, class_names[index])
            assert float(value) == close_to(expected[index])


def test_tritonclient_gets_many_answers_at_once(server, logits):
    with triton.InferenceServerClient(urlsplit(server.url).netloc, concurrency=8) as client:
        waiting = [client.async_infer("demo", [image_input(files())]) for _ in range(8)]
        for request in waiting:
            assert request.get_result().as_numpy("logits") == close_to(logits)


def test_tritonclient_reads_our_errors(client):
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("half", [image_input(files())])
    assert caught.value.status() == "404"
    assert caught.value.message() == "Model with name half does not exist."
    with pytest.raises(triton.InferenceServerException, match="image is neither JPEG") as caught:
        client.infer("demo", [image_input([b"text"])])
    assert caught.value.status() == "400"
    with pytest.raises(triton.InferenceServerException, match="not allowed"):
        client.load_model("demo")


def test_a_raw_image_is_answered_in_binary_and_tritonclient_reads_it(server, logits):
    answer = requests.post(
        f"{server.url}/v2/models/demo/infer",
        data=STREET.read_bytes(),
        headers={"Inference-Header-Content-Length": "0"},
        timeout=30,
    )
    length = int(answer.headers["Inference-Header-Content-Length"])
    result = triton.InferResult.from_response_body(answer.content, header_length=length)
    assert result.as_numpy("logits") == close_to(logits[:1])


# TensorFlow Serving's guide, with images


def post(server, path, body):
    answer = requests.post(f"{server.url}/v1/models/{path}", data=json.dumps(body), timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_predict_answers_as_the_reference_does(server, logits):
    images = [{"b64": text.decode()} for text in as_base64()]
    rows = post(server, "demo:predict", {"instances": images})["predictions"]
    assert np.array(rows) == close_to(sigmoid(logits))
    body = {"signature_name": "logits", "inputs": {"image_bytes": images}}
    assert np.array(post(server, "demo/versions/1:predict", body)["outputs"]) == close_to(logits)


def test_pixels_are_predicted_as_their_image(server, demo_network):
    small = Image.open(FARM).convert("RGB").resize((64, 48))
    expected = reference.logits(demo_network, encode(small, "PNG"))
    body = {"signature_name": "logits", "instances": [np.asarray(small).tolist()]}
    assert np.array(post(server, "demo:predict", body)["predictions"][0]) == close_to(expected)


def test_every_protocol_answers_the_labels_of_model_predict(server, client):
    for path in sorted(SAMPLES.glob("*.jpg")):
        labels = server.predict(path.read_bytes()).json()["result"]
        example = {"image_bytes": {"b64": base64.b64encode(path.read_bytes()).decode()}}
        (pairs,) = post(server, "demo:classify", {"examples": [example]})["results"]
        passing = [label for label, score in pairs if score > sigmoid(np.float64(0.5))]
        assert passing[::-1] == labels, path.name
        requested = triton.InferRequestedOutput("logits", class_count=20)
        row = client.infer("demo", [image_input([path.read_bytes()])], outputs=[requested])
        texts = [text.decode().split(":") for text in row.as_numpy("logits")[0]]
        assert [label for value, _, label in texts if float(value) > 0.5][::-1] == labels


def test_errors_match_those_of_the_tensorflow_serving_guide(server):
    """The guide requests a missing model by curl."""
    line = (
        f"curl -sS -i -d '{{\"instances\": [1.0,5.0]}}' -X POST {server.url}/v1/models/half:predict"
    )
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("HTTP/1.1 404 ")
    assert "Content-Type: application/json" in done.stdout
    body = json.loads(done.stdout.splitlines()[-1])
    assert body == {"error": "Servable not found for request: Latest(half)"}


def test_the_pages_python_works_as_pasted(server, monkeypatch):
    monkeypatch.chdir(ROOT)
    (program,) = blocks(PROTOCOLS, "python")
    program = program.replace("localhost:8999", urlsplit(server.url).netloc)
    shown = io.StringIO()
    exec(program, {"print": lambda value: shown.write(str(value))})  # the page's own
    assert "Car" in shown.getvalue()
