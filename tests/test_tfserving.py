"""TensorFlow Serving's REST API answers its guide's requests with images, through Flask's own client."""

import base64
import gzip
import json
import math

import numpy as np
import pytest
from PIL import Image

from app.control.manifest import RejectedVersion
from app.errors import BundleError
from tests.helpers import (
    STREET,
    encode,
    gray,
    make_entry,
    make_light,
    make_manifest,
    photo_like,
    png_bomb,
)

LIGHT = "/v1/models/light"
BOTH, DARK, BRIGHT = [2, 1], [0, 5], [5, 0]  # logits of bright_or_not: grays of 150, 100 and 255


def b64(data: bytes) -> dict:
    return {"b64": base64.b64encode(data).decode()}


def score(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def scores(*rows):
    """Return the scores of these logits."""
    return [pytest.approx([score(logit) for logit in row], abs=1e-6) for row in rows]


def pixels(level, height=3, width=5):
    return [[[level] * 3] * width] * height


def predict(client, body, model=LIGHT, verb="predict", **options):
    return client.post(f"{model}:{verb}", json=body, **options)


def check_error(response, status, *texts):
    """Assert that an answer is an error in TensorFlow Serving's form; return its text."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    assert list(response.json) == ["error"]
    for text in texts:
        assert text in response.json["error"]
    return response.json["error"]


# Status and metadata


def test_the_status_lists_the_versions(client):
    answer = client.get(LIGHT)
    status = {"error_code": "OK", "error_message": ""}
    assert answer.json == {
        "model_version_status": [{"version": "4", "state": "AVAILABLE", "status": status}],
        "name": "light",
        "ready": True,
        "id": "light",
        "object": "model",
    }
    assert answer.text.startswith('{\n "model_version_status": [\n')
    assert client.get(f"{LIGHT}/versions/4").json == answer.json


def test_all_models_are_listed_as_in_kserve_and_openai(client):
    assert client.get("/v1/models").json == {
        "models": ["light"],
        "object": "list",
        "data": [{"id": "light", "object": "model"}],
    }


def states(client, path=LIGHT):
    return {
        int(each["version"]): (each["state"], each["status"]["error_code"])
        for each in client.get(path).json["model_version_status"]
    }


def test_every_state_of_a_version_is_reported_without_paths_of_the_server(client_of):
    def load(_settings, _slot, entry):
        if entry.version == 3:
            raise BundleError("/secret/3 is damaged")
        return make_light(entry)

    entries = [make_entry("light", version) for version in (2, 3)]
    manifest = make_manifest(
        *entries, rejected=(RejectedVersion("light", 9, "/secret/9 is no model"),)
    )
    client = client_of(load, manifest)
    assert list(states(client).items()) == [
        (9, ("END", "FAILED_PRECONDITION")),
        (3, ("END", "FAILED_PRECONDITION")),
        (2, ("AVAILABLE", "OK")),
    ]
    only_9 = client.get(f"{LIGHT}/versions/9")
    assert [each["version"] for each in only_9.json["model_version_status"]] == ["9"]
    assert only_9.json["ready"] is False
    assert "/secret" not in client.get(LIGHT).text
    assert "the log of the server has the reason" in client.get(LIGHT).text


def test_the_metadata_list_inputs_and_outputs(client):
    answer = client.get(f"{LIGHT}/metadata")
    assert answer.headers["X-Model-Version"] == "4"
    assert answer.json["model_spec"] == {"name": "light", "signature_name": "", "version": "4"}
    signatures = answer.json["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"] == {
        "inputs": {
            "image_bytes": {
                "dtype": "DT_STRING",
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                "name": "image_bytes:0",
            }
        },
        "outputs": {
            "scores": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {
                    "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
                    "unknown_rank": False,
                },
                "name": "scores:0",
            }
        },
        "method_name": "tensorflow/serving/predict",
    }
    assert signatures["classify"]["method_name"] == "tensorflow/serving/classify"
    assert client.get(f"{LIGHT}/versions/4/metadata").json == answer.json


# Predict


@pytest.mark.parametrize(
    "form",
    [
        {"instances": [b64(gray(150)), b64(gray(100))]},
        {"instances": [{"image_bytes": b64(gray(150))}, {"image_bytes": b64(gray(100))}]},
        {"instances": [pixels(150), pixels(100)]},
        {"instances": [{"pixels": pixels(150)}, {"pixels": pixels(100.0)}]},
        {"signature_name": "serving_default", "instances": [b64(gray(150)), b64(gray(100))]},
        {"inputs": [b64(gray(150)), b64(gray(100))]},
        {"inputs": {"image_bytes": [b64(gray(150)), b64(gray(100))]}},
        {"inputs": {"pixels": [pixels(150), pixels(100)]}},
        {"inputs": [pixels(150), pixels(100)]},
    ],
)
def test_images_are_predicted_in_every_form(client, form):
    answer = predict(client, form)
    assert answer.status_code == 200, answer.text
    key = "predictions" if "instances" in form else "outputs"
    assert answer.json == {key: scores(BOTH, DARK)}
    assert answer.headers["X-Model-Name"] == "light"
    assert answer.headers["X-Model-Version"] == "4"


@pytest.mark.parametrize("inputs", [b64(gray(255)), {"image_bytes": b64(gray(255))}])
def test_a_single_image_needs_no_list_in_columnar_format(client, inputs):
    assert predict(client, {"inputs": inputs}).json == {"outputs": scores(BRIGHT)}


def test_a_signature_chooses_the_output(client):
    body = {"signature_name": "logits", "instances": [b64(gray(150))]}
    assert predict(client, body).json == {"predictions": [BOTH]}


def test_several_outputs_are_named(client):
    body = {"signature_name": "classify", "instances": [b64(gray(150)), b64(gray(100))]}
    names = ["Bright", "Dark"]
    assert predict(client, body).json == {
        "predictions": [{"classes": names, "scores": row} for row in scores(BOTH, DARK)]
    }
    columns = predict(client, {"signature_name": "classify", "inputs": b64(gray(150))})
    assert columns.json == {"outputs": {"classes": [names], "scores": scores(BOTH)}}


def test_numbers_are_written_with_the_fewest_digits_of_their_precision(client_of):
    """TensorFlow Serving writes 0.2, not float32's neighbor in float64, 0.20000000298."""

    def load(_settings, _slot, entry):
        return make_light(entry, lambda images: np.float32([[0.2, 5]] * len(images)))

    body = {"signature_name": "logits", "inputs": b64(gray(0))}
    assert predict(client_of(load), body).text == '{"outputs": [[0.2, 5.0]]}\n'


@pytest.mark.parametrize("path", [f"{LIGHT}/versions/4", "/v1/models/light/labels/stable"])
def test_a_request_may_name_a_version_or_a_label(client_of, path):
    manifest = make_manifest(make_entry("light", 4), labels={"light": {"stable": 4}})
    client = client_of(manifest=manifest)
    assert predict(client, {"instances": [b64(gray(255))]}, path).json["predictions"]
    assert client.get(path).json["model_version_status"][0]["version"] == "4"
    assert client.get(f"{path}/metadata").json["model_spec"]["version"] == "4"


def test_the_case_of_a_path_does_not_matter(client):
    for path in ("/V1/Models/light:PREDICT", "/v1/MODELS/light/Versions/4:Predict"):
        assert client.post(path, json={"inputs": b64(gray(255))}).status_code == 200
    assert client.get("/V1/models/light").json == client.get(LIGHT).json


def test_curls_default_content_type_is_accepted(client):
    """Curl labels every body of -d as a form."""
    kind = "application/x-www-form-urlencoded"
    body = json.dumps({"instances": [b64(gray(255))]})
    assert client.post(f"{LIGHT}:predict", data=body, content_type=kind).status_code == 200


def test_base64_of_either_alphabet_is_read(client):
    text = base64.urlsafe_b64encode(STREET.read_bytes()).decode().rstrip("=")
    assert predict(client, {"instances": [{"b64": text}]}).status_code == 200
    wrapped = base64.encodebytes(STREET.read_bytes()).decode()
    assert predict(client, {"instances": [{"b64": wrapped}]}).status_code == 200


def test_pixels_are_answered_like_the_same_image_file(client_and_seen):
    """The array that reaches the network is exactly the same."""
    client, seen = client_and_seen
    image = photo_like(90, 61)
    predict(client, {"instances": [b64(encode(image, "PNG"))]})
    predict(client, {"instances": [np.asarray(image).tolist()]})
    assert (seen[0] == seen[1]).all()


# Large documents, which are read aside and in slices


def noise(*shape):
    """Return pixels whose JSON is too large in a batch to be read on the hub."""
    return np.random.default_rng(7).integers(0, 256, shape, np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [
        lambda array: {"instances": array.tolist()},
        lambda array: {"instances": array.astype(float).tolist()},
        lambda array: {"instances": [{"pixels": picture.tolist()} for picture in array]},
        lambda array: {"inputs": array.tolist()},
        lambda array: {"inputs": {"pixels": array.tolist()}},
    ],
)
def test_many_pixels_reach_the_network_unchanged(client_and_seen, form):
    """Nearly five MiB of JSON are cut into slices within images, rows and pixels."""
    client, seen = client_and_seen
    images = noise(4, 224, 260, 3)
    answer = predict(client, form(images))
    assert answer.status_code == 200, answer.text
    for photo in images:
        file = encode(Image.fromarray(photo), "PNG")
        predict(client, {"instances": [b64(file)]})
    assert {image.tobytes() for image in seen[:4]} == {image.tobytes() for image in seen[4:]}


def spoil(array, *place, value):
    """Return nested lists with one value replaced."""
    nested = array.tolist()
    inner = nested
    for index in place[:-1]:
        inner = inner[index]
    inner[place[-1]] = value
    return nested


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((1, 222, 100, 2), 300, "pixels[1][222][100][2] is 300; expected a whole number"),
        ((1, 222, 100, 2), -1, "pixels[1][222][100][2] is -1;"),
        ((1, 222, 100, 2), "1", "no nested lists of numbers, all of one shape"),
        ((1, 222, 100, 2), None, "no nested lists of numbers, all of one shape"),
        ((1, 222, 100, 2), [], "no nested lists of numbers, all of one shape"),
        ((1, 222, 100), [1, 2], "no nested lists of numbers, all of one shape"),
        ((1, 222), [], "no nested lists of numbers, all of one shape"),
        ((1, 222, 100, 2), float("nan"), "JSON Parse error: JSON is malformed"),
        ((1, 222, 100, 2), 10**400, "hundreds of digits"),
    ],
)
def test_a_wrong_value_among_many_pixels_is_reported(client, place, value, message):
    body = json.dumps({"instances": spoil(noise(2, 224, 260, 3), *place, value=value)})
    check_error(client.post(f"{LIGHT}:predict", data=body), 400, message)


