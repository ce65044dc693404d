"""POST /predict accepts every form of input and every option, and reports errors for each image."""

import base64
import io
import json
import math
import time
from urllib.parse import quote

import pytest
import requests

from app.errors import BundleError
from tests import reference
from tests.helpers import (
    SAMPLES,
    STREET,
    check_problem,
    encode,
    gray,
    make_entry,
    make_light,
    make_manifest,
    make_seeing,
    photo_like,
)

BRIGHT, MIXED, DARK, BLACK = gray(255), gray(150), gray(90), gray(0)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def send(client, *images: bytes, query: str = "", path: str = "/predict", **fields: object):
    """Post images as a form's files, with options in its fields."""
    files = [(io.BytesIO(data), f"{place}.png") for place, data in enumerate(images)]
    return client.post(f"{path}{query}", data={"image": files, **fields})


def send_json(client, content: object):
    return client.post("/predict", json=content)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def labels(response, place: int = 0) -> list[str]:
    assert response.status_code == 200, response.text
    return [label["label"] for label in response.json["images"][place]["labels"]]


def test_the_answer_has_the_strongest_label_first_with_score_and_logit(client):
    answer = send(client, MIXED).json
    assert answer["model"] == {"name": "light", "version": 4}
    (image,) = answer["images"]
    assert image["labels"] == [
        {"label": "Bright", "score": pytest.approx(sigmoid(2), abs=1e-6), "logit": 2},
        {"label": "Dark", "score": pytest.approx(sigmoid(1), abs=1e-6), "logit": 1},
    ]
    assert (image["name"], image["bytes"]) == ("0.png", len(MIXED))
    assert (image["width"], image["height"], image["batch"]) == (60, 40, 1)
    assert "scores" not in image
    assert "error" not in image


def test_the_answer_and_the_header_hold_the_times(client):
    response = client.post(
        "/predict",
        data=DARK,
        content_type="image/png",
        headers={"X-Upload-Time": "1.250", "X-Request-ID": "order-4711"},
    )
    answer = response.json
    assert answer["request_id"] == response.headers["X-Request-ID"] == "order-4711"
    times = dict(part.split(";dur=") for part in response.headers["Server-Timing"].split(", "))
    assert list(times) == ["upload", "decode", "queue", "forward", "total"]
    assert answer["timings_ms"]["upload"] == float(times["upload"]) == 1250
    own = answer["images"][0]["timings_ms"]
    assert [own["decode"], own["queue"], own["forward"]] == [
        float(times[name]) for name in ("decode", "queue", "forward")
    ]
    assert answer["timings_ms"]["total"] >= 1250 + sum(own.values())
    assert response.headers["X-Model-Version"] == "4"


@pytest.mark.parametrize(
    "upload_time", ["", "-1.000", "1e9", "nan", "soon", "1.0000", "99999999.000"]
)
def test_an_upload_time_without_a_gateway_is_ignored(client, upload_time):
    response = client.post(
        "/predict", data=DARK, content_type="image/png", headers={"X-Upload-Time": upload_time}
    )
    assert response.json["timings_ms"]["upload"] == 0


