"""model.json accepts every documented key and reports every fault."""

import dataclasses
import json

import pytest

from app.errors import BundleError
from app.models.bundle import open_bundle
from app.models.config import DEFAULT, ModelConfig
from app.processing.decision import Decision
from app.processing.images import InputTransform

NAMES = {"0": "Rust", "1": "Scab", "2": "Mildew"}


@pytest.fixture
def config_of(tmp_path):
    """Return a reader of the config of a model of three classes with this text as its model.json."""
    (tmp_path / "model.pth").write_bytes(b"weights")
    (tmp_path / "class_name.json").write_text(json.dumps(NAMES))

    def read(content) -> ModelConfig:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "model.json").write_text(text)
        return open_bundle(tmp_path, "leaves", 1).config

    return read


def test_a_model_without_a_config_is_a_multi_label_resnet50(config_of):
    assert config_of({}) == config_of({"description": "Leaves.", "scores": {"f1": 0.9}}) == DEFAULT
    assert DEFAULT.architecture == "resnet50"
    assert DEFAULT.transform == InputTransform(224, None)
    assert DEFAULT.mean == (0.485, 0.456, 0.406)
    assert DEFAULT.deviation == (0.229, 0.224, 0.225)
    assert DEFAULT.decision == Decision("sigmoid", 0.5, "logit", None)


def test_the_defaults_may_be_written_down(config_of):
    written = {
        "architecture": "resnet50",
        "input_size": 224,
        "crop": None,
        "mean": [0.485, 0.456, 0.406],
        "deviation": [0.229, 0.224, 0.225],
        "activation": "sigmoid",
        "threshold": 0.5,
        "threshold_on": "logit",
    }
    assert config_of(written) == DEFAULT


def test_every_key_is_applied(config_of):
    config = config_of(
        {
            "architecture": "vit_b_16",
            "input_size": 384,
            "crop": {"resize": 400},
            "interpolation": "nearest",
            "antialias": False,
            "channels": "BGR",
            "input_range": [0, 1],
            "source": "https://example.org/vit_b_16.pth",
            "license": "BSD-3-Clause",
            "mean": [0.5, 0, 1],
            "deviation": [1, 0.5, 0.25],
            "activation": "softmax",
            "top_k": 3,
        }
    )
    assert config == ModelConfig(
        "vit_b_16",
        InputTransform(384, 400, "nearest", False),
        (0.5, 0, 1),
        (1, 0.5, 0.25),
        Decision("softmax", top_k=3),
        "BGR",
    )


@pytest.mark.parametrize(
    ("content", "decision"),
    [
        ({"activation": "softmax"}, Decision("softmax", top_k=1)),
        ({"activation": "softmax", "threshold": 2}, Decision("softmax", 2.0)),
        ({"top_k": 2}, Decision(top_k=2)),
        ({"threshold": -3}, Decision(threshold=-3.0)),
        ({"threshold": 0.7, "threshold_on": "score"}, Decision("sigmoid", 0.7, "score")),
        ({"threshold": [0, 1, 2.5]}, Decision(threshold=(0.0, 1.0, 2.5))),
    ],
)
def test_the_rule_follows_from_the_keys(config_of, content, decision):
    assert config_of(content).decision == decision