def test_a_large_image_is_read_from_base64_of_every_kind(client_and_seen):
    client, seen = client_and_seen
    file = encode(Image.fromarray(noise(700, 900, 3)), "PNG")
    plain = base64.b64encode(file).decode()
    texts = [plain, plain.rstrip("="), base64.urlsafe_b64encode(file).decode(), "\n ".join(plain)]
    texts.append(base64.encodebytes(file).decode())
    assert len(plain) > 2_000_000, "else it is no more than a slice or two"
    for text in texts:
        answer = predict(client, {"instances": [{"b64": text}]})
        assert answer.status_code == 200, answer.text
    assert len({image.tobytes() for image in seen}) == 1


@pytest.mark.parametrize(
    "text", ["A" * 1_500_001, "A" * 1_048_576 + "=A", "A" * 1_500_000 + "§", "A==A" * 300_000]
)
def test_long_text_that_is_not_base64_is_reported(client, text):
    check_error(predict(client, {"instances": [{"b64": text}]}), 400, "Unable to base64 decode")


def test_a_list_of_other_values_has_a_limit(client):
    body = '{"instances": [' + '"",' * 900_000 + "0]}"
    check_error(client.post(f"{LIGHT}:predict", data=body), 400, "800,000 values that are not all")
    body = "{" + ",".join(f'"{number}": 0' for number in range(30_000)) + "}"
    check_error(
        client.post(f"{LIGHT}:predict", data=body), 400, "30,000 names; the limit is 20,000"
    )


