"""ModelServer loads, serves and drains, with a network that the test controls."""

import _thread
import dataclasses
import io
import logging
from _queue import SimpleQueue

import gevent
import numpy as np
import pytest
from PIL import Image

from app.errors import (
    BundleError,
    DeadlinePassed,
    MalformedRequest,
    NoHeatMap,
    NotReady,
    QueueFull,
    UnknownModel,
    UnreadableImage,
)
from app.models.config import ModelConfig
from app.processing.decision import Decision
from app.processing.heatmap import Style, draw_heat_map
from app.processing.images import InputTransform, decode_image
from app.scoreboard import Scoreboard, State
from app.serving import image_pool
from app.serving.model import Model
from app.serving.prediction import HeatMapRequest
from app.serving.routing import Target
from app.serving.server import ModelServer
from tests.helpers import (
    LIGHT_GRADIENTS,
    STREET,
    StubLoader,
    as_forward,
    encode,
    gray,
    make_entry,
    make_manifest,
    make_model,
    make_seeing,
    photo_like,
    predict_one,
    wait_until,
)

NAMES = ("Ant", "Bee", "Cat")


def forward(images: list[np.ndarray]) -> np.ndarray:
    """Return the same logits for every image: Ant fails, Bee and Cat pass."""
    return np.tile(np.float32([0.5, 3.0, 1.0]), (len(images), 1))


def model(forward=forward, name="insects", version=2, **rest) -> Model:
    return make_model(make_entry(name, version), NAMES, as_forward(forward), **rest)


@pytest.fixture
def serve(settings):
    """Return a factory of started model servers; all are stopped afterwards."""
    started = []

    def start(load=lambda *_: model(), read_manifest=None, **rows) -> ModelServer:
        scoreboard = Scoreboard()
        scoreboard.enter(scoreboard.claim())
        manifest = make_manifest(make_entry())
        chosen = settings(**rows)
        loader = StubLoader(chosen, scoreboard, load)
        server = ModelServer(chosen, scoreboard, loader, read_manifest or (lambda: manifest))
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop(timeout_s=2)


def is_ready(server):
    return server.state is State.READY


def street():
    return io.BytesIO(STREET.read_bytes())


def test_a_model_prepares_images_and_chooses_labels_by_its_config(serve):
    seen = []

    def forward_and_see(images):
        seen.extend(images)
        return forward(images)

    config = ModelConfig(transform=InputTransform(64, 80), decision=Decision("softmax", top_k=1))
    server = serve(lambda *_: model(forward_and_see, config=config))
    wait_until(lambda: is_ready(server))
    assert predict_one(server, street()).labels() == ["Bee"]
    assert (seen[0] == decode_image(street(), 10**9, transform=InputTransform(64, 80))).all()


def test_an_image_is_answered(serve):
    server = serve()
    wait_until(lambda: is_ready(server))
    assert predict_one(server, street()).labels() == ["Cat", "Bee"]
    assert server.workers.states() == {0: "ready"}


@pytest.mark.parametrize(
    ("precision", "setting", "fast"),
    [
        ("fp32", "auto", False),
        ("bf16", "auto", True),
        ("bf16", "exact", False),
        ("fp32", "fast", True),
    ],
)
def test_a_large_jpeg_is_decoded_exactly_in_fp32_and_fast_in_lower_precisions_by_default(
    serve, precision, setting, fast
):
    seen = []

    def forward_and_see(images):
        seen.extend(images)
        return forward(images)

    server = serve(lambda *_: model(forward_and_see, precision=precision), decode=setting)
    wait_until(lambda: is_ready(server))
    data = encode(photo_like(1800, 1000), "JPEG")
    predict_one(server, io.BytesIO(data))
    assert (seen[0] == decode_image(io.BytesIO(data), 10**9, fast=fast)).all()
    assert (seen[0] != decode_image(io.BytesIO(data), 10**9, fast=not fast)).any()


