"""Metrics are counted in one process, through Flask's own client."""

import io
from contextlib import contextmanager
from threading import get_ident

import numpy as np
import pytest

from app import metrics
from app.control.manifest import RejectedVersion
from app.errors import BundleError, QueueFull, ServingError
from app.serving.prediction import Prediction
from app.serving.stats import MAX_LABELS, label_values
from app.serving.ticket import Timing
from app.system.gpus import Gpu
from app.web.access import MAX_ACCEPT_S, read_accept_time, read_upload_time
from app.web.native import metrics as metrics_route
from tests.helpers import bright_or_not, gray, make_entry, make_light, make_manifest
from tests.scrape import DOCUMENTED, Scrape

OPENMETRICS = "application/openmetrics-text"


def scrape(client) -> Scrape:
    response = client.get("/metrics")
    assert response.status_code == 200
    return Scrape(response.text)


@contextmanager
def rise(client):
    """Yield a scrape that has, once the block has ended, how much everything rose within it."""
    before, found = scrape(client), Scrape("")
    yield found
    found.__dict__.update(scrape(client).since(before).__dict__)


def post(client, data: bytes, **options):
    return client.post("/model_predict", data={"image": (io.BytesIO(data), "a.png")}, **options)


# Requests


def test_a_request_is_counted_by_route_and_model(client):
    with rise(client) as counted:
        assert post(client, gray(150)).status_code == 200
    labels = {"route": "/model_predict", "method": "POST", "status": 200}
    assert counted.total("serving_requests_total", **labels, model="light", version=4) == 1
    assert counted.total("serving_requests_total", model="light") == 1
    name = "serving_request_duration_seconds_count"
    assert counted.total(name, route="/model_predict", model="light", version=4) == 1


def test_only_computed_answers_count_for_a_model(client):
    with rise(client) as counted:
        assert client.get("/v2/models/light/ready").headers["X-Model-Name"] == "light"
    name = "serving_requests_total"
    assert counted.total(name, route="/v2/models/<name>/ready", model="", version="") == 1
    assert counted.total(name, model="light") == 0


def test_made_up_values_of_clients_are_not_labels(client):
    """Otherwise any client could fill the memory of the server, and of Prometheus, with series."""
    with rise(client) as counted:
        for path in ("/nowhere", "/else/where", "/model_predict/"):
            client.get(path)
        client.open("/nowhere", method="BREW")
    assert counted.total("serving_requests_total", route="(other)") == 4
    assert counted.total("serving_requests_total", method="(other)") == 1
    routes = counted.values_of("serving_requests_total", "route")
    assert routes <= {rule.rule for rule in client.application.url_map.iter_rules()} | {"(other)"}


@pytest.mark.parametrize("path", ["/model_predict", "/v1/models/light:predict"])
def test_an_error_is_counted_by_its_code_in_every_protocol(client, path):
    with rise(client) as counted:
        assert client.post(path, data=b"x").status_code >= 400
    assert counted.total("serving_errors_total") == 1
    assert counted.total("serving_requests_total", method="POST", model="") == 1


def test_every_error_counter_starts_at_0(client):
    codes = scrape(client).values_of("serving_errors_total", "code")
    assert {error.code for error in [ServingError, *ServingError.__subclasses__()]} <= codes


def test_a_full_queue_is_counted_as_an_error(client):
    server = client.application.extensions["model_server"]
    (servable,) = server._registry.live.values()
    servable.batcher._max_queue = 1
    with rise(client) as counted, servable.batcher.slot():
        assert post(client, gray(0)).status_code == QueueFull.status
    assert counted.total("serving_errors_total", code="queue_full") == 1


def test_a_probe_that_is_answered_503_is_not_an_error(client_of):
    def fail(*_):
        raise BundleError("torn")

    client = client_of(fail)
    with rise(client) as counted:
        assert client.get("/readyz").status_code == 503
        assert post(client, gray(0)).status_code == 503
    assert counted.total("serving_errors_total", code="not_ready") == 1
    assert counted.total("serving_requests_total", route="/readyz", status=503) == 1


