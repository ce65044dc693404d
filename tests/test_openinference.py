"""The Open Inference Protocol accepts valid requests and refuses invalid ones, through Flask's own client."""

import base64
import json
import math
import struct
import zlib

import numpy as np
import pytest

from app import __version__
from app.control.manifest import RejectedVersion
from app.errors import BundleError
from tests.helpers import encode, gray, make_entry, make_manifest, photo_like, png_bomb

LIGHT = "/v2/models/light"
LENGTH = "Inference-Header-Content-Length"
BOTH, DARK = [2, 1], [0, 5]  # logits of bright_or_not: grays of 150 and 100


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def scores(*logits):
    return pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], abs=1e-6)


def image(*data, shape=None, **more):
    return {
        "name": "image",
        "datatype": "BYTES",
        "shape": shape or [len(data)],
        "data": data,
    } | more


def pixels(array, datatype="UINT8", **more):
    shape, data = list(array.shape), array.tolist()
    return {"name": "pixels", "datatype": datatype, "shape": shape, "data": data} | more


def of_grays(*levels):
    """Return a batch of images of one gray value each."""
    return np.array([np.full((4, 6, 3), level) for level in levels], np.uint8)


def infer(client, *inputs, path=LIGHT, **more):
    return client.post(f"{path}/infer", json={"inputs": inputs} | more)


def infer_binary(client, tensor, data, **more):
    """Post a tensor behind the JSON, with its size."""
    tensor = {"parameters": {"binary_data_size": len(data)}} | tensor
    text = json.dumps({"inputs": [tensor]} | more).encode()
    return client.post(f"{LIGHT}/infer", data=text + data, headers={LENGTH: str(len(text))})


def read_binary(response):
    """Return an answer's JSON and the bytes behind it."""
    assert response.content_type == "application/octet-stream"
    length = int(response.headers[LENGTH])
    return json.loads(response.data[:length]), response.data[length:]


def prefixed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def check_error(response, status, text):
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    assert list(response.json) == ["error"]
    assert text in response.json["error"]


# Health and metadata


def test_the_server_metadata_are_answered(client):
    assert client.get("/v2").json == {
        "name": "resnet-serving",
        "version": __version__,
        "extensions": ["binary_tensor_data", "classification", "model_repository"],
    }
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    assert client.get("/v2/models").json == {"models": ["light"]}


@pytest.mark.parametrize("path", [LIGHT, f"{LIGHT}/versions/4"])
def test_the_model_metadata_list_inputs_and_outputs(client, path):
    assert client.get(f"{path}/ready").json == {"name": "light", "ready": True}
    assert client.get(path).json == {
        "name": "light",
        "versions": ["4"],
        "platform": "pytorch_eager",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
        ],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "logits", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }


def test_a_server_without_a_model_is_alive_but_not_ready(client_of):
    def fail(*_):
        raise BundleError("/secret/path is damaged")

    client = client_of(fail)
    assert client.get("/v2/health/live").status_code == 200
    check_error(client.get("/v2/health/ready"), 503, "the model cannot be served")
    check_error(client.get(f"{LIGHT}/ready"), 503, "Model with name light is not ready.")
    check_error(infer(client, image("")), 503, "the model cannot be served")
    (row,) = client.post("/v2/repository/index").json
    assert (row["state"], "/secret" in row["reason"]) == ("UNAVAILABLE", False)


def test_health_checks_are_not_logged(client, caplog):
    caplog.set_level("INFO")
    client.get("/v2/health/ready")
    assert not caplog.records