def test_one_bad_image_of_many_is_its_own_error(serve):
    server = serve()
    wait_until(lambda: is_ready(server))
    first, broken, third = server.predict_each(
        server.find(), [street(), io.BytesIO(b"text"), street()]
    )
    assert first.labels() == third.labels() == ["Cat", "Bee"]
    assert isinstance(broken, UnreadableImage)
    with pytest.raises(UnknownModel):
        server.find(Target("other"))


def test_an_answer_reports_its_times_and_the_image_size(serve):
    server = serve()
    wait_until(lambda: is_ready(server))
    image = io.BytesIO(encode(photo_like(1800, 1000), "JPEG"))
    pixels = np.zeros((30, 40, 3), np.uint8)
    answers = server.predict_each(server.find(), [image, pixels])
    assert [answer.size for answer in answers] == [(1800, 1000), (40, 30)]
    for answer in answers:
        assert 0 < answer.decode_s < 30
        assert 0 <= answer.timing.queue_s < 30
        assert 0 <= answer.timing.forward_s < 30


def test_many_images_are_answered_in_parallel_and_in_order(serve):
    batches = []

    def means(images):
        batches.append(len(images))
        return np.float32([[image.mean(), 0, 0] for image in images])

    server = serve(lambda *_: model(means), max_wait_ms="1000")
    wait_until(lambda: is_ready(server))
    inputs = [np.full((5, 7, 3), level, np.uint8) for level in range(8)]
    inputs[3:3] = [io.BytesIO(gray(100))]
    answers = server.predict(server.find(), inputs)
    assert [int(a.logits[0]) for a in answers] == [0, 1, 2, 100, 3, 4, 5, 6, 7]
    assert max(batches) > 1


def test_many_images_of_a_request_are_all_answered_by_the_first_version(serve):
    """A new version takes over while a request's images are in progress: its answers are not mixed."""
    manifest = [make_manifest(make_entry(version=1))]
    gate, begun = SimpleQueue(), []

    def load(_settings, _slot, entry):
        def answer(images):
            begun.append(entry.version)
            if entry.version == 1:
                gate.get()
            return np.zeros((len(images), 3), np.float32)

        return model(answer, version=entry.version, max_batch=1)

    server = serve(load, read_manifest=lambda: manifest[0], poll_s="0.01")
    wait_until(lambda: is_ready(server))
    image = np.zeros((2, 2, 3), np.uint8)
    inside = gevent.spawn(server.predict, server.find(), [image] * 4)
    wait_until(lambda: begun)  # then all four have their places
    manifest[0] = make_manifest(make_entry(version=2))
    wait_until(lambda: server.find().model.version == 2)
    for _ in range(4):
        gate.put(None)
    assert {answer.model.version for answer in inside.get(timeout=5)} == {1}


def test_the_first_error_of_many_images_releases_the_others(serve):
    computed = []

    def slow(images):
        computed.append(len(images))
        gate.get()
        return forward(images)

    gate = SimpleQueue()
    server = serve(lambda *_: model(slow, max_batch=1), max_queue="8")
    wait_until(lambda: is_ready(server))
    inputs = [np.zeros((2, 2, 3), np.uint8) for _ in range(7)]
    with pytest.raises(UnreadableImage):
        server.predict(server.find(), [*inputs, io.BytesIO(b"text")])
    gevent.sleep(0.05)
    for _ in range(9):
        gate.put(None)
    assert predict_one(server, street()).labels() == ["Cat", "Bee"]
    assert len(computed) <= 3, "released images are not computed"


def test_more_images_than_free_places_are_refused_together(serve):
    server = serve(max_queue="2")
    wait_until(lambda: is_ready(server))
    server.check_count(2)
    for count in (0, 3):
        with pytest.raises(MalformedRequest, match=f"has {count} pictures; 1 to 2 are taken"):
            server.check_count(count)
    images = [np.zeros((2, 2, 3), np.uint8)] * 3
    with pytest.raises(QueueFull):
        server.predict(server.find(), images)
    assert len(server.predict(server.find(), images[:2])) == 2