def test_the_gateways_times_are_counted_if_it_sends_them(client):
    with rise(client) as counted:
        post(client, gray(0))
        client.get("/healthz", headers={"X-Upload-Time": "0.000"})
    assert counted.total("serving_upload_duration_seconds_count") == 0
    assert counted.total("serving_accept_duration_seconds_count") == 0
    with rise(client) as counted:
        post(client, gray(0), headers={"X-Upload-Time": "1.250", "X-Request-Start": "t=1.000"})
    assert counted.total("serving_upload_duration_seconds_sum") == 1.25
    assert counted.total("serving_accept_duration_seconds_count") == 1


def test_an_impossible_time_is_ignored(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1700000000.5)
    assert read_accept_time("t=1700000000.125") == 0.375
    for made_up in ("t=1700000009.000", "t=0.000", "t=x", "1700000000.125", "", "t=-1.000"):
        assert read_accept_time(made_up) == 0.0, made_up
    assert read_accept_time(f"t={1700000000.5 - MAX_ACCEPT_S:.3f}") == 0.0
    assert read_upload_time("12.034") == 12.034
    for made_up in ("nan", "-1.000", "1e3", "inf", "", "99999999.000"):
        assert read_upload_time(made_up) == 0.0, made_up


# Images


def test_an_image_is_counted_with_its_times_its_batch_and_its_labels(client):
    with rise(client) as counted:
        post(client, gray(150))
        post(client, gray(0))
    version = {"model": "light", "version": 4}
    assert counted.total("serving_pictures_total", **version, outcome="answered") == 2
    for stage in ("decode", "queue", "forward"):
        assert counted.total(f"serving_{stage}_duration_seconds_count", **version) == 2
    assert counted.total("serving_computing_seconds_total", **version) > 0
    assert counted.total("serving_batch_size_sum", **version) == 2
    for label in ("Bright", "Dark", "(none)"):
        assert counted.total("serving_labels_total", **version, label=label) == 1


def test_a_batch_is_counted_once_for_any_number_of_images(client_of):
    client = client_of(max_wait_ms="1000", decode_threads="1")
    images = [("image", (io.BytesIO(gray(150)), f"{i}.png")) for i in range(4)]
    with rise(client) as counted:
        body = {"image": [file for _, file in images]}
        answer = client.post("/predict", data=body).json
    batches = counted.total("serving_batch_size_count", model="light")
    assert counted.total("serving_batch_size_sum", model="light") == 4
    assert batches == pytest.approx(sum(1 / image["batch"] for image in answer["images"]))
    assert counted.total("serving_forward_duration_seconds_count", model="light") == 4


def test_an_image_without_an_answer_is_counted_by_the_reason(client):
    with rise(client) as counted:
        post(client, b"no picture")
    assert counted.total("serving_pictures_total", outcome="unreadable_image") == 1
    assert counted.total("serving_pictures_total") == 1
    assert counted.total("serving_labels_total") == 0


def test_the_queue_depth_is_the_number_of_images_inside(client_of):
    depths = []

    def load(_settings, _slot, entry):
        def forward(images):
            depths.append(scrape(client).total("serving_queue_depth", model="light", version=4))
            return bright_or_not(images)

        return make_light(entry, forward)

    client = client_of(load)
    assert post(client, gray(0)).status_code == 200
    assert depths == [1]
    assert scrape(client).total("serving_queue_depth", model="light") == 0


def test_labels_beyond_the_limit_are_counted_as_one():
    logits = np.zeros(MAX_LABELS + 2, np.float32)
    logits[[0, MAX_LABELS - 1, MAX_LABELS, MAX_LABELS + 1]] = 1, 2, 3, 4
    names = tuple(map(str, range(len(logits))))
    model = make_light(make_entry(), class_names=names)
    prediction = Prediction(logits, model, Timing(0, 0, 1, True), 0, (60, 40))
    assert label_values(prediction) == ["0", str(MAX_LABELS - 1), "(other)", "(other)"]


# How things stand


def test_metrics_are_answered_even_if_no_model_can_be_served(client_of):
    def fail(*_):
        raise BundleError("torn")

    metrics = scrape(client_of(fail))
    assert metrics.total("serving_workers", state="failed") == 1
    assert metrics.total("serving_workers") == 1
    assert metrics.total("serving_version_workers", model="light", version=4, state="failed") == 1
    assert not metrics.families["serving_model_info"].samples


