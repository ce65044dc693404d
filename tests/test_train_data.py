"""Training reads Pascal VOC's folders, tables and pixels, and names every fault in them."""

import threading

import numpy as np
import pytest
import torch

from app.processing.images import decode_image
from scripts.demo_scenes import CLASS_NAMES
from scripts.training.examples import make_targets
from scripts.training.loop import masked_loss
from scripts.training.measure import score
from scripts.training.options import parse_options
from scripts.training.pictures import Reader, choose_crop, read_ahead
from scripts.training.table import read_table
from scripts.training.voc import CLASS_INDICES, read_voc
from tests.drawn_voc import (
    TRAINING,
    VALIDATION,
    draw_devkit,
    draw_image,
    error_of,
    write_annotation,
)
from tests.helpers import ROOT, SAMPLES

READER = Reader(max_pixels=10_000_000, exif_rotate=False)


# Images and labels


def test_the_twenty_classes_of_voc_have_this_projects_names():
    assert len(CLASS_INDICES) == 20
    for theirs, ours in (
        ("aeroplane", "Aeroplane"),
        ("diningtable", "Dining Table"),
        ("pottedplant", "Potted Plant"),
        ("tvmonitor", "TV Monitor"),
    ):
        assert CLASS_NAMES[CLASS_INDICES[theirs]] == ours


def test_a_vocdevkit_is_read_in_its_two_parts(examples):
    assert (len(examples.training), len(examples.validation)) == (TRAINING, VALIDATION)
    assert list(examples.class_names) == CLASS_NAMES
    third = examples.training[2]
    assert [CLASS_NAMES[label] for label in third.labels] == ["Aeroplane", "Car"]
    assert third.image.name == "000003.jpg"
    assert "Sofa" in examples.unseen_classes()
    assert "Car" not in examples.unseen_classes()


def test_voc2012_beside_voc2007_is_read_too(devkit):
    draw_devkit(devkit, "VOC2012", training=3, validation=2)
    examples = read_voc(devkit)
    assert len(examples.training) == TRAINING + 3
    assert len(examples.validation) == VALIDATION + 2
    assert examples.title == "VOC2007 and VOC2012"


def test_an_image_set_of_only_one_year_is_taken_from_that_year(devkit):
    draw_devkit(devkit, "VOC2012", training=3, validation=2)
    (devkit / "VOC2012" / "ImageSets" / "Main" / "val.txt").unlink()
    assert len(read_voc(devkit).validation) == VALIDATION


def test_a_difficult_object_is_not_a_label(devkit):
    objects = [("car", 1), ("diningtable", 0), ("aeroplane", 0), ("aeroplane", 1)]
    write_annotation(devkit / "VOC2007", "000001", objects)
    example = read_voc(devkit).training[0]
    assert [CLASS_NAMES[label] for label in example.labels] == ["Aeroplane", "Dining Table"]
    assert [CLASS_NAMES[label] for label in example.unsure] == ["Car"]


def test_a_difficult_object_is_not_a_negative_example_either(devkit):
    write_annotation(devkit / "VOC2007", "000101", [("car", 1)])
    held_out = read_voc(devkit).validation
    targets, known = make_targets(held_out, 20)
    car = CLASS_INDICES["car"]
    assert not known[0, car]
    assert known.sum() == known.size - 1
    logits = np.where(targets > 0.5, 1, -1).astype(np.float32)
    logits[0, car] = 9  # the network sees it, and is not blamed
    scores = score(logits, held_out, CLASS_NAMES)
    assert scores["average_precision"]["Car"] == 1
    assert scores["exact_label_sets"] == 1
    losses = [
        masked_loss(
            torch.full((6, 20), 0.3).index_put((torch.tensor(0), torch.tensor(car)), value),
            torch.from_numpy(targets),
            torch.from_numpy(known),
        )
        for value in (torch.tensor(-5.0), torch.tensor(5.0))
    ]
    assert losses[0] == losses[1]


def write_table(folder, text, images=("a", "b", "c", "d", "e")):
    for name in images:
        draw_image(folder / f"{name}.jpg", ["car"])
    (folder / "table.csv").write_text(text)
    return folder / "table.csv"