def test_requests_are_refused_and_the_hub_keeps_running_while_the_model_loads(serve):
    gate = SimpleQueue()

    def load(*_):
        gate.get()
        return model()

    server = serve(load)
    assert server.workers.states() == {0: "loading"}
    with pytest.raises(NotReady, match="loading"):
        predict_one(server, street())
    gate.put(None)
    wait_until(lambda: is_ready(server))


def test_a_failed_load_is_one_clear_log_line_and_hides_paths_from_clients(serve, caplog):
    def load(*_):
        raise BundleError("/srv/models/x/model.pth is damaged")

    server = serve(load)
    wait_until(lambda: server.state is State.FAILED)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        "the model cannot be served: /srv/models/x/model.pth is damaged"
    ]
    with pytest.raises(NotReady, match=r"^the model cannot be served: ") as error:
        predict_one(server, street())
    assert "/srv" not in str(error.value)


def test_an_unexpected_error_while_loading_is_logged_with_its_traceback(serve, caplog):
    def load(*_):
        raise ZeroDivisionError("surprise")

    server = serve(load)
    wait_until(lambda: server.state is State.FAILED)
    assert "Traceback" in caplog.text
    assert "surprise" in caplog.text


@pytest.mark.slow
def test_a_load_that_hangs_forever_ends_the_worker(settings):
    gate, scoreboard, deaths = SimpleQueue(), Scoreboard(), []
    scoreboard.enter(scoreboard.claim())
    manifest = make_manifest(make_entry())
    chosen = settings(load_timeout_s="1")
    loader = StubLoader(chosen, scoreboard, lambda *_: gate.get())
    server = ModelServer(
        chosen, scoreboard, loader, lambda: manifest, lambda: deaths.append(server.state)
    )
    server.start()
    wait_until(lambda: deaths, 5)
    assert deaths == [State.FAILED]
    gate.put(model())
    wait_until(lambda: server.state is State.READY)
    server.stop(timeout_s=2)


def test_a_failed_model_is_not_reported_as_loading(serve):
    def load(_settings, _slot, entry):
        if entry.name == "broken":
            raise BundleError("it is broken")
        return model(name=entry.name)

    manifest = make_manifest(make_entry("insects"), make_entry("broken"))
    server = serve(load, lambda: manifest)
    wait_until(lambda: is_ready(server))
    with pytest.raises(NotReady, match="broken cannot be served"):
        server.find(Target("broken"))


def test_a_hanging_load_counts_as_failed_after_its_timeout(serve):
    gate = SimpleQueue()

    def load(*_):
        gate.get()
        return model()

    server = serve(load, load_timeout_s="1")
    wait_until(lambda: server.state is State.FAILED, timeout_s=5)
    with pytest.raises(NotReady, match="did not load in time"):
        server.find()
    gate.put(None)  # it finishes after all
    wait_until(lambda: is_ready(server))


def test_a_request_ends_at_its_deadline(serve):
    gate = SimpleQueue()

    def held(images):
        gate.get()
        return forward(images)

    server = serve(lambda *_: model(held), deadline_s="0.2")
    wait_until(lambda: is_ready(server))
    with pytest.raises(DeadlinePassed, match=r"within 0\.2 s"):
        predict_one(server, street())
    gate.put(None)
    gate.put(None)
    assert predict_one(server, street()).labels() == ["Cat", "Bee"]


def test_a_corrupt_image_does_not_disturb_other_images(serve):
    server = serve()
    wait_until(lambda: is_ready(server))
    data = STREET.read_bytes()
    good = [gevent.spawn(predict_one, server, io.BytesIO(data)) for _ in range(6)]
    bad = [gevent.spawn(predict_one, server, io.BytesIO(data[:900])) for _ in range(3)]
    for request in good:
        assert request.get(timeout=10).labels() == ["Cat", "Bee"]
    for request in bad:
        with pytest.raises(UnreadableImage):
            request.get(timeout=10)