def test_live_versions_are_reported_with_device_and_precision(client):
    metrics = scrape(client)
    who = {"model": "light", "version": 4}
    how = {"engine": "eager", "precision": "fp32", "device": "cpu"}
    assert metrics.total("serving_model_info", **who, **how) == 1
    assert metrics.total("serving_version_workers", **who, state="live") == 1
    assert metrics.total("serving_batch_limit", **who) == 16
    assert metrics.total("serving_forward_lanes", **who) == 1
    assert metrics.total("serving_workers", state="ready") == 1


def test_the_limits_are_those_of_the_settings(client_of):
    metrics = scrape(client_of(max_queue="17", deadline_s="7", max_wait_ms="3", decode_threads="5"))
    assert metrics.total("serving_queue_limit") == 17
    assert metrics.total("serving_deadline_seconds") == 7
    assert metrics.total("serving_batch_wait_limit_seconds") == 0.003
    assert metrics.total("serving_decode_threads") == 5
    assert metrics.total("serving_workers_planned") == 1
    assert metrics.total("serving_cores") >= 1


def test_a_refused_version_is_reported_with_the_reason_but_not_its_folder(client_of):
    folder = "/srv/my models/light/5"
    rejected = RejectedVersion(
        "light", 5, f"{folder}/model.pth, unlike /tmp/x/y.npz, is torn", folder
    )
    metrics = scrape(
        client_of(manifest=make_manifest(make_entry("light", 4), rejected=(rejected,)))
    )
    reason = "it was refused: model.pth, unlike y.npz, is torn"
    name = "serving_version_refused_info"
    assert metrics.total(name, model="light", version=5, reason=reason) == 1
    assert metrics.total(name) == 1


def test_gpus_are_reported_if_there_are_any(client, monkeypatch):
    gpus = [Gpu(0, "H200", "580", 30, 100, 0.25), Gpu(1, "H200", "580", 90, 100)]
    monkeypatch.setattr(metrics_route, "list_gpus", lambda _: gpus)
    metrics = scrape(client)
    assert metrics.total("serving_gpu_memory_free_bytes", device="cuda:0", name="H200") == 30
    assert metrics.total("serving_gpu_memory_total_bytes") == 200
    assert metrics.total("serving_gpu_busy_ratio", device="cuda:0") == 0.25
    assert metrics.values_of("serving_gpu_busy_ratio", "device") == {
        "cuda:0"
    }  # the other has no word


# The answer


def test_tensorflow_servings_path_answers_the_same(client):
    theirs = Scrape(client.get("/monitoring/prometheus/metrics").text)
    assert theirs.families.keys() == scrape(client).families.keys()


@pytest.mark.parametrize("version", ["", "; version=1.0.0", "; version=nonsense", ";q=0.5"])
def test_openmetrics_is_answered_on_request(client, version):
    answer = client.get("/metrics", headers={"Accept": f"{OPENMETRICS}{version}, text/plain;q=0.1"})
    assert answer.content_type.startswith(OPENMETRICS)
    assert answer.text.endswith("# EOF\n")
    assert client.get("/metrics").content_type.startswith("text/plain; version=0.0.4")


def test_scrapes_are_not_logged(client, caplog):
    caplog.set_level("INFO")
    client.get("/metrics")
    client.get("/monitoring/prometheus/metrics")
    assert not caplog.records


def test_files_and_drivers_are_read_in_another_thread(client, monkeypatch):
    """The hub keeps running meanwhile."""
    threads = []
    monkeypatch.setattr(metrics_route, "list_gpus", lambda _: threads.append(get_ident()) or [])
    scrape(client)
    assert len(threads) == 1
    assert get_ident() not in threads


def test_the_page_has_every_metric_with_its_type_and_labels(client):
    post(client, gray(150))
    found = scrape(client).families
    assert {name: family.type for name, family in found.items()} == {
        name: kind for name, (kind, _) in DOCUMENTED.items()
    }
    for name, family in found.items():
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == DOCUMENTED[name][1], name


def test_metrics_without_a_count_yet_are_listed_too():
    text, _ = metrics.expose([])
    assert b"# TYPE serving_batch_size histogram" in text
