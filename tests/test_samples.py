"""GET /samples lists and sends the sample images of a model, or those that come with the server."""

import os
from dataclasses import replace

import pytest
import requests
from PIL import Image

from app.models.folders import versions_of
from app.models.samples import MAX_SAMPLES, list_samples
from tests.helpers import (
    SAMPLES,
    STREET,
    check_problem,
    encode,
    make_entry,
    make_light,
    make_manifest,
    photo_like,
)

JPEG = encode(photo_like(), "JPEG")


@pytest.fixture
def folder(tmp_path):
    """Return the empty folder of the samples of the model "leaf tips"."""
    made = tmp_path / "leaf tips" / "samples"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def client(client_of, folder):
    """Return a client of a server whose default model is "light" and whose other model has the folder."""

    def load(_settings, _slot, entry):
        model = make_light(entry)
        weights = folder.parent / "3" / "model.pth" if entry.name == "leaf tips" else folder / "x"
        return replace(model, bundle=replace(model.bundle, weights=weights))

    manifest = make_manifest(make_entry("light", 4), make_entry("leaf tips", 3))
    return client_of(load, manifest)


def list_own(client) -> list[dict]:
    answer = client.get("/samples?model=leaf%20tips").json
    assert answer["model"] == "leaf tips"
    return answer["samples"]


def test_the_servers_samples_are_listed_with_their_labels(client):
    answer = client.get("/samples").json
    assert answer["model"] is None
    samples = answer["samples"]
    assert {sample["name"] for sample in samples} == {path.name for path in SAMPLES.glob("*.jpg")}
    street = samples[0]
    assert street["labels"] == ["Bicycle", "Bus", "Car", "Person"]
    assert (street["width"], street["height"]) == (326, 306)
    assert client.get(f"/{street['url']}").data == STREET.read_bytes()


def test_a_model_without_samples_gets_the_servers(client):
    assert client.get("/samples?model=light").json == client.get("/samples").json
    assert client.get("/samples?model=leaf tips").json == client.get("/samples").json


def test_a_models_own_samples_are_listed_and_sent(client, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "élan 1.JPG").write_bytes(encode(photo_like(60, 40), "JPEG", exif=exif))
    (folder / "b.png").write_bytes(encode(photo_like(), "PNG"))
    (folder / "a.webp").write_bytes(encode(photo_like(), "WEBP"))
    (folder / "labels.csv").write_text("﻿image,labels\r\nb.png,Oak | Ash\r\ngone.png,Elm\r\n")
    listed = list_own(client)
    assert [(each["name"], each["labels"]) for each in listed] == [
        ("b.png", ["Oak", "Ash"]),
        ("a.webp", []),
        ("élan 1.JPG", []),
    ]
    assert (listed[2]["width"], listed[2]["height"]) == (40, 60)
    kinds = ["image/png", "image/webp", "image/jpeg"]
    for each, kind in zip(listed, kinds, strict=True):
        sent = client.get(f"/{each['url']}")
        assert sent.data == (folder / each["name"]).read_bytes()
        assert sent.content_type == kind
        assert sent.content_length == len(sent.data)
        again = client.get(f"/{each['url']}", headers={"If-None-Match": sent.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
    assert client.head(f"/{listed[0]['url']}").content_length == (folder / "b.png").stat().st_size
    check_problem(client.get("/samples/b.png"), 404, "not_found")


def test_nothing_but_images_of_the_folder_is_sent(client, folder, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    (folder / "linked.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / ".hidden.jpg").write_bytes(JPEG)
    (folder / "text.jpg").write_text("no image")
    (folder / "page.svg").write_text("<svg/>")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "fifo.jpg")
    (folder / "good.jpg").write_bytes(JPEG)
    assert [each["name"] for each in list_own(client)] == ["good.jpg"]
    names = [path.name for path in folder.iterdir() if path.name != "good.jpg"]
    for name in [*names, "labels.csv", "..%2F..%2Fsecret.jpg", "%2e%2e", "good.jpg%00", "none.jpg"]:
        answer = client.get(f"/samples/{name}?model=leaf tips")
        check_problem(answer, 404, "not_found")


def test_the_number_of_samples_is_bounded(client, folder):
    for number in range(MAX_SAMPLES + 5):
        (folder / f"{number:03}.jpg").write_bytes(JPEG)
    assert len(list_own(client)) == MAX_SAMPLES
    check_problem(client.get(f"/samples/{MAX_SAMPLES:03}.jpg?model=leaf tips"), 404, "not_found")


@pytest.mark.parametrize("table", [b"\xff\xfe", b"one,two\na,b\n", b'image,labels\n"a.jpg'])
def test_samples_with_a_damaged_table_have_no_labels(folder, table):
    (folder / "a.jpg").write_bytes(JPEG)
    (folder / "labels.csv").write_bytes(table)
    (sample,) = list_samples(folder)
    assert (sample.name, sample.labels) == ("a.jpg", [])


def test_an_unknown_model_or_option_is_reported(client):
    for path in ("/samples", "/samples/a.jpg"):
        check_problem(client.get(f"{path}?model=none"), 404, "unknown_model")
        check_problem(client.get(f"{path}?color=red"), 422, "invalid_option")


def test_the_folder_of_samples_is_no_version(folder):
    (folder.parent / "2").mkdir()
    for place in (folder, folder.parent / "2"):
        (place / "model.pth").write_bytes(b"weights")
    assert list(versions_of(folder.parent)) == [2]


def test_a_folder_that_does_not_exist_has_no_samples(tmp_path):
    assert list_samples(tmp_path / "samples") == []


def test_the_running_server_sends_a_sample_whole(server):
    for url in (server.url, server.direct_url):
        sent = requests.get(f"{url}/samples/street.jpg", timeout=30)
        assert sent.content == STREET.read_bytes()
        assert sent.headers["Content-Length"] == str(len(sent.content))
        tag = {"If-None-Match": sent.headers["ETag"]}
        assert requests.get(f"{url}/samples/street.jpg", headers=tag, timeout=30).status_code == 304
        assert requests.head(f"{url}/samples/street.jpg", timeout=30).content == b""