def test_the_repository_index_has_every_version(client_of):
    manifest = make_manifest(
        make_entry("light", 4),
        make_entry("light", 5),
        rejected=(RejectedVersion("light", 6, "/secret/6/model.pth is torn"),),
    )
    client = client_of(manifest=manifest)
    ready = [
        {"name": "light", "version": version, "state": "READY", "reason": ""}
        for version in ("4", "5")
    ]
    rows = client.post("/v2/repository/index").json
    assert rows[:2] == ready
    assert (rows[2]["version"], rows[2]["state"]) == ("6", "UNAVAILABLE")
    assert rows[2]["reason"] == "it was refused: model.pth is torn"
    assert client.post("/v2/repository/index", json={"ready": True}).json == ready
    check_error(client.post("/v2/repository/index", json={"ready": 1}), 400, "true or false")


@pytest.mark.parametrize("action", ["load", "unload"])
def test_clients_cannot_change_the_served_versions(client, action):
    response = client.post(f"/v2/repository/models/light/{action}")
    check_error(response, 400, f"to {action} light by request is not allowed")


# Inference


@pytest.mark.parametrize(
    "tensor",
    [
        image(b64(gray(150)), b64(gray(100))),
        image(b64(gray(150)), b64(gray(100)), parameters={"content_type": "base64"}),
        image([b64(gray(150))], [b64(gray(100))], shape=[2, 1]),
        pixels(of_grays(150, 100)),
        pixels(of_grays(150, 100), data=of_grays(150, 100).ravel().tolist()),
        pixels(of_grays(150, 100).astype(np.float32), "FP32"),
    ],
)
def test_images_are_answered_in_every_form(client, tensor):
    answer = infer(client, tensor, id="42")
    assert answer.status_code == 200, answer.text
    assert answer.json == {
        "model_name": "light",
        "model_version": "4",
        "id": "42",
        "outputs": [
            {
                "name": "scores",
                "datatype": "FP32",
                "shape": [2, 2],
                "data": scores(*BOTH, *DARK),
            },
            {"name": "logits", "datatype": "FP32", "shape": [2, 2], "data": [*BOTH, *DARK]},
        ],
    }
    assert answer.headers["X-Model-Version"] == "4"


@pytest.mark.parametrize(
    ("tensor", "data"),
    [
        ({"name": "image", "datatype": "BYTES"}, prefixed(gray(150), gray(100))),
        ({"name": "pixels", "datatype": "UINT8"}, of_grays(150, 100).tobytes()),
        ({"name": "pixels", "datatype": "FP32"}, of_grays(150, 100).astype("<f4").tobytes()),
    ],
)
def test_images_behind_the_json_are_answered(client, tensor, data):
    shape = [2] if tensor["name"] == "image" else [2, 4, 6, 3]
    answer = infer_binary(client, tensor | {"shape": shape}, data, outputs=[{"name": "logits"}])
    (output,) = answer.json["outputs"]
    assert output["data"] == [*BOTH, *DARK]
    assert "id" not in answer.json


def test_a_body_without_json_is_an_image(client):
    answer = client.post(f"{LIGHT}/infer", data=gray(150), headers={LENGTH: "0"})
    content, behind = read_binary(answer)
    assert [(each["name"], each["shape"]) for each in content["outputs"]] == [
        ("scores", [1, 2]),
        ("logits", [1, 2]),
    ]
    assert np.frombuffer(behind, "<f4")[:2].tolist() == scores(*BOTH)
    assert np.frombuffer(behind, "<f4")[2:].tolist() == BOTH


def test_outputs_are_binary_on_request(client):
    default = {"parameters": {"binary_data_output": True}}
    content, behind = read_binary(infer(client, image(b64(gray(150))), **default))
    assert [each["parameters"]["binary_data_size"] for each in content["outputs"]] == [8, 8]
    assert np.frombuffer(behind, "<f4")[2:].tolist() == BOTH

    mixed = [{"name": "scores", "parameters": {"binary_data": False}}, {"name": "logits"}]
    content, behind = read_binary(infer(client, image(b64(gray(150))), outputs=mixed, **default))
    assert content["outputs"][0]["data"] == scores(*BOTH)
    assert np.frombuffer(behind, "<f4").tolist() == BOTH


