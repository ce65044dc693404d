"""POST /predict/heatmap and POST /predict return heat maps."""

import base64
import io
import json

import numpy as np
import pytest
import requests
from PIL import Image

from app.engines.engine import Outputs
from tests import reference
from tests.helpers import SAMPLES, STREET, check_problem, encode, make_seeing, photo_like, see_light
from tests.test_predict_route import send, send_json

JSON = {"Accept": "application/json"}


def square(*levels: int, orientation: int = 1) -> bytes:
    """Return a PNG of four gray squares, row by row: 60 × 40 px, with an EXIF orientation."""
    cells = np.array(levels, np.uint8).reshape(2, 2).repeat(20, 0).repeat(30, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.fromarray(cells).convert("RGB"), "PNG", exif=exif)


IMAGE = square(0, 51, 51, 255)  # darker than bright


@pytest.fixture
def client(client_of):
    """Return Flask's client of a server whose model sees brightness."""
    return client_of(lambda _settings, _slot, entry: make_seeing(entry))


def post(client, data: bytes = IMAGE, query: str = "", accept: str | None = None):
    headers = {"Accept": accept} if accept else {}
    return client.post(
        f"/predict/heatmap{query}", data=data, content_type="image/png", headers=headers
    )


def open_png(response) -> Image.Image:
    assert response.status_code == 200, response.text
    assert response.content_type == "image/png"
    return Image.open(io.BytesIO(response.data))


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "image/*",
        "image/png",
        "text/html,image/avif,image/png,*/*;q=0.8",
        "application/json;q=0.5,image/png",
    ],
)
def test_the_strongest_label_is_drawn_over_the_image(client, accept):
    response = post(client, accept=accept)
    assert open_png(response).size == (60, 40)
    assert response.headers["X-Heatmap-Label"] == "Dark"
    assert response.headers["X-Model-Name"] == "light"
    assert response.headers["Vary"] == "Accept"
    times = response.headers["Server-Timing"].split(", ")
    assert [time.partition(";")[0] for time in times] == [
        *("upload", "decode", "queue", "forward", "draw", "total")
    ]


def test_in_json_the_drawing_comes_with_its_numbers(client):
    response = post(client, accept="application/json")
    answer = response.json
    assert answer["model"] == {"name": "light", "version": 4}
    assert (answer["label"], answer["logit"]) == ("Dark", pytest.approx(2.6, abs=0.02))
    assert answer["score"] == pytest.approx(1 / (1 + np.exp(-answer["logit"])), abs=1e-5)
    assert answer["peak"] == pytest.approx(1, abs=0.01)
    assert np.array(answer["map"]) == pytest.approx(np.array([[1, 0.8], [0.8, 0]]), abs=0.01)
    assert base64.b64decode(answer["overlay"]) == post(client).data
    assert list(answer["timings_ms"]) == ["upload", "decode", "queue", "forward", "draw", "total"]
    assert answer["request_id"] == response.headers["X-Request-ID"]


def test_any_label_can_be_requested(client):
    answer = post(client, query="?label=Bright", accept="application/json").json
    assert answer["label"] == "Bright"
    assert answer["map"][1][1] == 1
    assert post(client, query="?label=Bright").data == base64.b64decode(answer["overlay"])


def test_the_map_comes_in_the_drawings_size_on_request(client):
    data = encode(photo_like(2048, 512), "PNG")
    answer = post(client, data, "?size=picture", "application/json").json
    assert np.shape(answer["map"]) == (256, 1024)
    assert Image.open(io.BytesIO(base64.b64decode(answer["overlay"]))).size == (1024, 256)


