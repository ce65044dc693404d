"""The answer cache: hits equal what was computed, and nothing is answered that should have been computed."""

import base64
import io
import tracemalloc

import gevent
import numpy as np
import pytest
from PIL import Image

from app.commands import keys
from app.quarantine import Verdict
from app.serving import pipeline
from app.serving.answer_cache import AnswerCache, CacheUse, Key
from app.serving.routing import Target
from tests.helpers import (
    bright_or_not,
    encode,
    gray,
    make_entry,
    make_light,
    make_manifest,
    make_seeing,
    photo_like,
    wait_until,
)
from tests.test_metrics import rise

MODEL = {"model": "light", "version": 4}


class Network:
    """Counts the images that reach it, and tells bright from dark."""

    def __init__(self):
        self.images = 0

    def load(self, _settings, _slot, entry):
        def forward(images):
            self.images += len(images)
            return bright_or_not(images)

        return make_light(entry, forward)


@pytest.fixture
def network():
    """Return a network that counts."""
    return Network()


@pytest.fixture
def client(client_of, network):
    """Return a client of a server with an answer cache."""
    return client_of(network.load, answer_cache_mb="1")


def server_of(client):
    return client.application.extensions["model_server"]


def post(client, data, path="/predict", headers=(), **query):
    return client.post(
        path, data=data, content_type="image/png", headers=dict(headers), query_string=query
    )


def labels(response):
    return [(each["label"], each["logit"]) for each in response.json["images"][0]["labels"]]


def key(number=0, load=0, partition=""):
    return Key(load, partition, number.to_bytes(16), (), False)


# Hits


def test_the_same_bytes_twice_are_computed_once_and_answered_alike(client, network):
    first, second = post(client, gray(150)), post(client, gray(150))
    assert labels(first) == labels(second) != []
    assert network.images == 1
    assert "Age" not in first.headers
    assert second.headers["Age"].isdecimal()
    entry = second.json["images"][0]
    assert (entry["width"], entry["height"], entry["batch"]) == (60, 40, 0)
    assert entry["timings_ms"] == {"decode": 0.0, "queue": 0.0, "forward": 0.0}


def test_without_the_setting_every_image_is_computed(client_of, network):
    client = client_of(network.load)
    answers = [post(client, gray(150)) for _ in range(2)]
    assert network.images == 2
    assert all("Age" not in answer.headers for answer in answers)
    assert client.get("/").json["answer_cache"] is False


def test_the_server_says_that_it_remembers_answers(client):
    assert client.get("/").json["answer_cache"] is True