@pytest.mark.parametrize(
    "request_of",
    [
        lambda data: {"data": data, "content_type": "image/png"},
        lambda data: {"data": data, "content_type": "application/octet-stream"},
        lambda data: {"data": {"b64": b64(data)}, "content_type": "multipart/form-data"},
        lambda data: {"data": {"b64": (io.BytesIO(b64(data).encode()), "picture.b64")}},
        lambda data: {"data": {"b64": b64(data)}},
        lambda data: {"data": {"b64": f"data:image/png;base64,{b64(data)}"}},
        # As clients write it that forget to escape "+".
        lambda data: {
            "data": f"b64={b64(data)}",
            "content_type": "application/x-www-form-urlencoded",
        },
        lambda data: {"json": {"images": [{"b64": b64(data)}]}},
        lambda data: {"json": {"images": [{"b64": base64.urlsafe_b64encode(data).decode()}]}},
    ],
)
def test_an_image_may_be_the_body_or_base64(client, request_of):
    data = encode(photo_like().point(lambda level: level // 16 + 64), "PNG")
    assert b"+" in base64.b64encode(data)
    response = client.post("/predict", **request_of(data))
    assert labels(response) == ["Dark"]
    assert response.json["images"][0]["bytes"] == len(data)
    assert response.json["images"][0]["name"] == "image 1"


def test_many_images_are_answered_in_their_order(client):
    response = send(client, BRIGHT, DARK, BLACK, MIXED)
    found = [labels(response, place) for place in range(4)]
    assert found == [["Bright"], ["Dark"], [], ["Bright", "Dark"]]
    response = send_json(client, {"images": [{"b64": b64(data)} for data in (DARK, BRIGHT)]})
    assert [labels(response, place) for place in range(2)] == [["Dark"], ["Bright"]]
    assert [image["name"] for image in response.json["images"]] == ["image 1", "image 2"]


def test_one_bad_image_is_its_own_error(client):
    answer = send(client, BRIGHT, b"no picture", DARK).json["images"]
    assert [image.get("labels") is None for image in answer] == [False, True, False]
    error = answer[1]["error"]
    assert (error["status"], error["code"]) == (400, "unreadable_image")
    assert 'begins with "no picture"' in error["detail"]
    assert answer[1].keys() == {"name", "bytes", "error"}
    mixed = {"images": [{"b64": "§"}, {"b64": b64(DARK)}]}
    answer = send_json(client, mixed).json["images"]
    assert answer[0]["error"]["code"] == "unreadable_image"
    assert answer[1]["labels"][0]["label"] == "Dark"


def test_the_answer_is_the_first_error_if_every_image_is_bad(client_of):
    client = client_of(max_pixels="10000")
    large = encode(photo_like(200, 100), "PNG")
    response = send(client, large, b"no picture")
    assert "20,000 pixels" in check_problem(response, 413, "image_too_large")
    codes = [image["error"]["code"] for image in response.json["images"]]
    assert codes == ["image_too_large", "unreadable_image"]
    check_problem(send_json(client, {"images": [{"b64": "&"}]}), 400, "unreadable_image")


def test_a_score_threshold_replaces_the_models_rule(client):
    assert labels(send(client, MIXED, threshold="0.8")) == ["Bright"]
    assert labels(send(client, MIXED, threshold="0.9")) == []
    assert labels(send(client, BLACK, threshold="0.49")) == ["Dark", "Bright"]
    assert labels(send(client, BLACK, threshold="0.5")) == []


def test_top_k_returns_the_strongest_that_pass_a_given_threshold(client):
    assert labels(send(client, DARK, top_k="1")) == ["Dark"]
    assert labels(send(client, DARK, top_k="2")) == ["Dark", "Bright"]
    assert labels(send(client, DARK, top_k="100")) == ["Dark", "Bright"]
    assert labels(send(client, DARK, top_k="2", threshold="0.6")) == ["Dark"]
    assert labels(send(client, MIXED, top_k="1", threshold="0.6")) == ["Bright"]


def test_all_scores_come_in_the_models_order_on_request(client):
    (image,) = send(client, DARK, scores="all").json["images"]
    assert [(score["label"], score["logit"]) for score in image["scores"]] == [
        ("Bright", 0),
        ("Dark", 5),
    ]
    assert [score["score"] for score in image["scores"]] == pytest.approx(
        [0.5, sigmoid(5)], abs=1e-6
    )


def test_options_may_be_in_the_query_the_form_or_the_json(client):
    assert labels(send(client, MIXED, query="?top_k=1")) == ["Bright"]
    content = {"images": [{"b64": b64(MIXED)}], "top_k": 1}
    assert labels(send_json(client, content)) == ["Bright"]
    response = client.post("/predict", data={"b64": b64(MIXED), "top_k": "1"})
    assert labels(response) == ["Bright"]


@pytest.mark.parametrize(
    ("query", "fields", "said"),
    [
        ("?threshold=2", {}, 'threshold is "2": expected `float` <= 1.0'),
        ("?threshold=nan", {}, 'threshold is "nan"'),
        ("?threshold=high", {}, 'threshold is "high": expected `float'),
        ("?top_k=", {}, 'top_k is ""'),
        ("", {"top_k": "0"}, 'top_k is "0": expected `int` >= 1'),
        ("?top_k=1.5", {}, 'top_k is "1.5"'),
        ("?top_k=true", {}, 'top_k is "true"'),
        ("?scores=some", {}, 'scores is "some"'),
        ("?version=0", {}, 'version is "0"'),
        ("?version=null", {}, 'version is "null": leave it out instead'),
        ("", {"threshold": "Null"}, 'threshold is "Null": leave it out instead'),
        (
            "?treshold=0.5",
            {},
            'there is no option "treshold"; there are heatmap, heatmap_top_k, model, scores, threshold',
        ),
        ("", {"threshhold": "0.5"}, 'there is no option "threshhold"'),
        ("?top_k=1", {"top_k": "1"}, "the option top_k is given twice"),
        ("?top_k=1&top_k=2", {}, "the option top_k is given twice"),
    ],
)
def test_an_invalid_option_is_named_with_its_value(client, query, fields, said):
    response = send(client, MIXED, query=query, **fields)
    assert said in check_problem(response, 422, "invalid_option")


def test_an_empty_field_of_a_form_is_ignored(client):
    """Browsers send every field of a form, even empty ones."""
    response = client.post("/predict?top_k=1", data={"b64": b64(MIXED), "top_k": ""})
    assert labels(response) == ["Bright"]
    response = client.post("/predict", data={"b64": b64(MIXED), "treshold": ""})
    assert 'no option "treshold"' in check_problem(response, 422, "invalid_option")
    empty = {"model": "", "version": "", "threshold": "", "top_k": "", "scores": "", "heatmap": ""}
    form = requests.Request("POST", "http://a", files={"image": MIXED}, data=empty).prepare()
    kind = form.headers["Content-Type"]  # Werkzeug's own forms break on an empty field
    response = client.post("/predict", data=form.body, content_type=kind)
    assert labels(response) == ["Bright", "Dark"]
    response = client.post("/predict", data={"b64": b64(MIXED), **empty})
    assert labels(response) == ["Bright", "Dark"]


def test_a_number_in_json_may_not_be_text(client):
    content = {"images": [{"b64": b64(MIXED)}], "top_k": 1.0}
    assert labels(send_json(client, content)) == ["Bright"]
    content["top_k"] = "1"
    detail = check_problem(send_json(client, content), 422, "invalid_option")
    assert detail == 'top_k is "1": expected `int | null`, got `str`'


def test_a_missing_model_or_version_is_named(client):
    assert labels(send(client, DARK, model="light", version="4")) == ["Dark"]
    detail = check_problem(send(client, DARK, model="heavy"), 404, "unknown_model")
    assert detail == "there is no model 'heavy'; there is light"
    detail = check_problem(send(client, DARK, version="5"), 404, "unknown_model")
    assert detail == "light has no version 5; it has 4"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"images": 3}', "Expected `array`, got `int`"),
        (b'{"images": ["abc"]}', "at `$[0]`"),
        (b'{"images": [{"b64": 5}]}', "at `$[0].b64`"),
        (b'{"images": [{"b46": "x"}]}', "unknown field `b46`"),
        (b'{"images": [{}]}', "images[0] needs one of 'b64' and 'url'"),
        (b'{"images": [{"b64": null, "url": "y"}]}', "Expected `str`, got `null`"),
        (b'{"images": [{"b64": "x", "url": "y"}]}', "images[0] needs one of"),
        (b'{"images": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "JSON"),
    ],
)
def test_malformed_json_is_reported_with_the_location(client, content, said):
    response = client.post("/predict", data=content, content_type="application/json")
    assert said in check_problem(response, 400, "malformed_request")


