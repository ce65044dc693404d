"""scripts/publish into the folder of a running server loses and mixes no request."""

import json
import os
import pickle
import shutil
import subprocess

import numpy as np
import pytest
import requests
import torch

from app.commands.publish import publish
from app.errors import BundleError
from tests.disks import on_small_disk
from tests.helpers import ROOT, STREET, wait_until
from tests.load import Load

BUNDLE = ("model.npz", "class_name.json", "model.json")


@pytest.fixture
def source(tiny_models, tmp_path):
    """Return a folder with the tiny model without derived files, like a custom model."""
    (tmp_path / "new").mkdir()
    for name in BUNDLE:
        shutil.copy(tiny_models / "demo" / "1" / name, tmp_path / "new" / name)
    return tmp_path / "new"


def change_model(folder):
    """Give a bundle other weights and other names, so that each answer identifies its version."""
    arrays = dict(np.load(folder / "model.npz"))
    arrays["fc.weight"] = arrays["fc.weight"] * np.float32(1.25)
    np.savez(folder / "model.npz", **arrays)
    names = json.loads((folder / "class_name.json").read_text())
    renamed = {index: f"{name} II" for index, name in names.items()}
    (folder / "class_name.json").write_text(json.dumps(renamed))


def run_publish(source, model, **settings):
    """Run scripts/publish."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SERVING_")}
    environment |= {f"SERVING_{name.upper()}": text for name, text in settings.items()}
    return subprocess.run(
        [ROOT / "scripts" / "publish", source, model],
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


@pytest.fixture
def copy_converted(tiny_models):
    """Return a function that copies the tiny model with its derived files: it is ready in a moment."""
    return lambda folder: shutil.copytree(tiny_models / "demo" / "1", folder)


@pytest.fixture
def models(copy_converted, tmp_path):
    """Return a models folder with the tiny model as version 1 of "pictograms"."""
    copy_converted(tmp_path / "models" / "pictograms" / "1")
    return tmp_path / "models"


def live(server):
    """Return the versions that each worker has live."""
    return [set(live["pictograms"]) for live in server.readiness().get("live", {}).values()]


def test_publishing_under_load_loses_no_request_and_mixes_no_versions(start_server, models, source):
    change_model(source)
    server = start_server(models=str(models), workers="2").wait_ready(2)
    before = server.predict(STREET.read_bytes()).json()
    load = Load(server, clients=8, pause_s=0.1)
    with load.running():
        load.wait_for_more(64)
        done = run_publish(source, models / "pictograms")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(models / "pictograms" / "2")
        wait_until(lambda: live(server) == [{2}, {2}], 60)
        load.wait_for_more(64)
    after = server.predict(STREET.read_bytes()).json()
    right = {"1": before, "2": after}
    assert all(name.endswith(" II") for name in after["result"])
    wrong = [a for a in load.answers if a.status != 200 or json.loads(a.text) != right[a.version]]
    assert not wrong, f"{len(wrong)} of {len(load.answers)}: {wrong[:3]}"
    assert {answer.version for answer in load.answers} == {"1", "2"}


class Bomb:
    """A pickle with code in it."""

    def __reduce__(self):
        return os.system, ("touch /tmp/bomb-went-off",)


def truncate(folder):
    data = (folder / "model.npz").read_bytes()
    (folder / "model.npz").write_bytes(data[: len(data) // 2])


def plant_bomb(folder):
    (folder / "model.npz").unlink()
    with (folder / "model.pth").open("wb") as file:
        pickle.dump({"fc.weight": Bomb()}, file)


def drop_a_class(folder):
    names = json.loads((folder / "class_name.json").read_text())
    del names["19"]
    (folder / "class_name.json").write_text(json.dumps(names))


def spoil_a_weight(folder):
    arrays = dict(np.load(folder / "model.npz"))
    arrays["fc.bias"][3] = np.nan
    np.savez(folder / "model.npz", **arrays)


def take_another_network(folder):
    (folder / "model.npz").unlink()
    torch.save({"fc.weight": torch.zeros(20, 8)}, folder / "model.pth")


WRONG = {
    truncate: "model.npz cannot be read as weights",
    plant_bomb: "model.pth cannot be read as weights",
    drop_a_class: "has 20 outputs, but class_name.json names 19 classes",
    spoil_a_weight: "answers NaN or infinity",
    take_another_network: "does not fit shufflenet_v2_x0_5",
    lambda folder: (folder / "class_name.json").unlink(): "class_name.json",
}


@pytest.mark.slow
@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_a_model_that_cannot_be_served_is_not_published(spoil, models, source, settings):
    spoil(source)
    with pytest.raises(BundleError) as refused:
        publish(source, models / "pictograms", settings(device="cpu"))
    assert WRONG[spoil] in str(refused.value)
    assert sorted(path.name for path in (models / "pictograms").iterdir()) == ["1"]
    assert not os.path.exists("/tmp/bomb-went-off")


@pytest.mark.slow
def test_a_refusal_is_one_line_and_a_status(models, source):
    truncate(source)
    done = run_publish(source, models / "pictograms", device="cpu")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("not published: ")
    assert "model.npz cannot be read as weights" in last
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (models / "pictograms").iterdir()) == ["1"]


def test_a_bad_version_copied_by_hand_is_refused_and_the_old_one_keeps_serving(
    start_server, models, copy_converted, tiny_models
):
    server = start_server(models=str(models)).wait_ready()
    before = server.predict(STREET.read_bytes()).json()
    copy_converted(models / "pictograms" / "2")
    truncate(models / "pictograms" / "2")
    wait_until(lambda: "refused: pictograms, version 2" in server.log("watch"), 60)
    (refused,) = [line for line in server.log_lines("watch") if "refused" in line["message"]]
    assert "model.npz cannot be read as weights" in refused["message"]
    assert server.predict(STREET.read_bytes()).json() == before
    assert live(server) == [{1}]

    whole = tiny_models / "demo" / "1" / "model.npz"
    shutil.copy(whole, models / "pictograms" / "2" / "model.npz")
    wait_until(lambda: live(server) == [{2}], 90)
    assert server.predict(STREET.read_bytes()).headers["X-Model-Version"] == "2"


def test_versions_can_be_named_and_follow_the_folder(start_server, models, copy_converted):
    copy_converted(models / "pictograms" / "2")
    server = start_server(models=str(models), versions="all").wait_ready()
    assert live(server) == [{1, 2}]
    shutil.rmtree(models / "pictograms" / "2")
    wait_until(lambda: live(server) == [{1}], 30)
    shutil.rmtree(models / "pictograms" / "1")
    wait_until(lambda: "what is served goes on" in server.log("watch"), 30)
    assert requests.get(f"{server.url}/readyz", timeout=10).status_code == 200


def test_several_models_with_labels_and_shares_follow_their_file(
    start_server, copy_converted, tmp_path
):
    """One network has two names, so that all is ready in a moment."""
    for version in ("pictograms/1", "pictograms/2", "signs/5"):
        copy_converted(tmp_path / version)
    file = tmp_path / "models.config"
    first = """config {
      name: "pictograms" base_path: "pictograms" model_version_policy { all {} }
      version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }
      traffic { key: "stable" value: 1 } traffic { key: "canary" value: 1 } }"""
    file.write_text("model_config_list {" + first + "}")
    server = start_server(models_file=str(file)).wait_ready()
    data = STREET.read_bytes()

    def answering(user):
        headers = server.predict(data, headers={"X-Routing-Key": user}).headers
        return headers["X-Model-Name"], headers["X-Model-Version"]

    users = {str(user): answering(str(user)) for user in range(12)}
    assert set(users.values()) == {("pictograms", "1"), ("pictograms", "2")}
    assert {user: answering(user) for user in users} == users

    second = 'config { name: "signs" base_path: "signs" }'
    file.write_text("model_config_list {" + first + second + "}")
    known = f"{server.url}/v1/models/signs"

    def states():
        found = requests.get(known, timeout=10).json().get("model_version_status", [])
        return {status["version"]: status["state"] for status in found}

    wait_until(lambda: states() == {"5": "AVAILABLE"}, 30)

    file.write_text("model_config_list { confg {} }")  # a typo: the served versions stay
    wait_until(lambda: "confg" in server.log("watch"), 10)
    assert answering("0") == users["0"]

    file.write_text("model_config_list {" + second + "}")
    wait_until(lambda: answering("0") == ("signs", "5"), 30)


@pytest.mark.slow
def test_a_full_disk_while_publishing_is_one_line_and_leaves_nothing(models, source):
    disk = models / "pictograms"
    change_model(source)
    program = (
        "import os, sys; from app.commands.publish import main\n"
        f"sys.argv = ['publish', {str(source)!r}, sys.argv[1]]\n"
        "try: main()\n"
        "except SystemExit as error: print(error)\n"
        "print(os.listdir(sys.argv[2]))"
    )
    size = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file()) // 1024
    done = on_small_disk(disk, size + 1000, program)
    message, left = done.stdout.splitlines()
    assert message.startswith("not published: [Errno 28] No space left on device")
    assert message.endswith("; nothing was changed")
    assert left == "['1']"