def test_the_opacity_ranges_from_the_image_alone_to_colors_alone(client):
    image = np.asarray(Image.open(io.BytesIO(IMAGE)))
    assert (np.asarray(open_png(post(client, query="?opacity=0"))) == image).all()
    drawn = [np.asarray(open_png(post(client, query=f"?opacity={o}"))) for o in ("0.5", "1")]
    changed = [np.abs(each - image.astype(float)).mean() for each in drawn]
    assert 0 < changed[0] < changed[1]
    assert (open_png(post(client)).tobytes()) == drawn[0].tobytes()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?opacity=2", "opacity is "),
        ("?size=huge", "size is "),
        ("?top_k=3", 'no option "top_k"; there are label, model, opacity, size, upright, version'),
        ("?label=Cat", 'label is "Cat": light has no such class; it has Bright, Dark'),
    ],
)
def test_an_invalid_option_is_reported(client, query, message):
    assert message in check_problem(post(client, query=query), 422, "invalid_option")


def test_an_error_shows_the_closest_of_many_labels_or_some(client_of):
    names = ("Bright", *(f"label {number}" for number in range(300)))

    def load(_settings, _slot, entry):
        return make_seeing(entry, class_names=names)

    client = client_of(load)
    close = check_problem(post(client, query="?label=bright"), 422, "invalid_option")
    assert close.endswith("it has Bright … of 301")
    some = check_problem(post(client, query="?label=Żółw"), 422, "invalid_option")
    assert some.count("label ") == 10  # nine of them, and the option's own name
    assert some.endswith("label 8 … of 301")


def test_the_header_holds_a_label_of_any_script(client_of):
    def load(_settings, _slot, entry):
        return make_seeing(entry, class_names=("яркий", "тёмный"))

    response = post(client_of(load), query="?label=яркий")
    assert response.headers["X-Heatmap-Label"] == "%D1%8F%D1%80%D0%BA%D0%B8%D0%B9"


def test_an_unknown_type_is_reported(client):
    detail = check_problem(post(client, accept="text/csv"), 406, "not_acceptable")
    assert detail == "Accept is text/csv; there are image/png and application/json"


def test_it_accepts_images_as_predict_does(client):
    drawn = post(client).data
    form = {"image": (io.BytesIO(IMAGE), "a.png"), "opacity": "0.5"}
    assert client.post("/predict/heatmap", data=form).data == drawn
    text = base64.b64encode(IMAGE).decode()
    assert client.post("/predict/heatmap", data={"b64": text}).data == drawn
    content = {"images": [{"b64": text}], "label": "Dark"}
    assert client.post("/predict/heatmap", json=content).data == drawn


def test_only_one_image_is_accepted(client):
    files = [(io.BytesIO(IMAGE), "a.png"), (io.BytesIO(IMAGE), "b.png")]
    response = client.post("/predict/heatmap", data={"image": files})
    assert "has 2 pictures; a heat map is drawn of one" in check_problem(
        response, 400, "malformed_request"
    )


TURNED = square(0, 51, 102, 255, orientation=6)  # upright: 102, 0 / 255, 51
AS_STORED = [[1, 0.8], [0.6, 0]]
UPRIGHT = [[0.6, 1], [0, 0.8]]


@pytest.mark.parametrize("configured", ["on", "off"])
@pytest.mark.parametrize("asked", [None, "true", "false"])
def test_images_are_turned_upright_as_asked_or_configured(client_of, configured, asked):
    client = client_of(lambda _settings, _slot, entry: make_seeing(entry), exif_rotate=configured)
    fields = {} if asked is None else {"upright": asked}
    turned = asked == "true" or (asked is None and configured == "on")
    answer = send(client, TURNED, heatmap="Dark", **fields)
    (found,) = heat_maps(answer).values()
    assert np.array(found) == pytest.approx(np.array(UPRIGHT if turned else AS_STORED), abs=0.02)
    image = answer.json["images"][0]
    assert (image["width"], image["height"]) == ((40, 60) if turned else (60, 40))
    drawn = send(client, TURNED, path="/predict/heatmap", **fields)
    assert open_png(drawn).size == ((40, 60) if turned else (60, 40))