@pytest.mark.parametrize("content", [{}, {"images": []}])
def test_json_without_images_is_reported_with_the_remedy(client, content):
    assert '{"images": [{"b64"' in check_problem(send_json(client, content), 400, "missing_image")


def test_a_long_option_is_refused_before_it_is_read(client):
    content = {"images": [{"b64": b64(DARK)}], "model": "x" * 2000}
    detail = check_problem(send_json(client, content), 422, "invalid_option")
    assert detail == '"model" is longer than 1000 bytes'


def test_a_form_without_an_image_is_reported_with_its_fields(client):
    response = client.post("/predict", data={"top_k": "1"}, content_type="multipart/form-data")
    assert "no file 'image'; it has top_k" in check_problem(response, 400, "missing_image")
    response = client.post("/predict", data={"file": (io.BytesIO(DARK), "a.png")})
    assert "a file 'file'; files are called 'image'" in check_problem(
        response, 400, "missing_image"
    )
    response = client.post("/predict", data={"image": "x"}, content_type="multipart/form-data")
    assert "-F image=@picture.jpg" in check_problem(response, 400, "missing_image")
    # The default type of curl --data-binary.
    response = client.post("/predict", data=DARK, content_type="application/x-www-form-urlencoded")
    assert "-H 'Content-Type: image/jpeg'" in check_problem(response, 400, "missing_image")


def test_another_type_of_body_is_refused_with_the_accepted_types(client):
    response = client.post("/predict", data=DARK, content_type="text/plain")
    assert "found 'text/plain'" in check_problem(response, 415, "unsupported_type")
    response = client.post("/predict", data=DARK)
    assert "found no content type" in check_problem(response, 415, "unsupported_type")


