"""A model that answers the same to everything is told in the log, once."""

import numpy as np
import pytest

from app.models.bundle import Bundle
from app.serving.first_look import IMAGES, FirstLook
from tests.helpers import gray, make_light

PNG = {"Content-Type": "image/png"}
NAMES = tuple(f"class {index}" for index in range(10))


@pytest.fixture
def warnings(caplog):
    """Return the warnings so far."""
    return lambda: [
        line.message for line in caplog.records if line.name == "app.serving.first_look"
    ]


def look(folder, strongest, names=NAMES):
    """Show a new version images with these strongest classes."""
    first_look = FirstLook(Bundle("leaves", 3, folder, names))
    for index, label in enumerate(strongest):
        first_look.add(str(index).encode(), np.eye(len(names))[label])
    return first_look


def test_one_class_on_nearly_all_of_the_first_images_is_told_once_with_the_remedy(
    tmp_path, warnings
):
    first_look = look(tmp_path, [4] * (IMAGES - 3) + [0, 1, 2])
    (warning,) = warnings()
    assert "leaves, version 3: class 4 is the strongest class on 29 of the first 32" in warning
    assert "check channels, input_range, mean and deviation in model.json" in warning
    for index in range(IMAGES):
        first_look.add(f"later {index}".encode(), np.eye(10)[4])
    assert len(warnings()) == 1


@pytest.mark.parametrize(
    ("strongest", "names"),
    [
        ([4] * (IMAGES - 4) + [0, 1, 2, 3], NAMES),
        ([4] * (IMAGES - 1), NAMES),
        ([4] * IMAGES, NAMES[:9]),
    ],
)
def test_various_answers_few_images_and_few_classes_are_no_reason(
    tmp_path, warnings, strongest, names
):
    look(tmp_path, strongest, names)
    assert warnings() == []


def test_an_image_that_comes_again_does_not_count_again(client_of, warnings):
    def load(_settings, _slot, entry):
        return make_light(entry, lambda images: np.eye(10)[[7] * len(images)], NAMES)

    client = client_of(load)
    for level in [1] * IMAGES + list(range(2, IMAGES + 1)):
        assert not warnings()
        assert client.post("/predict", data=gray(level), headers=PNG).status_code == 200
    assert len(warnings()) == 1