def test_upright_may_be_in_the_query_or_in_json(client):
    assert open_png(post(client, TURNED, query="?upright=true")).size == (40, 60)
    content = {"images": [{"b64": base64.b64encode(TURNED).decode()}], "upright": True}
    assert send_json(client, content).json["images"][0]["width"] == 40
    detail = check_problem(send(client, TURNED, upright="maybe"), 422, "invalid_option")
    assert detail.startswith('upright is "maybe": expected `bool')


def test_model_predict_does_not_read_the_option(client_of):
    client = client_of(lambda _settings, _slot, entry: make_seeing(entry))
    plain = send(client, TURNED, path="/model_predict").data
    assert send(client, TURNED, path="/model_predict", upright="true").data == plain
    assert send(client, TURNED, path="/model_predict", query="?upright=true").data == plain


def test_an_image_that_cannot_be_read_is_reported(client):
    check_problem(post(client, b"text"), 400, "unreadable_image")
    broken = {"images": [{"b64": "%%%"}]}
    check_problem(client.post("/predict/heatmap", json=broken), 400, "unreadable_image")


def test_a_model_without_heat_maps_is_reported_on_both_routes(client_of):
    client = client_of()
    message = "light (resnet50) pools no feature map that a heat map could be made of"
    assert check_problem(post(client), 422, "no_heatmap") == message
    assert check_problem(send(client, IMAGE, heatmap="all"), 422, "no_heatmap") == message
    assert send(client, IMAGE).status_code == 200


def heat_maps(response) -> dict[str, list]:
    """Return the map of each label in the first image's answer that has one."""
    (image, *_) = response.json["images"]
    return {each["label"]: each["heatmap"]["map"] for each in image["labels"] if "heatmap" in each}


def test_predict_returns_the_requested_heat_maps(client):
    every = heat_maps(send(client, IMAGE, heatmap="all"))
    assert list(every) == ["Dark", "Bright"]
    assert np.array(every["Dark"]) == pytest.approx(np.array([[1, 0.8], [0.8, 0]]), abs=0.01)
    assert heat_maps(send(client, IMAGE, heatmap="strongest")) == {"Dark": every["Dark"]}
    assert heat_maps(send(client, IMAGE, heatmap="Bright")) == {"Bright": every["Bright"]}
    assert heat_maps(send(client, IMAGE)) == {}
    label = send(client, IMAGE, heatmap="all", top_k="1").json["images"][0]["labels"][0]
    assert (label["heatmap"]["label"], label["heatmap"]["peak"]) == (
        "Dark",
        pytest.approx(1, abs=0.01),
    )


def test_all_scores_include_the_heat_map_of_a_class_that_does_not_pass(client):
    response = send(client, IMAGE, heatmap="Bright", top_k="1", scores="all")
    assert heat_maps(response) == {}
    bright, dark = response.json["images"][0]["scores"]
    assert bright["heatmap"]["map"][1][1] == 1
    assert "heatmap" not in dark


def test_each_of_many_images_has_its_own_heat_map(client):
    images = [IMAGE, b"broken", square(255, 0, 0, 0)]
    files = [{"b64": base64.b64encode(data).decode()} for data in images]
    answer = send_json(client, {"images": files, "heatmap": "Bright"}).json["images"]
    assert answer[1]["error"]["code"] == "unreadable_image"
    cells = [np.array(answer[place]["labels"][-1]["heatmap"]["map"]) for place in (0, 2)]
    assert cells[0] == pytest.approx(np.array([[0, 0.2], [0.2, 1]]), abs=0.02)
    assert cells[1] == pytest.approx(np.array([[1, 0], [0, 0]]), abs=0.02)


@pytest.fixture
def client_of_300(client_of):
    """Return a client of a model with 300 classes, which become stronger from the first to the last."""
    gradients = np.ones((300, 2), np.float32)

    def load(_settings, _slot, entry):
        def see(images, with_features=False):
            seen = see_light(images, with_features)
            logits = np.tile(np.linspace(-3, 3, 300, dtype=np.float32), (len(images), 1))
            return Outputs(logits, seen.features)

        names = tuple(f"label {number}" for number in range(300))
        return make_seeing(entry, gradients, names, see)

    return client_of(load)