def test_a_table_lists_images_labels_and_parts(tmp_path):
    text = "image,labels,part\na.jpg,Red Car; Sky,train\nb.jpg,,train\nc.jpg,Sky|Road,val\n"
    examples = read_table(write_table(tmp_path, text))
    assert examples.class_names == ("Red Car", "Road", "Sky")
    assert [e.labels for e in examples.training] == [(0, 2), ()]
    assert [e.labels for e in examples.validation] == [(1, 2)]
    assert examples.training[0].image == tmp_path / "a.jpg"


def test_a_table_without_parts_is_split_alike_in_any_order_of_its_lines(tmp_path):
    rows = [f"{name}.jpg,Car" for name in "abcde"]
    parts = [
        read_table(write_table(tmp_path, "\n".join(["\ufeffimage,labels", *lines])))
        for lines in (rows, rows[::-1])
    ]
    assert len(parts[0].validation) == 1
    assert parts[0].validation == parts[1].validation
    half = read_table(tmp_path / "table.csv", validation_share=0.4)
    assert len(half.validation) == 2


def test_the_samples_table_can_be_read():
    examples = read_table(SAMPLES / "labels.csv", classes=ROOT / "models/demo/1/class_name.json")
    assert list(examples.class_names) == CLASS_NAMES
    assert len(examples.training) + len(examples.validation) == 8


# Faults are named


def test_a_folder_that_is_not_a_vocdevkit_is_named(devkit, tmp_path):
    assert "expected the folder VOCdevkit" in error_of(read_voc, devkit / "VOC2007")
    (devkit / "VOC2007" / "Annotations").rename(tmp_path / "elsewhere")
    assert "VOC2007/Annotations" in error_of(read_voc, devkit)


def test_an_unknown_class_is_named_with_its_file(devkit):
    write_annotation(devkit / "VOC2007", "000004", [("unicorn", 0)])
    message = error_of(read_voc, devkit)
    assert "000004.xml" in message
    assert "'unicorn'" in message
    assert "diningtable" in message


def test_a_damaged_or_missing_annotation_is_named(devkit):
    file = devkit / "VOC2007" / "Annotations" / "000004.xml"
    file.write_text("<annotation>")
    assert "000004.xml cannot be read as XML" in error_of(read_voc, devkit)
    file.unlink()
    assert "000004.xml is missing" in error_of(read_voc, devkit)


def test_a_missing_image_is_named(devkit):
    (devkit / "VOC2007" / "JPEGImages" / "000005.jpg").unlink()
    assert "000005.jpg is missing" in error_of(read_voc, devkit)


def test_a_missing_or_empty_image_set_or_one_of_a_class_is_named(devkit):
    main = devkit / "VOC2007" / "ImageSets" / "Main"
    (main / "car_train.txt").write_text("000001  1\n000002 -1\n")
    assert "test.txt is missing" in error_of(read_voc, devkit, validation="test")
    message = error_of(read_voc, devkit, training="car_train")
    assert "car_train.txt, line 1" in message
    (main / "val.txt").write_text("\n")
    assert "the validation part is empty" in error_of(read_voc, devkit)


def test_parts_that_share_an_image_are_refused(devkit):
    assert "000001.jpg" in error_of(read_voc, devkit, validation="train")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("picture,labels\na.jpg,Car\n", "the column 'image' is missing"),
        ("image\na.jpg\n", "the column 'labels' is missing"),
        ("", "the column 'image' is missing"),
        ("image,labels\na.jpg,Car,Dog\n", "line 2: more cells than columns"),
        ("image,labels\na.jpg,Car\na.jpg,Dog\n", "line 3: 'a.jpg' stands at"),
        ("image,labels\n,Car\n", "line 2: no image"),
        ("image,labels\na.jpg,\n", "no line has a label"),
        ("image,labels\n", "no line has a label"),
        ("image,labels,part\na.jpg,Car,test\n", "line 2: the part is 'test'"),
        ("image,labels\na.jpg,Car\n", "the training part is empty"),
        ("image,labels\na.jpg,Car\nnone.jpg,Car\n", "none.jpg is missing"),
    ],
)
def test_a_fault_in_a_table_is_named(tmp_path, text, expected):
    file = write_table(tmp_path, text)
    message = error_of(read_table, file)
    assert expected in message
    assert str(tmp_path) in message