def test_an_answer_has_a_limit_of_rows(client_of):
    def load(_settings, _slot, entry):
        logits = np.zeros(10_000, np.float32)
        names = tuple(map(str, range(10_000)))
        return make_light(entry, lambda images: np.stack([logits] * len(images)), names)

    client = client_of(load)
    assert len(predict(client, {"instances": [b64(gray(0))] * 50}).json["predictions"]) == 50
    answer = predict(client, {"instances": [b64(gray(0))] * 51})
    check_error(answer, 422, "the answer would have 510,000 scores; the limit is 500,000")


# Classify and regress


def test_examples_are_classified_with_the_highest_score_first(client):
    body = {"examples": [{"image_bytes": b64(gray(150))}, {"image_bytes": [b64(gray(100))]}]}
    both, dark = ([pytest.approx(score(logit), abs=1e-6) for logit in row] for row in (BOTH, DARK))
    assert predict(client, body, verb="classify").json == {
        "results": [
            [["Bright", both[0]], ["Dark", both[1]]],
            [["Dark", dark[1]], ["Bright", dark[0]]],
        ]
    }


def test_the_context_applies_to_every_example(client):
    body = {
        "signature_name": "classify",
        "context": {"image_bytes": b64(gray(100))},
        "examples": [{"caption": "seaside"}, {"caption": "mountains"}],
    }
    first, second = predict(client, body, verb="classify").json["results"]
    assert first == second
    assert [label for label, _ in first] == ["Dark", "Bright"]