def test_a_queue_place_is_free_again_after_any_outcome(serve):
    server = serve(max_queue="1")
    wait_until(lambda: is_ready(server))
    for _ in range(3):
        with pytest.raises(UnreadableImage):
            predict_one(server, io.BytesIO(b"text"))
        assert predict_one(server, street()).labels()


def test_stopping_answers_accepted_requests_and_refuses_new_ones(serve):
    gate = SimpleQueue()

    def held(images):
        gate.get()
        return forward(images)

    server = serve(lambda *_: model(held))
    wait_until(lambda: is_ready(server))
    inside = gevent.spawn(predict_one, server, street())
    gevent.sleep(0.05)
    stopping = gevent.spawn(server.stop, 5)
    gevent.sleep(0)
    with pytest.raises(NotReady, match="draining"):
        predict_one(server, street())
    gate.put(None)
    assert inside.get(timeout=5).labels() == ["Cat", "Bee"]
    stopping.get(timeout=5)


def test_a_server_can_be_stopped_while_it_loads(serve):
    gate = SimpleQueue()

    def load(*_):
        gate.get()
        return model()

    server = serve(load)
    server.stop(timeout_s=1)
    assert server.state is State.DRAINING
    gate.put(None)
    gevent.sleep(0.1)
    assert server.state is State.DRAINING


@pytest.fixture
def canary(settings):
    """Return a server of two versions of "insects", a tenth of the traffic for the canary; and another model."""
    scoreboard = Scoreboard()
    scoreboard.enter(scoreboard.claim())
    manifest = make_manifest(
        make_entry("insects", 3),
        make_entry("insects", 4),
        make_entry("leaves", 1),
        labels={"insects": {"stable": 3, "canary": 4, "old": 2}},
        traffic={"insects": {"stable": 90, "canary": 10}},
    )

    def load(settings, slot, entry):
        return model(name=entry.name, version=entry.version)

    loader = StubLoader(settings(), scoreboard, load)
    server = ModelServer(settings(), scoreboard, loader, lambda: manifest)
    server.start()
    wait_until(lambda: is_ready(server))
    yield server
    server.stop(2)


def answering(server, **target):
    model = predict_one(server, street(), **target).model
    return model.name, model.version


def test_a_request_may_name_model_version_or_label(canary):
    assert answering(canary, name="leaves") == ("leaves", 1)
    assert answering(canary, version=3) == ("insects", 3)
    assert answering(canary, label="canary") == ("insects", 4)
    assert canary.workers.states() == {0: "ready"}
    assert canary.workers.live() == {0: {"insects": [3, 4], "leaves": [1]}}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"name": "birds"}, "there is no model 'birds'; there is insects, leaves"),
        ({"version": 7}, "insects has no version 7; it has 3, 4"),
        ({"label": "beta"}, "insects has no label 'beta'; it has canary, old, stable"),
        ({"label": "old"}, "insects has no version 2; it has 3, 4"),
    ],
)
def test_an_unknown_version_is_reported_with_the_served_ones(canary, target, message):
    with pytest.raises(UnknownModel) as error:
        canary.find(Target(**target))
    assert error.value.message == message


def test_a_request_without_a_version_is_distributed_by_weight_and_sticky_by_key(canary):
    found = [answering(canary)[1] for _ in range(150)]
    assert {3, 4} == set(found)
    assert found.count(4) < 50
    users = {user: answering(canary, sticky=user) for user in map(str, range(60))}
    assert {version for _, version in users.values()} == {3, 4}
    assert all(answering(canary, sticky=user) == before for user, before in users.items())


STRONGEST = HeatMapRequest(top_k=1)


def serve_seeing(serve, gradients=LIGHT_GRADIENTS, **rows) -> ModelServer:
    """Start a server whose model has heat maps."""
    server = serve(lambda *_: make_seeing(make_entry(), gradients), **rows)
    wait_until(lambda: is_ready(server))
    return server