def test_all_dialects_and_options_share_an_entry(client, network):
    form = {"image": (io.BytesIO(gray(150)), "a.png")}
    assert client.post("/model_predict", data=form).json["result"]
    answers = [
        post(client, gray(150), threshold=0.9),
        post(client, gray(150), top_k=1, scores="all"),
        post(client, gray(150), "/v2/models/light/infer", {"Inference-Header-Content-Length": "0"}),
        client.post("/v1/models/light:predict", json={"instances": [as_b64(gray(150))]}),
        client.post("/v1/models/light:classify", json={"examples": [as_example(gray(150))]}),
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert all("Age" in answer.headers for answer in answers)
    assert network.images == 1


def as_b64(data):
    return {"b64": base64.b64encode(data).decode()}


def as_example(data):
    return {"image_bytes": as_b64(data)}


def test_of_many_images_only_the_unknown_ones_are_computed(client, network):
    post(client, gray(150))
    files = [(io.BytesIO(gray(level)), f"{level}.png") for level in (150, 40, 150)]
    with rise(client) as counted:
        answer = client.post("/predict", data={"image": files})
    assert network.images == 2
    assert [each["batch"] for each in answer.json["images"]] == [0, 1, 0]
    assert "Age" in answer.headers
    assert counted.total("serving_answer_cache_hits_total", **MODEL) == 2
    assert counted.total("serving_answer_cache_misses_total", **MODEL) == 1
    assert counted.total("serving_pictures_total", **MODEL, outcome="answered") == 3
    assert counted.total("serving_forward_duration_seconds_count", **MODEL) == 1
    assert counted.total("serving_answer_cache_entries") == 1
    assert 0 < counted.total("serving_answer_cache_bytes") < 2000


def test_a_large_image_is_hashed_on_a_thread(client, network, monkeypatch):
    monkeypatch.setattr(pipeline, "HASHED_INLINE_BYTES", 10)
    assert labels(post(client, gray(150))) == labels(post(client, gray(150)))
    assert network.images == 1


def test_a_request_of_many_small_images_does_not_hash_them_all_on_the_hub(client, monkeypatch):
    monkeypatch.setattr(pipeline, "HASHED_INLINE_BYTES", 3 * len(gray(150)))
    server, on_thread = server_of(client), []
    pool = server._image_pool
    whole = pool.digest
    monkeypatch.setattr(pool, "digest", lambda data: on_thread.append(1) or whole(data))
    files = [(io.BytesIO(gray(150)), f"{index}.png") for index in range(5)]
    assert client.post("/predict", data={"image": files}).status_code == 200
    assert len(on_thread) == 2


# Misses


def test_other_bytes_another_rotation_and_another_shape_are_other_images(client, network):
    server = server_of(client)
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encode(photo_like(), "PNG", exif=turned)
    sizes = [
        server.predict(server.find(), [io.BytesIO(data)], upright=upright, cache=CacheUse())[0].size
        for upright in (False, True, False, True)
    ]
    assert sizes == [(60, 40), (40, 60)] * 2
    assert network.images == 2
    pixels = np.arange(24, dtype=np.uint8)
    images = [io.BytesIO(data), pixels.reshape(2, 4, 3), pixels.reshape(4, 2, 3)]
    for _ in range(2):
        found = server.predict(server.find(), images, cache=CacheUse(), upright=False)
        assert [each.size for each in found] == [(60, 40), (4, 2), (2, 4)]
    assert network.images == 4


def test_a_new_version_and_the_same_version_with_other_weights_answer_for_themselves(client_of):
    manifest = [make_manifest(make_entry("light", 4, "a"))]
    loads = []

    def load(_settings, _slot, entry):
        loads.append(entry)
        logits = np.float32([len(loads), 0])
        return make_light(entry, lambda images: np.tile(logits, (len(images), 1)))

    client = client_of(load, lambda: manifest[0], answer_cache_mb="1", poll_s="0.01")
    seen = [labels(post(client, gray(150))) for _ in range(2)]
    for count, entry in enumerate((make_entry("light", 5), make_entry("light", 5, "b")), 2):
        manifest[0] = make_manifest(entry)
        wait_until(lambda count=count: len(loads) == count)
        wait_until(lambda count=count: labels(post(client, gray(150)))[0][1] == count)
        seen += [labels(post(client, gray(150)))]
    assert seen == [[("Bright", 1.0)]] * 2 + [[("Bright", 2.0)], [("Bright", 3.0)]]


def test_partitions_do_not_share_answers(client, network):
    server = server_of(client)
    for partition in ("", "one", "two", "one"):
        server.predict(server.find(), [io.BytesIO(gray(150))], cache=CacheUse(partition=partition))
    assert network.images == 3


def test_clients_with_keys_share_answers_with_themselves_only(client_of, network, tmp_path):
    path = tmp_path / "keys"
    held = [keys.add(path, name, frozenset(["predict"]), None) for name in ("ann", "bob")]
    client = client_of(network.load, answer_cache_mb="1", keys=str(path), public="predict")
    for key in (*held, *held, None, None):
        headers = {"X-API-Key": key} if key else {}
        assert post(client, gray(150), headers=headers).status_code == 200
    assert network.images == 3


def test_callers_that_do_not_ask_for_the_cache_get_none(client, network):
    server = server_of(client)
    for cache in (CacheUse(), None, None):
        server.predict(server.find(), [io.BytesIO(gray(150))], cache=cache)
    assert network.images == 3


def test_errors_are_not_stored(client, monkeypatch, network):
    for _ in range(2):
        assert post(client, b"no image").status_code == 400
    with monkeypatch.context() as patch:
        patch.setattr(network, "images", "a count that fails")
        assert post(client, gray(150)).status_code == 500
    with rise(client) as counted:
        assert post(client, gray(150)).status_code == 200
    assert counted.total("serving_answer_cache_misses_total", **MODEL) == 1


def test_heat_maps_are_always_computed(client_of):
    client = client_of(lambda *given: make_seeing(given[-1]), answer_cache_mb="1")
    answers = [post(client, gray(150), heatmap=one) for one in ("strongest", "", "strongest")]
    assert [("Age" in each.headers) for each in answers] == [False] * 3
    assert "heatmap" in answers[2].json["images"][0]["labels"][0]


# What clients may say


@pytest.mark.parametrize("text", ["no-store", "NO-STORE", "max-age=60, no-store"])
def test_no_store_neither_reads_nor_writes(client, network, text):
    for _ in range(2):
        assert "Age" not in post(client, gray(150), headers={"Cache-Control": text}).headers
    assert network.images == 2
    assert "Age" not in post(client, gray(150)).headers
    assert "Age" not in post(client, gray(150), headers={"Cache-Control": text}).headers
    assert network.images == 4


@pytest.mark.parametrize("text", ["no-cache", "max-age=0"])
def test_a_client_can_have_an_image_computed_anew(client, network, text):
    post(client, gray(150))
    assert "Age" not in post(client, gray(150), headers={"Cache-Control": text}).headers
    assert network.images == 2
    assert "Age" in post(client, gray(150)).headers
    assert network.images == 2


@pytest.mark.parametrize(
    "text", ["max-age=60", "max-age=x", "max-age=" + "9" * 30, "only-if-cached"]
)
def test_other_directives_use_the_cache(client, network, text):
    post(client, gray(150))
    assert "Age" in post(client, gray(150), headers={"Cache-Control": text}).headers
    assert network.images == 1


def test_answers_are_private(client):
    assert post(client, gray(150)).headers["Cache-Control"] == "private"


# Limits


def test_the_least_recently_used_answer_leaves_first_and_the_bound_holds():
    logits = np.zeros(1000, np.float32)
    cache = AnswerCache(20_000)
    for number in range(4):
        cache.store(key(number), logits, (1, 1))
    assert cache.find(key(0), 60)
    cache.store(key(4), logits, (1, 1))
    known = [number for number in range(5) if cache.find(key(number), 60)]
    assert known == [0, 2, 3, 4]
    assert 16_000 < cache.bytes <= 20_000


def test_an_answer_that_is_stored_again_counts_once():
    cache = AnswerCache(20_000)
    for _ in range(3):
        cache.store(key(), np.zeros(1000, np.float32), (1, 1))
    assert cache.bytes < 6000


def test_an_entry_takes_no_more_than_it_counts():
    batch = np.zeros((64, 20), np.float32)  # whose rows are not kept alive by one of them
    cache, count = AnswerCache(1 << 30), 5000
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            cache.store(key(number, 10**6 + number, "a" * 40), batch[0], (1000 + number, 2000))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.bytes * 0.5 < taken <= cache.bytes, (taken / count, cache.bytes / count)


def test_a_known_answer_cannot_be_changed():
    cache = AnswerCache(20_000)
    cache.store(key(), np.zeros(3, np.float32), (1, 1))
    with pytest.raises(ValueError, match="read-only"):
        cache.find(key(), 60).logits[0] = 1


def test_an_older_answer_than_the_client_takes_is_unknown(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("app.serving.answer_cache.time.monotonic", lambda: clock[0])
    cache = AnswerCache(20_000)
    cache.store(key(), np.zeros(3, np.float32), (1, 1))
    clock[0] += 10
    assert cache.find(key(), 10) is None
    assert cache.find(key(), 11).age_s() == 10


# Rules that hold beside it


def test_the_same_image_of_two_requests_at_once_is_answered_to_both(client, network):
    server = server_of(client)
    images = [io.BytesIO(gray(150)) for _ in range(2)]
    both = [
        gevent.spawn(server.predict, server.find(Target("light")), [image], cache=CacheUse())
        for image in images
    ]
    gevent.joinall(both, timeout=30)
    ((first,), (second,)) = (each.value for each in both)
    assert first.labels() == second.labels() == ["Dark", "Bright"]
    assert server.predict(server.find(), [images[0]], cache=CacheUse())[0].age_s is not None
    assert network.images <= 2


@pytest.mark.parametrize("verdict", [Verdict.SUSPECT, Verdict.BLOCKED])
def test_an_image_that_came_to_be_suspected_is_not_answered_from_the_cache(
    client, network, verdict
):
    post(client, gray(150))
    quarantine = server_of(client)._pipeline._quarantine
    quarantine._inputs.set(quarantine.digest(gray(150)), 2 if verdict is Verdict.SUSPECT else 4)
    answer = post(client, gray(150))
    assert "Age" not in answer.headers
    if verdict is Verdict.SUSPECT:  # on trial: it is processed, and cleared
        assert (answer.status_code, network.images) == (200, 2)
        assert "Age" in post(client, gray(150)).headers
    else:
        assert (answer.status_code, answer.json["code"]) == (500, "quarantined")


def test_a_hit_takes_a_place_in_the_queue(client_of, network):
    client = client_of(network.load, answer_cache_mb="1", max_queue="1")
    post(client, gray(150))
    server = server_of(client)
    with server.find().batcher.slot():
        assert post(client, gray(150)).status_code == 429
    assert "Age" in post(client, gray(150)).headers


# Metadata, which clients may keep


METADATA = ["/", "/samples", "/v1/models", "/v1/models/light", "/v1/models/light/metadata"]
METADATA += ["/v2", "/v2/models", "/v2/models/light", "/v2/models/light/versions/4"]


def test_metadata_is_sent_again_only_if_it_has_changed(client):
    for path in METADATA:
        first = client.get(path)
        assert (first.status_code, first.headers["Cache-Control"]) == (200, "no-cache"), path
        tag = first.headers["ETag"]
        for given in (tag, f'"other", W/{tag}', "*"):
            again = client.get(path, headers={"If-None-Match": given})
            assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag), path
        assert client.get(path, headers={"If-None-Match": '"other"'}).data == first.data, path
        head = client.head(path, headers={"If-None-Match": tag})
        assert head.status_code == 304, path


def test_answers_to_a_post_have_no_etag_and_no_condition_holds_them_back(client):
    for _ in range(2):
        answer = post(client, gray(150), headers={"If-None-Match": '"x"'})
        assert (answer.status_code, "ETag" in answer.headers) == (200, False)