SIDES = "a whole number of px from 1 to 2048"
CROP = r'null, or \{"resize": px of the shorter side, from 224 \(input_size\) to 2048\}'
THRESHOLD = "a number, or a list of 3 such numbers, one for each class"
ON_SCORE = "a number from 0 to 1, or a list of 3"
DEVIATION = r"three numbers above 0, up to 1 \(input_range is \[0, 1\]\), for red, green and blue"
WRONG = [
    ({"description": 7}, "description is 7; expected a printable text"),
    ({"architecture": 50}, "architecture is 50; expected the name of a torchvision classifier"),
    ({"input_size": "224"}, f'input_size is "224"; expected {SIDES}'),
    ({"input_size": 0}, f"input_size is 0; expected {SIDES}"),
    ({"input_size": 2049}, f"input_size is 2049; expected {SIDES}"),
    ({"input_size": True}, f"input_size is true; expected {SIDES}"),
    ({"input_size": [224, 224]}, rf"input_size is \[224, 224\]; expected {SIDES}"),
    ({"input_size": 224.0}, rf"input_size is 224\.0; expected {SIDES}"),
    ({"crop": 256}, f"crop is 256; expected {CROP}"),
    ({"crop": {}}, rf"crop is \{{\}}; expected {CROP}"),
    ({"crop": {"resize": 223}}, rf'crop is \{{"resize": 223\}}; expected {CROP}'),
    ({"crop": {"resize": 256, "side": 2}}, f"expected {CROP}"),
    ({"mean": 0.5}, r"mean is 0\.5; expected three numbers from 0 to 1"),
    ({"mean": [0.5, 0.5]}, r"mean is \[0\.5, 0\.5\]; expected three numbers from 0 to 1"),
    ({"mean": [123.7, 116.3, 103.5]}, r"mean is \[123\.7, 116\.3, 103\.5\]; expected three"),
    ({"deviation": [0, 1, 1]}, rf"deviation is \[0, 1, 1\]; expected {DEVIATION}"),
    ({"deviation": ["a", 1, 1]}, rf'deviation is \["a", 1, 1\]; expected {DEVIATION}'),
    ({"interpolation": "cubic"}, r'interpolation is "cubic"; expected "nearest", .* or "lanczos"'),
    ({"interpolation": 3}, r'interpolation is 3; expected "nearest", "nearest-exact", "bilinear"'),
    ({"antialias": "no"}, 'antialias is "no"; expected true or false'),
    (
        {"interpolation": "bicubic", "antialias": False},
        "antialias is false; expected true with the interpolation bicubic",
    ),
    ({"channels": "bgr"}, 'channels is "bgr"; expected "RGB" or "BGR"'),
    ({"input_range": 255}, r"input_range is 255; expected \[0, 1\] or \[0, 255\]"),
    (
        {"input_range": [0, 1], "mean": [104, 117, 123]},
        r"from 0 to 1 \(input_range is \[0, 1\]\), for red",
    ),
    (
        {"channels": "BGR", "input_range": [0, 255], "mean": [104, 117, 256]},
        r"256\]; expected three numbers from 0 to 255 .* for blue, green and red, or null for none",
    ),
    ({"input_range": [0, 255], "deviation": 0}, "expected three numbers above 0, up to 255"),
    ({"source": 7}, "source is 7; expected a printable text"),
    ({"activation": "relu"}, 'activation is "relu"; expected "sigmoid" or "softmax"'),
    ({"activation": None}, 'activation is null; expected "sigmoid" or "softmax"'),
    ({"threshold": "high"}, f'threshold is "high"; expected {THRESHOLD}'),
    ({"threshold": [0.5, 0.5]}, rf"threshold is \[0\.5, 0\.5\]; expected {THRESHOLD}"),
    ({"threshold": [0.5, 0.5, None]}, f"null]; expected {THRESHOLD}"),
    ('{"threshold": NaN}', f"threshold is NaN; expected {THRESHOLD}"),
    ('{"threshold": -Infinity}', f"threshold is -Infinity; expected {THRESHOLD}"),
    ({"threshold": 10**400}, f"threshold is 10{{59}}…; expected {THRESHOLD}"),
    ({"threshold": 50, "threshold_on": "score"}, f"threshold is 50; expected {ON_SCORE}"),
    ({"threshold": 1, "threshold_on": "both"}, '"both"; expected "logit" or "score"'),
    ({"threshold_on": "score"}, 'threshold_on is "score"; expected a threshold beside it'),
    ({"top_k": 0}, "top_k is 0; expected a whole number from 1 to 3, the number of classes"),
    ({"top_k": 4}, "top_k is 4; expected a whole number from 1 to 3, the number of classes"),
    ({"top_k": 1.0}, r"top_k is 1\.0; expected a whole number from 1 to 3"),
    (
        {"top_k": 1, "threshold": 0.5},
        "top_k is 1; expected no top_k beside a threshold: one of the two decides",
    ),
    ({"architektur": "x", "topk": 1}, r"unknown keys \['architektur', 'topk'\]; known are \['act"),
    ("[]", "expected a JSON object, found list"),
]


@pytest.mark.parametrize(("content", "message"), WRONG)
def test_an_invalid_value_is_refused_with_file_key_value_and_expected_form(
    config_of, tmp_path, content, message
):
    with pytest.raises(BundleError, match=rf"^{tmp_path}/model\.json: .*{message}"):
        config_of(content)


def test_any_change_changes_the_config_digest_but_crop_and_decision_keep_the_network():
    networks = [
        dataclasses.replace(DEFAULT, **change)
        for change in (
            {"architecture": "resnet18"},
            {"transform": InputTransform(256)},
            {"mean": (0.5, 0.5, 0.5)},
            {"deviation": (0.5, 0.5, 0.5)},
        )
    ]
    same_network = [
        dataclasses.replace(DEFAULT, **change)
        for change in (
            {"transform": InputTransform(224, 256)},
            {"decision": Decision("softmax")},
            {"decision": Decision(threshold=0.4)},
            {"decision": Decision(threshold=(0.4, 0.5))},
            {"decision": Decision(top_k=1)},
        )
    ]
    assert len({config.digest() for config in [DEFAULT, *networks, *same_network]}) == 10
    assert len({config.network_digest("a") for config in [DEFAULT, *networks, *same_network]}) == 5
    assert DEFAULT.network_digest("a") != DEFAULT.network_digest("b")