def test_a_regression_is_refused_in_tensorflow_servings_words(client):
    text = check_error(predict(client, {"examples": [{"x": 1.0}]}, verb="regress"), 400)
    assert text == (
        "Expected regression signature method_name to be tensorflow/serving/regress."
        " Was: tensorflow/serving/predict"
    )


# gzip


def post_gzip(client, data, encoding="gzip"):
    headers = {"Content-Encoding": encoding}
    return client.post(f"{LIGHT}:predict", data=data, headers=headers)


def test_a_gzip_body_is_inflated(client):
    body = json.dumps({"instances": [b64(gray(255))]}).encode()
    assert post_gzip(client, gzip.compress(body)).json == {"predictions": scores(BRIGHT)}


def test_a_gzip_bomb_is_refused_with_the_limit(client_of):
    client = client_of(max_body_mb="1")
    text = check_error(post_gzip(client, gzip.compress(bytes(50_000_000))), 400)
    assert "inflates to more than the limit of 1,048,576" in text


def test_damaged_gzip_is_reported(client):
    data = gzip.compress(b"{}" * 500)
    check_error(post_gzip(client, data[:-9]), 400, "breaks off")
    check_error(post_gzip(client, b"{}"), 400, "damaged")
    check_error(post_gzip(client, b"{}", "br"), 400, "'br'; accepted are gzip, deflate")


# Errors


def test_an_unknown_model_is_reported_in_tensorflow_servings_words(client):
    body = {"instances": [1.0, 5.0]}
    text = check_error(predict(client, body, "/v1/models/half"), 404)
    assert text == "Servable not found for request: Latest(half)"
    text = check_error(predict(client, body, "/v1/models/half/versions/7"), 404)
    assert text == "Servable not found for request: Specific(half, 7)"
    text = check_error(predict(client, body, f"{LIGHT}/versions/7"), 404)
    assert text == "Servable not found for request: Specific(light, 7)"
    check_error(client.get(f"{LIGHT}/versions/7/metadata"), 404, "Specific(light, 7)")
    text = check_error(predict(client, body, f"{LIGHT}/labels/canary"), 400)
    assert text == "Unrecognized servable version label: canary"
    check_error(client.get(f"{LIGHT}/labels/canary"), 400, "version label: canary")
    check_error(client.get("/v1/models/half"), 404, "Could not find any versions of model half")
    check_error(client.get(f"{LIGHT}/versions/7"), 404, "Could not find version 7 of model light")


def test_an_unknown_model_is_refused_before_the_body_is_read(client):
    check_error(client.post("/v1/models/half:predict", data=b"no JSON"), 404, "Latest(half)")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/foo"),
        ("GET", "/v1/foo"),
        ("GET", "/v1/models/light:predict"),
        ("POST", "/v1/models/light"),
        ("POST", "/v1/models/light:explain"),
        ("POST", "/v1/models/light/versions/x:predict"),
        ("PUT", "/v1/models/light:predict"),
        ("DELETE", "/v1/models/light"),
        ("GET", "/v1"),
    ],
)
def test_an_unknown_path_is_reported(client, method, path):
    text = check_error(client.open(path, method=method), 400)
    assert text == f"Malformed request: {method} {path}"