def test_more_images_than_the_queue_holds_are_refused_together(client_of):
    client = client_of(max_queue="2")
    assert "3 pictures; 1 to 2" in check_problem(
        send(client, *[DARK] * 3), 400, "malformed_request"
    )
    content = {"images": [{"b64": "x"}] * 3}
    assert "3 pictures" in check_problem(send_json(client, content), 400, "malformed_request")
    fields = "&".join(["top_k=1"] * 200)
    kind = "application/x-www-form-urlencoded"
    response = client.post("/predict", data=fields, content_type=kind)
    assert "over 102 fields" in check_problem(response, 400, "malformed_request")


def test_urls_are_off_unless_their_hosts_are_named(client):
    content = {"images": [{"url": "http://example.org/a.jpg"}, {"b64": b64(DARK)}]}
    first, second = send_json(client, content).json["images"]
    assert (first["error"]["status"], first["error"]["code"]) == (422, "url_refused")
    assert "off here" in first["error"]["detail"]
    assert first["name"] == "http://example.org/a.jpg"
    assert second["labels"]


def test_a_full_queue_is_reported_with_retry_after(client_of):
    client = client_of(max_queue="2")
    server = client.application.extensions["model_server"]
    (servable,) = server._registry.live.values()
    servable.batcher._max_queue = 0
    response = send(client, DARK)
    check_problem(response, 429, "queue_full")
    assert response.headers["Retry-After"] == "1"


WAYS_TO_NAME_A_MODEL = {
    "in the query": lambda client, path, name: send(
        client, DARK, path=path, query=f"?model={name}"
    ),
    "in the form": lambda client, path, name: send(client, DARK, path=path, model=name),
    "in the JSON": lambda client, path, name: client.post(
        path, json={"images": [{"b64": b64(DARK)}], "model": name}
    ),
}


@pytest.mark.parametrize("way", WAYS_TO_NAME_A_MODEL)
@pytest.mark.parametrize("path", ["/predict", "/predict/heatmap"])
def test_a_full_model_does_not_block_another_one(client_of, path, way):
    manifest = make_manifest(make_entry("full", 1), make_entry("idle", 1))
    client = client_of(lambda _settings, _slot, entry: make_seeing(entry), manifest)
    versions = client.application.extensions["model_server"]._registry
    versions.of_model("full")[1].batcher._max_queue = 0

    ask = WAYS_TO_NAME_A_MODEL[way]
    assert ask(client, path, "idle").status_code == 200
    check_problem(ask(client, path, "full"), 429, "queue_full")


@pytest.mark.parametrize("way", WAYS_TO_NAME_A_MODEL)
@pytest.mark.parametrize("path", ["/predict", "/predict/heatmap"])
def test_a_failed_default_does_not_block_another_model(client_of, path, way):
    def load(_settings, _slot, entry):
        if entry.name == "broken":
            raise BundleError("/secret/path is damaged")
        return make_seeing(entry)

    manifest = make_manifest(make_entry("broken", 1), make_entry("light", 1))
    client = client_of(load, manifest)
    ask = WAYS_TO_NAME_A_MODEL[way]
    assert ask(client, path, "light").status_code == 200
    refused = check_problem(ask(client, path, "broken"), 503, "not_ready")
    assert refused == "broken cannot be served"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: send(client, b"no picture", path="/model_predict"),
        lambda client: send(client, DARK, b"no picture", BRIGHT),
        lambda client: send(client, b"no picture", path="/predict/heatmap"),
        lambda client: client.post(
            "/v1/models/light:predict",
            json={"instances": [{"b64": b64(data)} for data in (DARK, b"no picture", BRIGHT)]},
        ),
    ],
)
def test_an_error_of_an_image_prints_nothing(client_of, capfd, ask):
    """The hub prints every exception of a greenlet that is not registered as expected."""
    client = client_of(lambda _settings, _slot, entry: make_seeing(entry))
    response = ask(client)
    assert "no picture" in response.text
    assert capfd.readouterr().err == ""


def test_a_failed_model_is_not_reported_as_loading(client_of):
    def load(_settings, _slot, entry):
        if entry.name == "broken":
            raise BundleError("/secret/path is damaged")
        return make_light(entry)

    manifest = make_manifest(make_entry("light", 4), make_entry("broken", 1))
    client = client_of(load, manifest)
    response = send(client, DARK, model="broken")
    assert check_problem(response, 503, "not_ready") == "broken cannot be served"


def test_the_log_has_the_number_of_labels(client, caplog):
    caplog.set_level("INFO", "access")
    send(client, MIXED, DARK)
    (line,) = [record for record in caplog.records if record.name == "access"]
    assert line.fields["labels"] == 3
    assert (line.fields["model"], line.fields["version"]) == ("light", 4)