def quarters(*levels: int) -> np.ndarray:
    """Return an image of four gray squares, row by row."""
    cells = np.array(levels, np.uint8).reshape(2, 2).repeat(8, 0).repeat(8, 1)
    return np.stack([cells] * 3, axis=2)


def test_a_request_gets_the_heat_maps_of_the_classes_that_it_names(serve):
    server = serve_seeing(serve)
    image = quarters(0, 51, 51, 255)
    bright, dark = (predict_one(server, image, heat_maps=HeatMapRequest((k,))) for k in (0, 1))
    assert bright.heat_maps[0].values == pytest.approx(np.array([[0, 0.2], [0.2, 1]]), abs=0.03)
    assert bright.heat_maps[0].peak == pytest.approx(1, abs=0.05)
    assert dark.heat_maps[1].values == pytest.approx(np.array([[1, 0.8], [0.8, 0]]), abs=0.03)
    assert predict_one(server, image, heat_maps=STRONGEST).heat_maps.keys() == {1}
    assert predict_one(server, image).heat_maps == {}
    both = server.predict_each(server.find(), [image] * 2, heat_maps=HeatMapRequest((0, 1)))
    assert [list(each.heat_maps) for each in both] == [[0, 1], [0, 1]]


def test_gradients_are_computed_on_the_model_thread_for_one_class_at_a_time(serve):
    calls = []

    def gradient(features, label):
        calls.append((_thread.get_ident(), label))
        return LIGHT_GRADIENTS[label]

    server = serve_seeing(serve, gradient)
    prediction = predict_one(server, quarters(0, 51, 51, 255), heat_maps=HeatMapRequest((1, 0)))
    assert [label for _, label in calls] == [1, 0]
    assert _thread.get_ident() not in [thread for thread, _ in calls]
    assert prediction.heat_maps[0].values.max() == 1


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("openvino", r"insects \(resnet50\) has no heat maps on the engine openvino: .*=eager"),
        ("eager", r"insects \(resnet50\) pools no feature map"),
    ],
)
def test_a_model_without_heat_maps_refuses_before_it_decodes(serve, engine, message):
    server = serve(lambda *_: model(engine=engine))
    wait_until(lambda: is_ready(server))
    with pytest.raises(NoHeatMap, match=message):
        predict_one(server, io.BytesIO(b"no picture"), heat_maps=STRONGEST)


def test_a_heat_map_is_drawn_over_its_image(serve):
    server = serve_seeing(serve)
    drawing = predict_one(
        server, street(), heat_maps=dataclasses.replace(STRONGEST, style=Style())
    ).drawing
    assert Image.open(io.BytesIO(drawing.png)).size == (326, 306)
    drawn = predict_one(
        server, quarters(0, 0, 0, 255), heat_maps=HeatMapRequest((0,), style=Style())
    ).drawing
    assert Image.open(io.BytesIO(drawn.png)).size == (16, 16)


def test_a_drawing_that_fails_is_its_own_error(serve, monkeypatch):
    def fail(*_):
        raise UnreadableImage("image is a damaged JPEG")

    monkeypatch.setattr(image_pool, "open_canvas", fail)
    server = serve_seeing(serve)
    with pytest.raises(UnreadableImage):
        predict_one(server, street(), heat_maps=dataclasses.replace(STRONGEST, style=Style()))


def test_stopping_waits_for_drawings_in_progress(serve, monkeypatch):
    gate, begun = SimpleQueue(), []

    def draw(*arguments):
        begun.append(True)
        gate.get()
        return draw_heat_map(*arguments)

    monkeypatch.setattr(image_pool, "draw_heat_map", draw)
    server = serve_seeing(serve)
    inside = gevent.spawn(
        predict_one, server, street(), heat_maps=HeatMapRequest((0,), style=Style())
    )
    wait_until(lambda: begun)
    assert predict_one(server, street()).logits.size == 2  # others are answered meanwhile
    stopping = gevent.spawn(server.stop, 5)
    gevent.sleep(0)
    gate.put(None)
    assert inside.get(timeout=5).drawing.png
    stopping.get(timeout=5)