def test_a_missing_name_and_a_huge_version_are_reported(client):
    check_error(client.get("/v1/models/versions/3"), 400, "Missing model name in request.")
    huge = f"{LIGHT}/versions/{'9' * 30}"
    text = f"Failed to convert version: {'9' * 30} to numeric."
    assert check_error(predict(client, {}, huge), 400) == text


BAD_BODIES = {
    "": "JSON Parse error: The document is empty",
    "{": "JSON Parse error: Expecting property name",
    '{"instances": [1, 2': "JSON Parse error: ",
    "\xff": "JSON Parse error: ",
    "[" * 100_000: "JSON Parse error: it is nested too deeply",
    "[]": "Is not object",
    "{}": "Missing 'inputs' or 'instances' key",
    '{"instances": [1], "inputs": 1}': "expecting only one of 'inputs' or 'instances'",
    '{"instances": 1}': "Expecting 'instances' to be an list/array",
    '{"instances": []}': "No values in 'instances' array",
    '{"instances": [{"b64": "no base64!"}]}': "Unable to base64 decode",
    '{"instances": [{"b64": 1}]}': "keys must be equal to: image_bytes",
    '{"instances": [{"image": {"b64": ""}}]}': "keys must be equal to: image_bytes",
    '{"instances": ["text"]}': 'JSON Value: "text" is not of expected type: string',
    '{"instances": [1.0]}': "JSON Value: 1.0 is not of expected type: string",
    '{"instances": [{"b64": ""}, {"image_bytes": 1}]}': "Expecting value/list but got object",
    '{"instances": [{"image_bytes": 1}, 1]}': "Expecting object but got value/list at item 1",
    '{"instances": [{"b64": ""}]}': "image is empty: 0 bytes",
    '{"instances": [{"b64": "aW1hZ2U="}]}': "image is neither JPEG",
    '{"inputs": {"image": 1}}': "Missing named input: image_bytes in 'inputs' object.",
    '{"inputs": []}': "the request has 0 pictures; 1 to 128 are taken",
    '{"signature_name": 1, "inputs": 1}': "'signature_name' key must be a string value.",
    '{"signature_name": "x", "inputs": 1}': 'Serving signature name: "x" not found',
    '{"instances": [[[[1, 2, 3], [1, 2]]]]}': "lists at level 3 have from 2 to 3 elements",
    '{"instances": [[[[1, 2, 3], 4]]]}': "lists and values are mixed at level 3",
    '{"instances": [[[1, 2, 3]]]}': "pixels have the shape [1, 1, 3]; expected [n, height",
    '{"instances": [[[[1, 2, 3, 4]]]]}': "the shape [1, 1, 1, 4]; expected [n, height, width, 3]",
    '{"instances": [[[]]]}': "pixels have the shape [1, 1, 0]",
    '{"instances": [[[[1, 2, 300]]]]}': "pixels[0][0][0][2] is 300; expected a whole number from",
    '{"instances": [[[[1, 2.5, 3]]]]}': "pixels[0][0][0][1] is 2.5;",
    '{"instances": [[[[-1, 2, 3]]]]}': "pixels[0][0][0][0] is -1;",
    '{"instances": [[[[NaN, 2, 3]]]]}': "pixels[0][0][0][0] is nan;",
    '{"instances": [[[[1, Infinity, 3]]]]}': "pixels[0][0][0][1] is inf;",
    '{"instances": [[[[1, "2", 3]]]]}': 'pixels[0][0][0][1] is "2", no number',
    '{"instances": [[[[1, null, 3]]]]}': "pixels[0][0][0][1] is null, no number",
    '{"instances": [[[[1, 2, ' + "9" * 400 + "]]]]}": "hundreds of digits",
    "[" + '{"a":1},' * 9 + "1]": "JSON Value: a list of 10 Is not object",
}


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: body[:50])
def test_a_bad_body_is_reported(client, body):
    data = body.encode("latin-1")
    check_error(client.post(f"{LIGHT}:predict", data=data), 400, BAD_BODIES[body])


