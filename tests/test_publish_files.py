"""scripts/publish copies valid files and refuses others; only the measurement is made quick here."""

import json
import os
import stat

import pytest

from app.commands import publish as publish_module
from app.commands.publish import describe_answer, publish
from app.control.footprint import Footprint
from app.errors import BundleError
from app.models.bundle import write_sums
from tests.test_untrusted_files import SPECIAL, make_bundle, make_special

NEEDS = Footprint("openvino", "fp32", "cpu", "asked for", 10**8)


@pytest.fixture
def publish_copy(settings, tmp_path, monkeypatch):
    """Return a function that publishes tmp_path/new as a model of tmp_path/models; weights "bad" are refused."""

    def find_footprint(_settings, artifacts):
        weights = artifacts.bundle.weights
        if weights.read_bytes() == b"bad":
            raise BundleError(f"{weights.resolve()} cannot be read as weights")
        return NEEDS

    monkeypatch.setattr(publish_module, "find_footprint", find_footprint)
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "new")
    (tmp_path / "models").mkdir()

    def make(name="leaves", **rows):
        rows = {"models": str(tmp_path / "models"), "cache": str(tmp_path / "cache")} | rows
        chosen = settings(**rows)
        version = publish(tmp_path / "new", tmp_path / "models" / name, chosen)
        return version, describe_answer(version, chosen)

    return make


def test_derived_and_unknown_files_are_not_copied(publish_copy, tmp_path):
    for name in ("precision.json", "optimized/a/fp32.bin", "README", "calibration/cats/a.jpg"):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / name).write_text("{}")
    (tmp_path / "new" / "model.pth").chmod(0o600)
    old = os.umask(0o077)
    version, _ = publish_copy()
    os.umask(old)
    found = {str(path.relative_to(version)) for path in version.rglob("*")}
    files = {"model.pth", "class_name.json", "SHA256SUMS"}
    assert found == files | {"calibration", "calibration/cats", "calibration/cats/a.jpg"}
    for path in (version, *version.rglob("*")):
        mode = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == mode, path


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize(
    "name", ["model.pth", "class_name.json", "model.json", "calibration/a.jpg", "calibration"]
)
def test_links_and_special_files_are_not_published(publish_copy, tmp_path, name, kind):
    if "/" in name:
        (tmp_path / "new" / "calibration").mkdir()
    if (name, kind) in {("calibration", "folder"), ("calibration/a.jpg", "folder")}:
        return  # folders of images are fine
    make_special(tmp_path / "new" / name, kind)
    with pytest.raises(BundleError, match=f"new/{name}"):
        publish_copy()
    assert not (tmp_path / "models" / "leaves").exists()


def test_a_link_within_the_source_is_not_published_either(publish_copy, tmp_path):
    (tmp_path / "new" / "class_name.json").rename(tmp_path / "new" / "names.json")
    (tmp_path / "new" / "class_name.json").symlink_to("names.json")
    with pytest.raises(BundleError, match="is a link, which is not followed: publish a copy"):
        publish_copy()


def test_a_refused_source_is_named_by_its_own_path_and_leaves_nothing(publish_copy, tmp_path):
    (tmp_path / "new" / "model.pth").write_bytes(b"bad")
    with pytest.raises(BundleError) as error:
        publish_copy()
    assert str(error.value) == f"{tmp_path}/new/model.pth cannot be read as weights"
    assert not list((tmp_path / "models").iterdir())
    (tmp_path / "models" / "leaves").mkdir()
    with pytest.raises(BundleError):
        publish_copy()
    assert (tmp_path / "models" / "leaves").exists()  # it was there before


@pytest.mark.parametrize(
    ("found", "name"), [("best.pt", "model.pth"), ("a.safetensors", "model.safetensors")]
)
def test_weights_of_another_name_are_refused_with_the_right_one(
    publish_copy, tmp_path, found, name
):
    (tmp_path / "new" / "model.pth").rename(tmp_path / "new" / found)
    with pytest.raises(BundleError) as error:
        publish_copy()
    assert str(error.value).endswith(f"; if {tmp_path}/new/{found} is a state_dict, call it {name}")


def test_a_source_that_does_not_match_its_checksums_is_refused(publish_copy, tmp_path):
    write_sums(tmp_path / "new")
    (tmp_path / "new" / "model.pth").write_bytes(b"cut o")
    with pytest.raises(BundleError) as error:
        publish_copy()
    assert (
        str(error.value) == f"{tmp_path}/new/model.pth is not what SHA256SUMS says: copy it again"
    )
    write_sums(tmp_path / "new")
    assert publish_copy()[0].name == "1"


@pytest.mark.parametrize("name", ["a:b", ".hidden", "a\nb", "a" * 201])
def test_an_unusable_model_name_is_refused(publish_copy, tmp_path, name):
    with pytest.raises(BundleError, match="a model's name"):
        publish_copy(name)
    assert not list((tmp_path / "models").iterdir())


def test_publish_names_the_version_that_will_answer(publish_copy, tmp_path):
    version, message = publish_copy("叶子")
    assert version == tmp_path / "models" / "叶子" / "1"
    assert message.startswith("it answers as 叶子, version 1, and is the default")
    os.utime(version / "model.pth", (1, 1))
    _, message = publish_copy("acorns")
    assert message.startswith(
        "it answers as acorns, version 1; requests that name no model go on to 叶子"
    )
    assert "SERVING_MODEL" in message
    _, message = publish_copy("acorns", model="叶子")
    assert message == "it is not served: SERVING_MODEL=叶子 names another folder"
    _, message = publish_copy("acorns", versions="1")
    assert "only the versions (1,) are wanted" in message
    file = tmp_path / "models.config"
    configs = [{"name": name, "base_path": "models/acorns"} for name in ("oak", "mast")]
    file.write_text(json.dumps({"model_config_list": {"config": configs}}))
    _, message = publish_copy("acorns", models_file=str(file))
    assert message.startswith("it answers as oak, mast, version 4, and is the default")


def test_publishing_into_a_bare_model_makes_its_next_version(publish_copy, tmp_path):
    make_bundle(tmp_path / "models")
    version, message = publish_copy("", models=str(tmp_path / "models"))
    assert version == tmp_path / "models" / "2"
    assert message.startswith("it answers as models, version 2, and is the default")
