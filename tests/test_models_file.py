"""The models file is read as TensorFlow Serving's own guide writes it, and in JSON."""

import json

import pytest

from app.control.repository import Policy, ServedModel, read_repository
from app.errors import BundleError

TEXT = """
# After TensorFlow Serving's guide, "Serving configuration".
model_config_list {
  config {
    name: 'resnet'
    base_path: '/models/resnet'
    model_platform: 'tensorflow'
    model_version_policy { specific { versions: 42  versions: 43 } }
    version_labels { key: 'stable'  value: 42 }
    version_labels { key: 'canary'  value: 43 }
    traffic { key: 'stable'  value: 95 }
    traffic { key: 'canary'  value: 5 }
  }
  config: { name: "leaves", base_path: "leaves", model_version_policy: { latest: { num_versions: 2 } } }
  config { name: "birds" base_path: "birds" model_version_policy { all {} } }
}
"""
JSON = {
    "model_config_list": {
        "config": [
            {
                "name": "resnet",
                "base_path": "/models/resnet",
                "model_platform": "tensorflow",
                "model_version_policy": {"specific": {"versions": [42, 43]}},
                "version_labels": {"stable": 42, "canary": 43},
                "traffic": {"stable": 95, "canary": 5},
            },
            {
                "name": "leaves",
                "base_path": "leaves",
                "model_version_policy": {"latest": {"num_versions": 2}},
            },
            {"name": "birds", "base_path": "birds", "model_version_policy": {"all": {}}},
        ]
    }
}


@pytest.fixture
def read(settings, tmp_path):
    """Return a reader of a models file with that text."""

    def read_text(text, **rows):
        path = tmp_path / "models.config"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return read_repository(settings(models_file=str(path), **rows)).models

    return read_text


def one(**fields):
    """Return a file of one model."""
    config = {"name": "voc", "base_path": "voc"} | fields
    return {"model_config_list": {"config": [config]}}


@pytest.mark.parametrize("content", [TEXT, JSON], ids=["text", "JSON"])
def test_both_forms_are_equivalent(read, tmp_path, content):
    resnet, leaves, birds = read(content)
    assert resnet.name == "resnet"
    assert str(resnet.folder) == "/models/resnet"
    assert resnet.policy == Policy(specific=(42, 43))
    assert resnet.labels == {"stable": 42, "canary": 43}
    assert resnet.traffic == {"stable": 95, "canary": 5}
    assert leaves == ServedModel("leaves", tmp_path / "leaves", Policy(latest=2))
    assert birds.policy == Policy(latest=0)


def test_the_highest_version_is_served_without_a_policy(read):
    (config,) = read(one())
    assert config.policy == Policy(latest=1)
    (config,) = read(one(model_version_policy={"latest": {}}))
    assert config.policy == Policy(latest=1)


def test_the_first_model_is_the_default_unless_another_is_named(read):
    assert [config.name for config in read(TEXT)] == ["resnet", "leaves", "birds"]
    assert [config.name for config in read(TEXT, model="birds")] == ["birds", "resnet", "leaves"]
    with pytest.raises(BundleError, match="names no 'cats', only"):
        read(TEXT, model="cats")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it names no model"),
        ("model_config_list { confg {} }", 'no field named "confg"'),
        ("model_config_list { config {", "Expected"),
        ('{"model_config_list": [', "line 1 column 24"),
        ({"models": []}, 'no field named "models"'),
        (one(name=""), "name and base_path are needed"),
        (one(base_path=""), "name and base_path are needed"),
        (one(name="a/b"), "the name holds '/', which has a meaning of its own"),
        (one(name="\u202ea"), "the name holds U+202E, which is not printable"),
        (one(base_path="s3://bucket/voc"), "'s3://bucket/voc' is no folder of this machine"),
        ("{" * 5000, "models.config"),
        ('{"a":' * 5000, "models.config"),
        (one(version_labels={"a b": 1}), "the label 'a b' is not made of"),
        (one(version_labels={"a": "x"}), "version_labels"),
        (one(traffic={"canary": 1}), "traffic to 'canary', which is neither a label nor a number"),
        (one(traffic={"3": 0}), "the shares of its traffic are all 0"),
        (one(traffic={"3": -1}), "traffic"),
        (
            {"model_config_list": {"config": one()["model_config_list"]["config"] * 2}},
            "there twice",
        ),
    ],
)
def test_an_invalid_entry_is_reported_with_its_location(read, content, message):
    with pytest.raises(BundleError) as error:
        read(content)
    assert "models.config: " in str(error.value)
    assert message in str(error.value)


def test_a_missing_file_is_reported(settings, tmp_path):
    with pytest.raises(BundleError, match=r"absent\.config"):
        read_repository(settings(models_file=str(tmp_path / "absent.config")))


def test_the_settings_name_one_model_without_a_file(settings, tmp_path):
    for name in ("voc", "demo"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.pth").write_bytes(b"")
    (config,) = read_repository(settings(models=str(tmp_path), versions="all")).models
    assert config == ServedModel("voc", tmp_path / "voc", Policy(latest=0))