BAD_EXAMPLES = {
    "{}": "key 'examples' is expected and was not found",
    '{"examples": 1}': "Expecting 'examples' value to be an list/array",
    '{"examples": []}': "'examples' value is an empty array",
    '{"examples": [1]}': "Example must be JSON object but got 1",
    '{"examples": [{}], "context": 1}': "Example must be JSON object but got 1",
    '{"examples": [{"x": 1}]}': "Feature: image_bytes (data type: string) is required",
    '{"examples": [{"x": 1}], "context": {"x": 1}}': "Feature: x is in the context and in an",
    '{"examples": [{"image_bytes": "text"}]}': "is not of expected type: string",
}


@pytest.mark.parametrize("body", BAD_EXAMPLES)
def test_bad_examples_are_reported(client, body):
    check_error(client.post(f"{LIGHT}:classify", data=body), 400, BAD_EXAMPLES[body])


def test_one_bad_image_fails_all_and_leaves_no_queue_place_occupied(client_of):
    client = client_of(max_queue="4")
    for _ in range(3):
        bad = {"instances": [b64(gray(0)), b64(b"text"), b64(gray(0)), b64(gray(0))]}
        check_error(predict(client, bad), 400, "image is neither JPEG")
        good = {"instances": [b64(gray(255))] * 4}
        assert predict(client, good).json == {"predictions": scores(*[BRIGHT] * 4)}


def test_more_images_than_the_queue_holds_are_refused_with_both_numbers(client_of):
    client = client_of(max_queue="4")
    body = {"instances": [b64(gray(0))] * 5}
    check_error(predict(client, body), 400, "the request has 5 pictures; 1 to 4 are taken")


def test_size_limits_have_the_status_of_this_protocol(client_of):
    client = client_of(max_pixels="10000", max_body_mb="1")
    check_error(predict(client, {"inputs": b64(png_bomb())}), 400, "169,000,000 pixels")
    check_error(predict(client, {"inputs": [pixels(1, 101, 100)]}), 400, "10,100 pixels")
    check_error(predict(client, {"inputs": "x" * 2_000_000}), 400, "the limit is 1,048,576")
    tiff = b64(b"II*\x00" + bytes(50))
    check_error(predict(client, {"inputs": tiff}), 400, "image is TIFF; accepted are JPEG")


@pytest.mark.parametrize("one", ["[],", "{},", "0,"])
def test_very_many_values_are_refused_before_they_take_memory(client, one):
    body = '{"instances": [' + one * 4_100_000 + "0]}"
    response = client.post(f"{LIGHT}:predict", data=body)
    check_error(response, 400, "values; the limit is 4,000,000. Send pictures as files")


def test_a_full_queue_and_a_missing_model_are_reported(client, client_of):
    server = client.application.extensions["model_server"]
    (servable,) = server._registry.live.values()
    servable.batcher._max_queue = 0
    full = predict(client, {"inputs": b64(gray(0))})
    check_error(full, 429, "the limit is 0")
    assert full.headers["Retry-After"] == "1"

    def fail(*_):
        raise BundleError("/secret/path is damaged")

    failed = client_of(fail)
    check_error(predict(failed, {"inputs": b64(gray(0))}), 503, "the model cannot be served")
    check_error(failed.get(f"{LIGHT}/metadata"), 503)
    assert failed.get(LIGHT).json["ready"] is False


def test_the_native_routes_keep_their_form(client):
    assert client.get("/nowhere").content_type == "application/problem+json"
    assert client.get("/model_predict").status_code == 405


def test_an_unexpected_error_hides_its_details(client, caplog):
    server = client.application.extensions["model_server"]
    server.predict = lambda *_, **__: 1 / 0
    check_error(predict(client, {"inputs": b64(gray(0))}), 500, "under this request id")
    assert "ZeroDivisionError" in caplog.text


def test_a_non_finite_answer_is_written_as_a_token(client_of):
    def load(_settings, _slot, entry):
        return make_light(entry, lambda images: np.float32([[np.nan, np.inf]] * len(images)))

    body = {"signature_name": "logits", "inputs": b64(gray(0))}
    assert "[[NaN, Infinity]]" in predict(client_of(load), body).text