def test_a_table_that_is_not_text_is_named(tmp_path):
    file = write_table(tmp_path, "")
    file.write_bytes(b"image,labels\n\xff\xfe.jpg,Car\n")
    assert "table.csv cannot be read as CSV in UTF-8" in error_of(read_table, file)


def test_a_label_that_the_classes_do_not_have_is_named(tmp_path):
    file = write_table(tmp_path, "image,labels\na.jpg,Car\nb.jpg,Cra\n")
    (tmp_path / "names.json").write_text('{"0": "Car", "1": "Dog"}')
    message = error_of(read_table, file, classes=tmp_path / "names.json")
    assert "line 3: unknown class 'Cra'" in message
    assert "Car, Dog" in message
    assert "absent.json" in error_of(read_table, file, classes=tmp_path / "absent.json")


def test_a_damaged_image_is_named(tmp_path):
    path = tmp_path / "bad.jpg"
    draw_image(path, ["car"])
    path.write_bytes(path.read_bytes()[:400])
    rng = np.random.default_rng(0)
    assert "bad.jpg" in error_of(READER.read_served, path)
    assert "bad.jpg" in error_of(READER.read_varied, path, 64, rng)
    path.write_bytes(b"no picture")
    assert "bad.jpg" in error_of(READER.read_varied, path, 64, rng)
    path.unlink()
    assert "bad.jpg" in error_of(READER.read_served, path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--epochs", "0"], "--epochs: '0'; expected a whole number from 1 on"),
        (["--rate", "fast"], "--rate: 'fast'; expected a number between 0 and 1"),
        (["--rate", "nan"], "--rate: 'nan'"),
        (["--side", "32"], "--side: '32'; expected a whole number from 64 on"),
        (["--device", "tpu"], "--device: 'tpu'; expected auto, cpu, cuda or cuda:N"),
        (["--head-only", "--weights", "none"], "would leave the trunk as chance made it"),
    ],
)
def test_an_invalid_option_is_refused_at_once(capsys, words, expected):
    with pytest.raises(SystemExit):
        parse_options(["--data", "x", "--out", "y", *words])
    assert expected in capsys.readouterr().err


# Pixels


def test_validation_prepares_images_as_the_server_does(examples):
    path = examples.validation[0].image
    with path.open("rb") as file:
        assert np.array_equal(READER.read_served(path), decode_image(file, 10**7))


def test_a_crop_of_the_whole_image_equals_the_servers_image(examples, monkeypatch):
    from scripts.training import pictures

    monkeypatch.setattr(pictures, "CROP_AREA", (1.0, 1.0))
    monkeypatch.setattr(pictures, "CROP_STRETCH", 1.0)
    path = examples.training[2].image
    served = READER.read_served(path)
    seen = [READER.read_varied(path, 224, np.random.default_rng(seed)) for seed in range(6)]
    mirrored = [np.array_equal(pixels, served[:, :, ::-1]) for pixels in seen]
    assert all(np.array_equal(p, served) or m for p, m in zip(seen, mirrored, strict=True))
    assert 0 < sum(mirrored) < 6


def test_a_crop_is_inside_the_image_and_keeps_most_of_it():
    for seed in range(200):
        left, top, right, bottom = choose_crop(90, 70, np.random.default_rng(seed))
        assert 0 <= left < right <= 90
        assert 0 <= top < bottom <= 70
        assert (right - left) * (bottom - top) >= 0.59 * 90 * 70


def test_images_are_read_ahead_in_order_with_a_limit():
    requested = []

    def jobs():
        for number in range(50):
            requested.append(number)
            yield number

    answers = read_ahead(lambda number: number * 2, jobs(), threads=3, ahead=5)
    assert [next(answers) for _ in range(10)] == list(range(0, 20, 2))
    assert len(requested) <= 15
    answers.close()
    assert not [thread for thread in threading.enumerate() if "picture" in thread.name]
