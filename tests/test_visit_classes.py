"""The page suits models with a thousand classes, a number of best labels, a crop, and names with synonyms."""

import json

import pytest
import requests
from playwright.sync_api import expect

from tests.helpers import encode, photo_like

CLASSES = [f"fish {number}, the {number}th of its kind" for number in range(1000)]
LARGE = encode(photo_like(900, 700), "PNG")
SAMPLE = {"name": "a.jpg", "url": "samples/street.jpg", "labels": [], "width": 325, "height": 351}
OWN_SAMPLES = json.dumps({"model": "fish", "samples": [SAMPLE]})
PEAKS = (4.0, 1.0)  # of the first two labels


def describe_model(server, **changes: object) -> dict:
    """Return the description of a model like ImageNet's."""
    about = requests.get(server.url, timeout=60).json()
    rule = {"activation": "softmax", "threshold": None, "threshold_on": "score", "top_k": 5}
    frame = {"side": 224, "resize": 256}
    about |= {"model": "fish", "version": 1, "models": {"fish": [1]}, "classes": CLASSES}
    return {**about, "description": "Knows fish.", "rule": rule, "frame": frame, **changes}


def make_answer() -> dict:
    """Return an answer in which every class has a lower score than the one before."""
    scores = [
        {"label": name, "score": 0.5 / 2**place, "logit": -float(place)}
        for place, name in enumerate(CLASSES)
    ]
    corner = [[1.0 if (x, y) == (0, 0) else 0.0 for x in range(7)] for y in range(7)]
    for each, peak in zip(scores, PEAKS, strict=False):
        each["heatmap"] = {"label": each["label"], "peak": peak, "map": corner}
    image = {"name": "a.jpg", "bytes": 1, "width": 325, "height": 351, "labels": scores[:5]}
    image |= {"scores": scores, "timings_ms": {"decode": 1, "queue": 0, "forward": 1}, "batch": 1}
    return {"model": {"name": "fish", "version": 1}, "images": [image], "timings_ms": {"upload": 1}}


@pytest.fixture
def guest(visit, server):
    """Return a visitor of a server with the model above, at its answer."""
    guest = visit()
    about, found = json.dumps(describe_model(server)), json.dumps(make_answer())
    guest.page.route(f"{server.url}/?*", lambda route: route.fulfill(body=about))
    guest.page.route("**/predict", lambda route: route.fulfill(body=found))
    guest.page.route("**/samples?model=fish", lambda route: route.fulfill(body=OWN_SAMPLES))
    guest.page.reload()
    expect(guest.find("#knows")).to_have_text("Knows fish.")
    guest.choose({"name": "a.png", "mimeType": "image/png", "buffer": LARGE})
    expect(guest.find("#results")).to_be_visible()
    return guest


def test_a_thousand_classes_are_paged_and_searched(guest):
    expect(guest.find(".label")).to_have_count(9)
    guest.find("#more").click()
    expect(guest.find(".label")).to_have_count(59)
    guest.find("#labels-search").fill("FISH 77")
    assert guest.find(".label button").all_text_contents() == [
        name for name in CLASSES if "fish 77" in name
    ]
    guest.find("#labels-search").fill("bicycle")
    expect(guest.find("#labels-none")).to_be_visible()
    expect(guest.find("#more")).to_be_hidden()
    guest.page.go_back()
    guest.find("#classes summary").click()
    expect(guest.find("#classes-list li")).to_have_count(1000)
    guest.find("#classes-search").fill("999")
    expect(guest.find("#classes-list li")).to_have_count(1)


def test_the_samples_of_the_model_are_offered_below_the_upload(guest):
    guest.page.go_back()
    guest.page.get_by_role("button", name="Clear").click()
    expect(guest.find(".sample")).to_have_count(1)
    expect(guest.find("#samples-title")).to_have_text("Or try a sample")
    samples, add = guest.find("#samples").bounding_box(), guest.find("#add").bounding_box()
    assert samples["y"] > add["y"]
    expect(guest.find("#home-demo")).to_be_hidden()


def test_a_model_of_best_labels_has_a_number_instead_of_a_slider(guest):
    expect(guest.find("#detail-threshold-slider")).to_be_hidden()
    expect(guest.find("#detail-threshold .threshold-rule")).to_have_text(
        "model default: the best 5 labels"
    )
    guest.page.get_by_role("button", name="More labels").click()
    assert guest.passing() == CLASSES[:6]
    expect(guest.find("#call")).to_contain_text("-F top_k=6")
    guest.page.get_by_role("button", name="Use default").click()
    assert guest.passing() == CLASSES[:5]
    guest.page.get_by_role("button", name="Set one threshold").click()
    guest.move("#detail-threshold-slider", 0.2)
    assert guest.passing() == CLASSES[:2]


def test_sentences_name_the_first_synonym_only(guest):
    expect(guest.find("#answer")).to_have_text("fish 0, fish 1, fish 2, fish 3, and fish 4")
    guest.page.go_back()
    expect(guest.find(".chip").first).to_have_text("fish 0 50%")


def test_a_crop_is_explained_and_a_weaker_heat_map_says_how_weak(guest):
    expect(guest.find("#crop-note")).to_have_text(
        "The model sees only the bright part of the image."
    )
    expect(guest.find("#heat-strength")).to_have_text("")
    guest.page.get_by_role("button", name=f"{CLASSES[1]},").click()
    expect(guest.find("#heat-strength")).to_have_text("25% as strong as the strongest heat map")
    expect(guest.find("#heat-place")).to_have_text("mostly upper left")


def test_a_missing_heat_map_is_requested_for_a_small_copy_and_then_kept(guest):
    expect(guest.find("#heat")).to_be_visible()
    bodies = []
    found = make_answer()
    found["images"][0]["scores"][4]["heatmap"] = {
        **found["images"][0]["scores"][0]["heatmap"],
        "label": CLASSES[4],
    }

    def fulfill(route):
        bodies.append(route.request.post_data_buffer)
        route.fulfill(body=json.dumps(found))

    guest.page.route("**/predict", fulfill)
    for _ in range(2):
        guest.page.get_by_role("button", name=f"{CLASSES[4]},").click()
        expect(guest.find("#heat")).to_have_attribute("data-label", CLASSES[4])
        guest.page.get_by_role("button", name=f"{CLASSES[0]},").click()
        expect(guest.find("#heat")).to_have_attribute("data-label", CLASSES[0])
    assert len(bodies) == 1
    assert len(bodies[0]) < len(LARGE) / 2
    assert b'name="upright"\r\n\r\ntrue' in bodies[0]
