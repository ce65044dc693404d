"""Every route answers through Flask's own client, without a network."""

import base64
import io
import json

import pytest

from app import __version__
from app.errors import BundleError
from tests.helpers import STREET, check_problem, encode, gray, photo_like


def post(client, data: bytes, name="picture.png", field="image", **options):
    return client.post("/model_predict", data={field: (io.BytesIO(data), name)}, **options)


def post_part(client, part_head: str, size: int):
    """Post a form with one part of zeros; Werkzeug's own encoder would leave a temporary file open."""
    head = f'--X\r\nContent-Disposition: form-data; name="image"{part_head}\r\n\r\n'
    body = head.encode() + bytes(size) + b"\r\n--X--\r\n"
    kind = "multipart/form-data; boundary=X"
    return client.post("/model_predict", data=body, content_type=kind)


def test_labels_are_in_ascending_order_of_output(client):
    response = post(client, gray(150))
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.json == {"result": ["Dark", "Bright"], "status": 1}


def test_one_label_is_a_list_too(client):
    assert post(client, gray(255)).json == {"result": ["Bright"], "status": 1}


def test_an_answer_without_labels_is_a_sentence(client):
    assert post(client, gray(0)).json == {"result": "No Categories", "status": 0}


def test_the_file_name_and_its_type_do_not_matter(client):
    assert post(client, gray(255), "../../etc/passwd").json["status"] == 1
    assert post(client, gray(255), "x.txt").json["status"] == 1


def test_a_missing_field_is_reported_with_the_existing_ones(client):
    detail = check_problem(post(client, gray(0), field="file"), 400, "missing_image")
    assert detail == "the form has no file field 'image'; it has file"


def test_an_empty_form_is_reported(client):
    response = client.post("/model_predict", data={}, content_type="multipart/form-data")
    assert "no field at all" in check_problem(response, 400, "missing_image")


def test_text_in_the_field_is_reported_with_the_remedy(client):
    response = client.post(
        "/model_predict", data={"image": "picture.jpg"}, content_type="multipart/form-data"
    )
    assert "-F image=@picture.jpg" in check_problem(response, 400, "missing_image")


def test_an_empty_file_is_reported(client):
    response = post_part(client, '; filename="x.png"', 0)  # as curl sends it
    assert "0 bytes" in check_problem(response, 400, "unreadable_image")


def test_a_text_file_is_reported(client):
    check_problem(post(client, b"I am no picture"), 400, "unreadable_image")