def test_the_whole_server_answers_as_the_reference_does(server, demo_network, class_names):
    """All the samples go through nginx in one request, and every class matches to a thousandth."""
    names = sorted(path.name for path in SAMPLES.glob("*.jpg"))
    files = [("image", (name, (SAMPLES / name).read_bytes())) for name in names]
    response = requests.post(f"{server.url}/predict?scores=all", files=files, timeout=60)
    assert response.status_code == 200, response.text
    for name, image in zip(names, response.json()["images"], strict=True):
        assert image["name"] == name
        data = (SAMPLES / name).read_bytes()
        logits = [score["logit"] for score in image["scores"]]
        assert logits == pytest.approx(reference.logits(demo_network, data).tolist(), abs=1e-3)
        answered = [label["label"] for label in image["labels"]][::-1]
        assert (answered or "No Categories") == reference.answer(demo_network, class_names, data)[
            "result"
        ]


def test_the_gateway_measures_the_upload_time(server):
    """The body arrives in two pieces with a pause between, and nginx waits for it."""

    def body():
        data = STREET.read_bytes()
        yield data[:1000]
        time.sleep(0.3)  # this is measured, so it must be real
        yield data[1000:]

    response = requests.post(
        f"{server.url}/predict", data=body(), headers={"Content-Type": "image/jpeg"}, timeout=60
    )
    timings = json.loads(response.text)["timings_ms"]
    assert 250 <= timings["upload"] <= timings["total"]


def test_older_clients_find_the_health_check(client):
    assert client.get("/healthcheck").json == {"status": "alive"}


def test_url_quoted_base64_is_read(client):
    body = f"b64={quote(b64(DARK), safe='')}&top_k=1"
    response = client.post("/predict", data=body, content_type="application/x-www-form-urlencoded")
    assert labels(response) == ["Dark"]


def test_an_error_of_many_images_is_short(client):
    text = "§" * 100
    content = {"images": [{"b64": text}] * 128}
    response = send_json(client, content)
    check_problem(response, 400, "unreadable_image")
    assert len(response.data) <= 4000
    assert 10 < len(response.json["images"]) < 128
    assert response.json["images"][0]["error"]["code"] == "unreadable_image"
    few = send_json(client, {"images": [{"b64": text}] * 5}).json["images"]
    assert len(few) == 5
    assert "base64" in few[4]["error"]["detail"]


@pytest.mark.parametrize(
    "sent",
    [
        {"data": {"model": "a" * 100_000, "b64": b64(DARK)}},
        {"data": {"m" * 100_000: "a", "b64": b64(DARK)}},
        {
            "data": f"b64={b64(DARK)}&heatmap={'a' * 100_000}",
            "content_type": "application/x-www-form-urlencoded",
        },
        {"data": {"b64": b64(DARK)}, "query_string": {"heatmap": "a" * 100_000}},
        {"json": {"images": [{"b64": b64(DARK)}], "m" * 100_000: 1}},
    ],
)
def test_an_option_of_any_length_is_refused_in_every_position(client, sent):
    response = client.post("/predict", **sent)
    assert "is longer than 1000 bytes" in check_problem(response, 422, "invalid_option")
    assert len(response.data) < 1000


@pytest.mark.parametrize(
    "path", ["/nothing/" + "x" * 6000, "/" + "%01" * 3000, "/" + "%F0%9F%90%88" * 700]
)
def test_no_path_makes_an_error_long(client, path):
    response = client.get(path)
    check_problem(response, 404, "not_found")
    assert len(response.data) <= 4000


@pytest.mark.parametrize("path", ["/predict", "/model_predict", "/v1/models/light:predict"])
def test_the_first_bytes_of_an_unknown_file_are_in_the_log_only(client, caplog, path):
    caplog.set_level("INFO", "access")
    data = b"\xde\xad\xbe\xef" + bytes(100)
    if path.startswith("/v1"):
        response = client.post(path, json={"instances": [{"b64": b64(data)}]})
    else:
        response = send(client, data, path=path)
    assert "its type is unknown" in response.text
    assert "de ad" not in response.text.lower()
    (line,) = [record for record in caplog.records if record.name == "access"]
    assert line.fields["first_bytes"] == "de ad be ef" + " 00" * 12


def test_the_first_bytes_of_one_unknown_file_among_many_are_in_the_log(client, caplog):
    caplog.set_level("INFO", "access")
    assert send(client, DARK, b"\xde\xad", BRIGHT).status_code == 200
    (line,) = [record for record in caplog.records if record.name == "access"]
    assert line.fields["first_bytes"] == "de ad"