def test_the_strongest_classes_have_heat_maps_beside_those_that_pass(client_of_300):
    def mapped(**options: str) -> set[int]:
        (image,) = send(client_of_300, IMAGE, scores="all", **options).json["images"]
        return {place for place, each in enumerate(image["scores"]) if "heatmap" in each}

    assert mapped(heatmap_top_k="50") == set(range(250, 300))
    assert mapped(heatmap_top_k="5", heatmap="all", top_k="2") == set(range(295, 300))
    assert mapped(heatmap_top_k="2", heatmap="all", top_k="5") == set(range(295, 300))
    assert mapped(heatmap_top_k="2", heatmap="label 7") == {7, 298, 299}
    assert mapped(heatmap_top_k="2", heatmap="strongest") == {298, 299}
    assert mapped(heatmap_top_k="999") == set(range(300))


def test_a_class_that_is_not_in_the_answer_has_no_heat_map(client):
    assert list(heat_maps(send(client, IMAGE, heatmap_top_k="2", top_k="1"))) == ["Dark"]


def test_a_request_has_a_limit_of_heat_maps(client_of_300):
    client = client_of_300
    assert len(heat_maps(send(client, IMAGE, heatmap="all", threshold="0"))) == 300
    message = check_problem(send(client, IMAGE, IMAGE, heatmap_top_k="257"), 422, "invalid_option")
    assert message.startswith(
        "heatmap_top_k is 257: the request wants 514 heat maps or more; the limit is 512."
        " Choose fewer classes by heatmap_top_k"
    )
    response = send(client, IMAGE, IMAGE, heatmap="all", threshold="0")
    message = check_problem(response, 422, "invalid_option")
    assert message.startswith(
        'heatmap is "all": the request wants 600 heat maps or more; the limit is 512'
    )
    assert send(client, *[IMAGE] * 128, heatmap="all", top_k="4").status_code == 200


def test_an_unknown_label_is_reported_by_predict_too(client):
    detail = check_problem(send(client, IMAGE, heatmap="Cat"), 422, "invalid_option")
    assert detail == 'heatmap is "Cat": light has no such class; it has Bright, Dark'


def test_the_running_servers_drawings_match_the_reference(server, demo_network, class_names):
    url = f"{server.url}/predict/heatmap"
    data = STREET.read_bytes()
    drawn = requests.post(url, files={"image": data}, timeout=60)
    assert drawn.headers["Content-Type"] == "image/png"
    assert drawn.headers["X-Heatmap-Label"] == "Car"
    assert Image.open(io.BytesIO(drawn.content)).size == (326, 306)
    images = reference.PREPARE(reference.as_rgb(data)).unsqueeze(0)
    for label in ("Car", "Person"):
        answer = requests.post(
            url, params={"label": label}, files={"image": data}, headers=JSON, timeout=60
        ).json()
        place = class_names.index(label)
        (expected,) = reference.grad_cam(demo_network, "layer4.output", images, place)
        assert np.abs(np.array(answer["map"]) - expected / expected.max()).max() < 2e-3
        assert answer["peak"] == pytest.approx(expected.max(), rel=1e-3)


def test_the_running_server_returns_every_samples_maps_in_one_request(server):
    files = [("image", path.read_bytes()) for path in sorted(SAMPLES.glob("*.jpg"))]
    answer = requests.post(f"{server.url}/predict?heatmap=all", files=files, timeout=60).json()
    labels = [label for image in answer["images"] for label in image["labels"]]
    assert len(labels) >= 20
    for label in labels:
        cells = np.array(label["heatmap"]["map"])
        assert cells.shape == (7, 7)
        assert cells.max() == 1
        assert json.dumps(label["heatmap"]["peak"]) not in ("0", "0.0")