def test_a_truncated_jpeg_is_reported(client):
    data = STREET.read_bytes()
    check_problem(post(client, data[: len(data) // 2]), 400, "unreadable_image")


def test_too_many_pixels_are_reported_with_the_limit(client_of):
    client = client_of(max_pixels="10000")
    data = encode(photo_like(200, 100), "PNG")
    detail = check_problem(post(client, data), 413, "image_too_large")
    assert "20,000 pixels (200 × 100); the limit is 10,000" in detail


def test_a_body_over_the_limit_is_reported_with_both_numbers(client_of):
    response = post_part(client_of(max_body_mb="1"), '; filename="x.png"', 2_000_000)
    detail = check_problem(response, 413, "body_too_large")
    assert "the limit is 1,048,576" in detail
    assert "2,000," in detail


def test_a_long_text_in_the_field_is_reported(client):
    response = post_part(client, "", 600_000)
    assert "holds text, not a file" in check_problem(response, 400, "missing_image")


@pytest.mark.parametrize(
    "body", [b"--X\r\nContent-Disp", b"no boundary at all", b"--X\r\n\x00: \r\n\r\nx\r\n--X--\r\n"]
)
def test_a_damaged_form_is_reported(client, body):
    kind = "multipart/form-data; boundary=X"
    response = client.post("/model_predict", data=body, content_type=kind)
    check_problem(response, 400, "missing_image")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_reported(client, kind):
    response = client.post("/model_predict", data=b"--X\r\n", headers={"Content-Type": kind})
    check_problem(response, 400, "missing_image")


def test_a_form_of_very_many_fields_is_reported(client):
    field = b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    kind = "multipart/form-data; boundary=X"
    response = client.post("/model_predict", data=field * 200 + b"--X--\r\n", content_type=kind)
    assert "over 100 fields" in check_problem(response, 400, "missing_image")


def test_a_file_with_any_bytes_arrives_unchanged(client):
    """Carriage returns and text like a boundary are the hard cases of a multipart parser."""
    image = gray(255)
    for comment in (b"\r\n--Y", b"\r\n--", b"\r", b"\r\n--X-not", bytes(range(256)) * 40):
        assert post(client, image + comment).status_code == 200


@pytest.mark.parametrize(
    "body", [{"json": {"image": "x"}}, {"data": b"raw", "content_type": "image/png"}]
)
def test_a_body_that_is_not_a_form_is_reported(client, body):
    detail = check_problem(client.post("/model_predict", **body), 415, "unsupported_type")
    assert "multipart/form-data" in detail


def test_a_tiff_is_reported_with_the_accepted_formats(client):
    detail = check_problem(post(client, b"II*\x00" + bytes(50)), 415, "unsupported_type")
    assert "image is TIFF; accepted are JPEG" in detail


def test_a_wrong_method_is_reported_with_the_right_one(client):
    response = client.get("/model_predict")
    assert "POST" in check_problem(response, 405, "method_not_allowed")
    assert "POST" in response.headers["Allow"]


def test_an_unknown_path_is_reported(client):
    response = client.post("/model_predikt")
    assert "/model_predikt" in check_problem(response, 404, "not_found")
    assert json.loads(response.text)["instance"] == "/model_predikt"


def test_a_full_queue_is_reported_with_retry_after(client):
    server = client.application.extensions["model_server"]
    (servable,) = server._registry.live.values()
    servable.batcher._max_queue = 0
    response = post(client, gray(0))
    assert "the limit is 0" in check_problem(response, 429, "queue_full")
    assert response.headers["Retry-After"] == "1"


def test_a_server_without_a_model_is_alive_but_not_ready(client_of):
    def fail(*_):
        raise BundleError("/secret/path is damaged")

    client = client_of(fail)
    assert client.get("/healthz").json == {"status": "alive"}
    for response in (client.get("/readyz"), post(client, gray(0)), client.get("/")):
        detail = check_problem(response, 503, "not_ready")
        assert "/secret" not in detail
        assert response.headers["Retry-After"] == "5"
    assert client.get("/readyz").json["workers"] == {"0": "failed"}
    health = client.get("/health")
    assert (health.status_code, health.json["status"]) == (200, "failed")
    (model,) = health.json["models"]
    assert model["name"] == "light"
    (version,) = model["versions"]
    assert (version["version"], version["state"]) == (4, "failed")
    assert "/secret" not in version["reason"]


def test_the_health_has_the_version_of_the_server_and_the_states_of_the_models(client):
    assert client.get("/health").json == {
        "status": "ready",
        "name": "resnet-serving",
        "version": __version__,
        "api_versions": ["native", "v1", "v2"],
        "models": [{"name": "light", "versions": [{"version": 4, "state": "ready"}]}],
    }


def test_readyz_lists_the_model_and_the_workers(client):
    assert client.get("/readyz").json == {
        "status": "ready",
        "model": "light",
        "version": 4,
        "workers": {"0": "ready"},
        "live": {"0": {"light": [4]}},
    }


def test_the_root_lists_the_served_models_and_routes(client):
    answer = client.get("/").json
    assert answer["classes"] == ["Bright", "Dark"]
    assert answer["description"] == "Tells bright from dark."
    assert {"/", "/healthz", "/model_predict", "/readyz"} < set(answer["routes"])


def test_an_unexpected_error_answers_only_the_request_id_and_logs_the_rest(client, caplog):
    server = client.application.extensions["model_server"]
    server.predict = lambda *_, **__: 1 / 0
    detail = check_problem(post(client, gray(0)), 500, "internal_error")
    assert "division" not in detail
    assert "ZeroDivisionError" in caplog.text


def test_a_safe_request_id_is_kept_and_any_other_replaced(client):
    kept = client.get("/healthz", headers={"X-Request-ID": "order-66.a_b"})
    assert kept.headers["X-Request-ID"] == "order-66.a_b"
    for unsafe in ("a b", "x" * 65, '"}{', ""):
        request_id = client.get("/healthz", headers={"X-Request-ID": unsafe}).headers[
            "X-Request-ID"
        ]
        assert request_id != unsafe
        assert len(request_id) == 32


def logged(caplog):
    """Return the fields of the only line in the access log."""
    (line,) = [record for record in caplog.records if record.name == "access"]
    return line.fields


def test_a_request_is_one_line_in_the_access_log(client, caplog):
    caplog.set_level("INFO")
    sent = {"X-Upload-Time": "0.250", "X-Real-IP": "192.0.2.7"}
    response = post(client, gray(150), headers=sent)
    client.get("/healthz")
    fields = logged(caplog)
    assert (fields["method"], fields["path"], fields["status"]) == ("POST", "/model_predict", 200)
    assert fields["client"] == "192.0.2.7"
    assert fields["bytes_in"] == response.request.content_length
    assert fields["bytes_out"] == len(response.data)
    assert (fields["model"], fields["version"]) == ("light", 4)
    assert (fields["pictures"], fields["labels"], fields["batch"]) == (1, 2, 1)
    assert fields["upload_ms"] == 250
    stages = [fields[f"{stage}_ms"] for stage in ("decode", "queue", "forward")]
    assert min(stages) >= 0
    assert sum(stages) <= fields["duration_ms"]
    assert "code" not in fields


def test_an_error_is_logged_with_its_code(client, caplog):
    caplog.set_level("INFO")
    response = post(client, b"text")
    fields = logged(caplog)
    assert (fields["status"], fields["code"]) == (400, "unreadable_image")
    assert fields["bytes_out"] == len(response.data)


@pytest.mark.parametrize("path", ["/v1/models/light:predict", "/v2/models/light/infer", "/predict"])
def test_every_protocols_log_line_has_the_outcome_of_its_images(client, caplog, path):
    caplog.set_level("INFO")
    image = base64.b64encode(gray(255)).decode()
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "data": [image] * 2}
    bodies = {
        "predict": {"images": [{"b64": image}] * 2},
        "infer": {"inputs": [tensor]},
        "light:predict": {"instances": [{"b64": image}] * 2},
    }
    assert client.post(path, json=bodies[path.rpartition("/")[2]]).status_code == 200
    fields = logged(caplog)
    assert (fields["pictures"], fields["labels"]) == (2, 2)
    assert fields["forward_ms"] >= 0
    assert fields["batch"] in (1, 2)


def test_strangers_read_the_state_of_the_server_without_that_of_its_workers(client):
    """Nginx marks clients that SERVING_METRICS_FROM does not list."""
    full = client.get("/readyz").json
    assert {"workers", "live"} <= full.keys()
    brief = client.get("/readyz", headers={"X-Serving-Stranger": "1"})
    assert brief.status_code == 200
    assert brief.json == {name: full[name] for name in ("status", "model", "version")}


def test_strangers_read_why_it_is_not_ready_without_the_states_of_its_workers(client_of):
    def fail(*_):
        raise RuntimeError("broken")

    client = client_of(fail)
    assert "workers" in client.get("/readyz").json
    brief = client.get("/readyz", headers={"X-Serving-Stranger": "1"})
    assert (brief.status_code, brief.json["code"]) == (503, "not_ready")
    assert "workers" not in brief.json