def test_a_classification_lists_the_highest_scores(client):
    outputs = [{"name": "logits", "parameters": {"classification": 1}}]
    tensor = image(b64(gray(150)), b64(gray(100)))
    assert infer(client, tensor, outputs=outputs).json["outputs"] == [
        {
            "name": "logits",
            "datatype": "BYTES",
            "shape": [2, 1],
            "data": ["2.000000:0:Bright", "5.000000:1:Dark"],
        }
    ]
    outputs[0]["parameters"] = {"classification": 9, "binary_data": True}
    content, behind = read_binary(infer(client, tensor, outputs=outputs))
    assert content["outputs"][0]["shape"] == [2, 2]
    first = b"2.000000:0:Bright"
    assert behind.startswith(struct.pack("<I", len(first)) + first)
    assert content["outputs"][0]["parameters"]["binary_data_size"] == len(behind)


def test_a_request_may_name_a_version(client):
    answer = infer(client, image(b64(gray(150))), path=f"{LIGHT}/versions/4")
    assert answer.json["model_version"] == "4"


def test_pixels_reach_the_network_unchanged(client_and_seen):
    client, seen = client_and_seen
    photo = photo_like(90, 61)
    infer(client, image(b64(encode(photo, "PNG"))))
    infer(client, pixels(np.asarray(photo)[None]))
    assert (seen[0] == seen[1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("flat", [True, False])
def test_many_pixels_reach_the_network_unchanged(client_and_seen, flat):
    """Megabytes of JSON are read in another thread and in slices."""
    client, seen = client_and_seen
    images = np.random.default_rng(7).integers(0, 256, (6, 224, 224, 3), np.uint8)
    tensor = pixels(images, data=(images.ravel() if flat else images).tolist())
    assert infer(client, tensor).status_code == 200
    assert (
        infer_binary(
            client, {key: tensor[key] for key in ("name", "datatype", "shape")}, images.tobytes()
        ).status_code
        == 200
    )
    assert {image.tobytes() for image in seen[:6]} == {image.tobytes() for image in seen[6:]}


def test_large_images_are_answered_in_rows_and_flat(client):
    large = b64(encode(photo_like(900, 700), "PNG"))
    for tensor in (image(large, large), image([large], [large], shape=[2, 1])):
        answer = infer(client, tensor, id="x" * 256)
        assert answer.status_code == 200, answer.text
    check_error(
        infer(client, tensor, id="x" * 257), 400, "'id' has 257 characters; the limit is 256"
    )


def test_a_deflated_body_is_inflated(client):
    body = zlib.compress(json.dumps({"inputs": [image(b64(gray(150)))]}).encode())
    headers = {"Content-Encoding": "deflate"}
    assert client.post(f"{LIGHT}/infer", data=body, headers=headers).status_code == 200


# Errors


def test_an_unknown_model_is_reported_in_kserves_words(client):
    text = "Model with name half does not exist."
    check_error(client.get("/v2/models/half"), 404, text)
    check_error(client.get("/v2/models/half/ready"), 404, text)
    check_error(client.post("/v2/models/half/infer", data=b"no JSON"), 404, text)
    text = "Model with name light and version 7 does not exist."
    check_error(client.post(f"{LIGHT}/versions/7/infer"), 404, text)


def test_an_unknown_path_and_a_wrong_method_have_this_form_too(client):
    check_error(client.get("/v2/nowhere"), 404, "there is nothing at /v2/nowhere")
    wrong = client.get(f"{LIGHT}/infer")
    check_error(wrong, 405, "GET is not allowed here; allowed are OPTIONS, POST")
    assert "POST" in wrong.headers["Allow"]


IMAGE_BASE64 = b64(gray(0))
BAD_REQUESTS = {
    "no inputs": ({}, "'inputs' is null; expected a list of one tensor, image or pixels"),
    "two inputs": (
        {"inputs": [image(IMAGE_BASE64), image(IMAGE_BASE64)]},
        "expected a list of one tensor",
    ),
    "a number as input": ({"inputs": [1]}, "expected a list of one tensor"),
    "an unknown input": ({"inputs": [image(name="x")]}, 'unexpected inference input "x"'),
    "a wrong datatype": (
        {"inputs": [image(datatype="UINT8")]},
        "input 'image' has the datatype \"UINT8\"; expected BYTES",
    ),
    "no shape": ({"inputs": [image(shape="x")]}, "input 'image' has the shape \"x\""),
    "a negative size": ({"inputs": [image(shape=[-1])]}, "has the shape [-1]"),
    "a half size": ({"inputs": [image(shape=[1.5])]}, "has the shape [1.5]"),
    "no dimension": (
        {"inputs": [pixels(np.uint8(0))]},
        "the request has 0 pictures; 1 to 128 are taken",
    ),
    "no picture": ({"inputs": [image(shape=[0])]}, "0 pictures; 1 to 128 are taken"),
    "too many pictures": ({"inputs": [image(shape=[10**9])]}, "pictures; 1 to 128 are taken"),
    "a giant dimension": (
        {"inputs": [image(shape=[10**30])]},
        "has the shape [1000000000000000000000000000000]; a dimension is at most 2,147,483,648",
    ),
    "digits that Python does not print": (
        {"inputs": [pixels(of_grays(1), shape=[1, 10**4000, 10**4000, 3])]},
        "has the shape [1, a number of very many digits, a number of very many digits, 3]",
    ),
    "many dimensions": ({"inputs": [image(shape=[1] * 400)]}, "400 dimensions; the limit is 8"),
    "a table of pictures": ({"inputs": [image(shape=[2, 2])]}, "shape [2, 2]; expected [n]"),
    "no data": ({"inputs": [image(data=None, shape=[1])]}, "'data' is null, no list"),
    "too little data": (
        {"inputs": [image(IMAGE_BASE64, shape=[2])]},
        "input 'image' has 1 elements; its shape [2] has 2",
    ),
    "ragged data": (
        {"inputs": [image([IMAGE_BASE64], [IMAGE_BASE64, IMAGE_BASE64], shape=[3])]},
        "lists at level 1 have from 1 to 2 elements",
    ),
    "a number as picture": ({"inputs": [image(1)]}, "input 'image' has 1; expected base64"),
    "no base64": ({"inputs": [image("no base64!")]}, "Unable to base64 decode"),
    "no picture file": ({"inputs": [image("aW1hZ2U=")]}, "image is neither JPEG"),
    "pixels of 4 channels": (
        {"inputs": [pixels(np.zeros((1, 2, 2, 4)))]},
        "pixels have the shape [1, 2, 2, 4]; expected [n, height, width, 3]",
    ),
    "pixels of another shape": (
        {"inputs": [pixels(np.zeros((1, 2, 3, 3)), shape=[1, 3, 2, 3])]},
        "input 'pixels' has data of shape [1, 2, 3, 3]; its shape is [1, 3, 2, 3]",
    ),
    "a pixel of 256": (
        {"inputs": [pixels(np.full((1, 1, 1, 3), 256))]},
        "pixels[0][0][0][0] is 256; expected a whole number from 0 to 255",
    ),
    "normalised pixels": (
        {"inputs": [pixels(np.full((1, 1, 1, 3), 0.5), "FP32")]},
        "pixels[0][0][0][0] is 0.5; expected a whole number",
    ),
    "binary without a header": (
        {"inputs": [image(parameters={"binary_data_size": 9}, shape=[1])]},
        "binary_data_size is 9, 0 bytes follow the JSON",
    ),
    "shared memory": (
        {"inputs": [image(IMAGE_BASE64, parameters={"shared_memory_region": "x"})]},
        "shared memory is not served",
    ),
    "wrong parameters": ({"inputs": [image(IMAGE_BASE64)], "parameters": 1}, "'parameters' is 1"),
    "a number as id": ({"inputs": [image(IMAGE_BASE64)], "id": 42}, "'id' is 42, no string"),
    "an unknown output": (
        {"inputs": [image(IMAGE_BASE64)], "outputs": [{"name": "x"}]},
        'unexpected inference output "x"; there are scores, logits',
    ),
    "an output twice": (
        {"inputs": [image(IMAGE_BASE64)], "outputs": [{"name": "scores"}, {"name": "scores"}]},
        "output 'scores' is asked for twice",
    ),
    "wrong outputs": ({"inputs": [image(IMAGE_BASE64)], "outputs": {"a": 1}}, "expected a list of"),
    "a wrong classification": (
        {
            "inputs": [image(IMAGE_BASE64)],
            "outputs": [{"name": "scores", "parameters": {"classification": "5"}}],
        },
        "output 'scores': classification is \"5\"; expected a number of labels",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_reported(client, name):
    body, text = BAD_REQUESTS[name]
    check_error(client.post(f"{LIGHT}/infer", json=body), 400, text)


IMAGE = {"name": "image", "datatype": "BYTES", "shape": [2]}
UINT8 = {"name": "pixels", "datatype": "UINT8", "shape": [2, 4, 6, 3]}
FP32 = UINT8 | {"datatype": "FP32"}
BAD_BINARIES = {
    "no elements": (IMAGE, b"", "breaks off in element 0 of 2: it has 0 bytes"),
    "half a length": (IMAGE, prefixed(b"x") + b"\0\0", "breaks off in element 1 of 2"),
    "half an element": (IMAGE, prefixed(b"x", b"abc")[:-1], "breaks off in element 1 of 2"),
    "bytes left over": (IMAGE, prefixed(b"x", b"y") + b"z", "has 1 bytes after its 2 elements"),
    "too few pixels": (UINT8, bytes(143), "143 bytes; UINT8 of shape [2, 4, 6, 3] has 144"),
    "too many pixels": (FP32, bytes(577), "577 bytes; FP32 of shape [2, 4, 6, 3] has 576"),
    "NaN": (FP32, np.full(144, np.nan, "<f4").tobytes(), "pixels[0][0][0][0] is nan"),
    "a wrong size": (
        UINT8 | {"parameters": {"binary_data_size": 99}},
        bytes(144),
        "binary_data_size is 99, 144 bytes follow the JSON",
    ),
    "no size": (UINT8 | {"parameters": {}}, bytes(144), "unexpected additional input data: 144"),
}


@pytest.mark.parametrize("name", BAD_BINARIES)
def test_a_bad_binary_tensor_is_reported(client, name):
    tensor, data, text = BAD_BINARIES[name]
    check_error(infer_binary(client, tensor, data), 400, text)


@pytest.mark.parametrize("length", ["x", "-1", "999999999", "9" * 5000])
def test_a_wrong_header_length_is_reported(client, length):
    response = client.post(f"{LIGHT}/infer", data=b"{}", headers={LENGTH: length})
    check_error(response, 400, f"{LENGTH} is '{length[:20]}'; the body has 2 bytes")


def test_limits_have_the_status_of_this_protocol(client_of):
    client = client_of(max_pixels="10000", max_body_mb="1", max_queue="2")
    check_error(infer(client, image(b64(png_bomb()))), 400, "169,000,000 pixels")
    check_error(infer(client, image(*[IMAGE_BASE64] * 3)), 400, "3 pictures; 1 to 2 are taken")
    check_error(infer(client, image("x" * 2_000_000)), 400, "the limit is 1,048,576")
    (servable,) = client.application.extensions["model_server"]._registry.live.values()
    servable.batcher._max_queue = 0
    full = infer(client, image(IMAGE_BASE64))
    check_error(full, 503, "the limit is 0")
    assert full.headers["Retry-After"] == "1"
