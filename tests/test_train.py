"""Training: on a VOCdevkit that is drawn here, with the real network and the real program."""

import json
import os
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from app.bundle import find_bundle
from app.images import decode_image
from app.network import build_network
from app.serving import LOGIT_THRESHOLD
from scripts.demo_scenes import CLASS_NAMES
from scripts.scores import exact_share, f1_score, mean_average_precision, tune_threshold
from scripts.training.__main__ import make_plan, open_run, train
from scripts.training.errors import Interrupted, TrainingError
from scripts.training.examples import make_targets
from scripts.training.loop import Trainer, masked_loss
from scripts.training.measure import predict, score
from scripts.training.options import make_parser, parse_options
from scripts.training.output import next_version, write_bundle
from scripts.training.pictures import Reader, choose_crop, read_ahead
from scripts.training.plan import Plan
from scripts.training.run import lock_folder
from scripts.training.start import build_classifier
from scripts.training.table import read_table
from scripts.training.voc import CLASS_INDICES, read_voc
from tests.helpers import ROOT, SAMPLES

READER = Reader(max_pixels=10_000_000, exif_rotate=False)
# What the drawn pictures show: VOC's name → colour of the shape.
SHAPES = {"aeroplane": "white", "car": "red", "diningtable": "green", "tvmonitor": "blue"}
TRAINING, VALIDATION = 12, 6


def write_annotation(year, name, objects):
    rows = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult>"
        "<part><name>head</name></part></object>"
        for label, difficult in objects
    )
    text = f"<annotation><filename>{name}.jpg</filename>{rows}</annotation>"
    (year / "Annotations" / f"{name}.xml").write_text(text)


def draw_picture(path, labels, size=(90, 70)):
    image = Image.new("RGB", size, "grey")
    pen = ImageDraw.Draw(image)
    for label in labels:
        left = 5 + 20 * list(SHAPES).index(label)
        pen.rectangle((left, 20, left + 18, 50), fill=SHAPES[label])
    image.save(path, quality=90)


def draw_devkit(devkit, year="VOC2007", training=TRAINING, validation=VALIDATION):
    """Draw a year of a VOCdevkit: picture i shows the shapes of i's bits; no tvmonitor is in the validation part."""
    folder = devkit / year
    for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    for part, start, count in (("train", 1, training), ("val", 101, validation)):
        names = [f"{start + index:06}" for index in range(count)]
        (folder / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for index, name in enumerate(names, 1):
            labels = [
                label
                for bit, label in enumerate(SHAPES)
                if index >> bit & 1 and (part, label) != ("val", "tvmonitor")
            ]
            draw_picture(folder / "JPEGImages" / f"{name}.jpg", labels)
            write_annotation(folder, name, [(label, 0) for label in labels])
    return folder


@pytest.fixture
def devkit(tmp_path):
    """Return a drawn VOCdevkit of its own."""
    draw_devkit(tmp_path / "VOCdevkit")
    return tmp_path / "VOCdevkit"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Return the examples of a drawn VOCdevkit."""
    devkit = tmp_path_factory.mktemp("shared") / "VOCdevkit"
    draw_devkit(devkit)
    return read_voc(devkit)


# Pictures and labels


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


def test_an_image_set_that_only_one_year_has_is_taken_from_there(devkit):
    draw_devkit(devkit, "VOC2012", training=3, validation=2)
    (devkit / "VOC2012" / "ImageSets" / "Main" / "val.txt").unlink()
    assert len(read_voc(devkit).validation) == VALIDATION


def test_a_difficult_object_is_no_label(devkit):
    objects = [("car", 1), ("diningtable", 0), ("aeroplane", 0), ("aeroplane", 1)]
    write_annotation(devkit / "VOC2007", "000001", objects)
    example = read_voc(devkit).training[0]
    assert [CLASS_NAMES[label] for label in example.labels] == ["Aeroplane", "Dining Table"]
    assert [CLASS_NAMES[label] for label in example.unsure] == ["Car"]


def test_a_difficult_object_is_no_proof_against_a_label_either(devkit):
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


def write_table(folder, text, pictures=("a", "b", "c", "d", "e")):
    for name in pictures:
        draw_picture(folder / f"{name}.jpg", ["car"])
    (folder / "table.csv").write_text(text)
    return folder / "table.csv"


def test_a_table_gives_pictures_labels_and_parts(tmp_path):
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


def test_the_samples_table_is_such_a_table():
    examples = read_table(SAMPLES / "labels.csv", classes=ROOT / "models/demo/1/class_name.json")
    assert list(examples.class_names) == CLASS_NAMES
    assert len(examples.training) + len(examples.validation) == 8


# What is wrong is named


def error_of(read, *words, **named):
    with pytest.raises(TrainingError) as caught:
        read(*words, **named)
    return str(caught.value)


def test_a_folder_that_is_no_vocdevkit_is_named(devkit, tmp_path):
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


def test_a_missing_picture_is_named(devkit):
    (devkit / "VOC2007" / "JPEGImages" / "000005.jpg").unlink()
    assert "000005.jpg is missing" in error_of(read_voc, devkit)


def test_an_image_set_that_is_missing_empty_or_a_classs_is_named(devkit):
    main = devkit / "VOC2007" / "ImageSets" / "Main"
    (main / "car_train.txt").write_text("000001  1\n000002 -1\n")
    assert "test.txt is missing" in error_of(read_voc, devkit, validation="test")
    message = error_of(read_voc, devkit, training="car_train")
    assert "car_train.txt, line 1" in message
    (main / "val.txt").write_text("\n")
    assert "the validation part is empty" in error_of(read_voc, devkit)


def test_parts_that_share_a_picture_are_refused(devkit):
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


def test_a_table_that_is_no_text_is_named(tmp_path):
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


def test_a_damaged_picture_is_named(tmp_path):
    path = tmp_path / "bad.jpg"
    draw_picture(path, ["car"])
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
def test_an_option_that_cannot_be_is_refused_at_once(capsys, words, expected):
    with pytest.raises(SystemExit):
        parse_options(["--data", "x", "--out", "y", *words])
    assert expected in capsys.readouterr().err


# Pixels


def test_measured_is_what_is_served(examples):
    path = examples.validation[0].image
    with path.open("rb") as file:
        assert np.array_equal(READER.read_served(path), decode_image(file, 10**7))


def test_a_crop_of_the_whole_picture_is_what_is_served(examples, monkeypatch):
    from scripts.training import pictures

    monkeypatch.setattr(pictures, "CROP_AREA", (1.0, 1.0))
    monkeypatch.setattr(pictures, "CROP_STRETCH", 1.0)
    path = examples.training[2].image
    served = READER.read_served(path)
    seen = [READER.read_varied(path, 224, np.random.default_rng(seed)) for seed in range(6)]
    mirrored = [np.array_equal(pixels, served[:, :, ::-1]) for pixels in seen]
    assert all(np.array_equal(p, served) or m for p, m in zip(seen, mirrored, strict=True))
    assert 0 < sum(mirrored) < 6


def test_a_crop_lies_in_the_picture_and_keeps_most_of_it():
    for seed in range(200):
        left, top, right, bottom = choose_crop(90, 70, np.random.default_rng(seed))
        assert 0 <= left < right <= 90
        assert 0 <= top < bottom <= 70
        assert (right - left) * (bottom - top) >= 0.59 * 90 * 70


def test_pictures_are_read_ahead_in_order_but_not_without_end():
    asked = []

    def jobs():
        for number in range(50):
            asked.append(number)
            yield number

    answers = read_ahead(lambda number: number * 2, jobs(), threads=3, ahead=5)
    assert [next(answers) for _ in range(10)] == list(range(0, 20, 2))
    assert len(asked) <= 15
    answers.close()
    assert not [thread for thread in threading.enumerate() if "picture" in thread.name]


# Scores


def test_a_tuned_threshold_is_as_good_as_the_best_of_all():
    rng = np.random.default_rng(3)
    for _ in range(200):
        logits = rng.normal(0, 1, 12).round(1).astype(np.float32)  # rounded: some are equal
        targets = (rng.random(12) < 0.4).astype(np.float32)
        if not targets.any():
            continue
        every = [f1_score(logits, targets, t) for t in np.arange(-4, 4, 0.01)]
        threshold = tune_threshold(logits, targets, 0.5)
        assert f1_score(logits, targets, threshold) == max(every)


def test_a_class_that_is_absent_keeps_the_servers_threshold():
    assert tune_threshold(np.array([3.0, -1.0]), np.zeros(2), LOGIT_THRESHOLD) == LOGIT_THRESHOLD
    assert np.isnan(f1_score(np.array([3.0]), np.zeros(1), 0.5))
    assert np.isnan(mean_average_precision(np.zeros((2, 3)), np.zeros((2, 3))))


def test_thresholds_of_many_classes_are_compared_class_by_class():
    logits = np.array([[0.1, 3.0], [0.2, 5.0]])
    targets = np.array([[1, 0], [1, 1]])
    assert exact_share(logits, targets) == 0
    assert exact_share(logits, targets, np.array([0.0, 4.0])) == 1


def test_a_class_absent_from_the_validation_part_has_no_precision_and_the_json_is_valid(examples):
    logits = np.random.default_rng(0).normal(0, 1, (VALIDATION, 20)).astype(np.float32)
    scores = score(logits, examples.validation, CLASS_NAMES)
    assert scores["average_precision"]["TV Monitor"] is None
    assert scores["average_precision"]["Car"] is not None
    json.dumps(scores, allow_nan=False)
    assert len(scores["thresholds"]) == 20
    nobody = [type(e)(e.image, ()) for e in examples.validation]
    assert score(logits, nobody, CLASS_NAMES)["mean_average_precision"] is None


# The plan


def plan_of(**changed) -> Plan:
    rows = {
        "examples": "e",
        "pictures": 10,
        "weights": "none",
        "head_only": False,
        "epochs": 3,
        "batch": 4,
        "rate": 1e-3,
        "side": 64,
        "seed": 0,
        "exif_rotate": False,
    }
    return Plan(**(rows | changed))


def test_an_epoch_takes_each_picture_at_most_once_and_goes_on_in_the_middle():
    plan = plan_of()
    jobs = list(plan.draw_order(0))
    assert plan.steps == 6
    assert len(jobs) == plan.steps * 4
    for epoch in range(3):
        chosen = [index for number, index in jobs if number == epoch]
        assert len(set(chosen)) == len(chosen) == 8
    assert list(plan.draw_order(3)) == jobs[12:]
    assert list(plan_of(seed=1).draw_order(0)) != jobs


def test_the_rate_rises_and_falls_to_nearly_nothing():
    plan = plan_of(epochs=100)
    shares = [plan.rate_share(step) for step in range(plan.steps)]
    assert max(shares) == 1
    assert 0 < shares[0] < 0.2
    assert 0 < shares[-1] < 1e-3
    assert plan_of(epochs=1, pictures=4).rate_share(0) > 0


def test_a_batch_is_no_larger_than_the_training_part():
    assert plan_of(pictures=3, batch=32).steps == 3


# The training itself


def start(examples, folder, *words, stop_before=None):
    """Train as the command line says, on one thread; stop before a step; return the run."""
    base = ["--data", "-", "--out", str(folder), "--side", "64", "--batch", "4", "--epochs", "2"]
    options = parse_options([*base, "--weights", "none", *words])
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    checkpoint = folder / "checkpoint.pth"
    run = open_run(make_plan(options, examples, False), examples, "cpu", checkpoint)

    def check():
        if run.step == stop_before:
            raise Interrupted

    Trainer(run, examples, READER, "cpu", 1, checkpoint, check).train()
    return run


def weights_of(run):
    return {name: tensor.clone() for name, tensor in run.network.classifier.state_dict().items()}


def same_weights(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(examples, tmp_path_factory):
    """Return a finished run of six steps."""
    return start(examples, tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize("step", [2, 3])
def test_a_resumed_training_ends_with_exactly_the_same_weights(
    examples, uninterrupted, tmp_path, step
):
    """Interrupted in the middle of an epoch (2), and while the epoch that step 3 ended is measured."""
    with pytest.raises(Interrupted):
        start(examples, tmp_path, stop_before=step)
    resumed = start(examples, tmp_path)
    assert same_weights(weights_of(resumed), weights_of(uninterrupted))
    assert resumed.history == uninterrupted.history
    assert resumed.scores == uninterrupted.scores


def test_the_same_seed_gives_the_same_result(examples, uninterrupted, tmp_path):
    again = start(examples, tmp_path)
    assert same_weights(weights_of(again), weights_of(uninterrupted))


def test_another_seed_gives_another_head(trained_file):
    one, other = (build_classifier(str(trained_file), 3, seed).fc.weight for seed in (0, 1))
    assert not torch.equal(one, other)


def test_a_checkpoint_of_another_plan_or_a_damaged_one_is_refused(examples, tmp_path):
    with pytest.raises(Interrupted):
        start(examples, tmp_path, stop_before=0)
    message = error_of(start, examples, tmp_path, "--batch", "3")
    assert "batch was 4, is 3" in message
    assert "--restart" in message
    (tmp_path / "checkpoint.pth").write_bytes(b"PK\x03\x04")
    assert "checkpoint.pth cannot be read" in error_of(start, examples, tmp_path)


@pytest.fixture(scope="module")
def trained_file(uninterrupted, tmp_path_factory):
    """Return a weights file."""
    path = tmp_path_factory.mktemp("weights") / "start.pth"
    torch.save(weights_of(uninterrupted), path)
    return path


def test_head_only_leaves_the_trunk_as_it_was(examples, trained_file, tmp_path):
    before = torch.load(trained_file, weights_only=True)
    run = start(examples, tmp_path, "--weights", str(trained_file), "--head-only")
    after = weights_of(run)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert any("running_mean" in name for name in after)


def test_a_head_of_another_size_is_replaced_and_the_trunk_kept(trained_file):
    kept = torch.load(trained_file, weights_only=True)
    same = build_classifier(str(trained_file), 20, seed=0).state_dict()
    assert torch.equal(same["fc.weight"], kept["fc.weight"])
    other = build_classifier(str(trained_file), 3, seed=0).state_dict()
    assert other["fc.weight"].shape == (3, 2048)
    assert torch.equal(other["layer4.2.conv3.weight"], kept["layer4.2.conv3.weight"])


def test_the_demos_weights_can_be_started_from():
    built = build_classifier(str(ROOT / "models/demo/1/model.npz"), 20, seed=0).eval()
    served = build_network(find_bundle(ROOT / "models", "demo")).classifier
    assert same_weights(built.state_dict(), served.state_dict())


def test_weights_that_cannot_be_started_from_are_named(tmp_path, trained_file):
    assert "there is no such file" in error_of(build_classifier, "V1", 20, 0)
    file = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(1)}, file)
    assert "other.pth does not fit ResNet-50" in error_of(build_classifier, str(file), 20, 0)
    file.write_bytes(b"nothing")
    assert "other.pth cannot be read as weights" in error_of(build_classifier, str(file), 20, 0)


def test_without_a_network_it_is_said_where_imagenets_weights_are(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    message = error_of(build_classifier, "imagenet", 20, 0)
    assert "https://download.pytorch.org/models/resnet50-" in message
    assert "--weights FILE" in message


def test_a_loss_that_is_no_number_ends_the_training(examples, trained_file, tmp_path):
    weights = torch.load(trained_file, weights_only=True)
    weights["fc.bias"] += float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    message = error_of(start, examples, tmp_path, "--weights", str(tmp_path / "nan.pth"))
    assert "the loss is nan at step 1" in message


# The bundle


def test_the_next_version_is_after_the_highest_and_nothing_is_overwritten(
    examples, uninterrupted, tmp_path
):
    model = tmp_path / "voc"
    (model / "7").mkdir(parents=True)
    (model / "notes").mkdir()
    classifier = uninterrupted.network.classifier
    folder = write_bundle(model, classifier, examples, uninterrupted.scores)
    assert folder == model / "8"
    assert next_version(model) == 9
    assert folder.stat().st_mode & 0o055 == 0o055, "the container's user may read it"


def test_a_bundle_is_never_seen_half_written(examples, uninterrupted, tmp_path):
    """Somebody looks all the time; whenever a version is there, it is whole."""
    model, looks, ended = tmp_path / "voc", [], threading.Event()
    model.mkdir()

    def look():
        while not ended.is_set():
            if (model / "1").exists():
                looks.append({path.name for path in (model / "1").iterdir()})
            time.sleep(0.0005)

    watcher = threading.Thread(target=look)
    watcher.start()
    write_bundle(model, uninterrupted.network.classifier, examples, uninterrupted.scores)
    time.sleep(0.01)
    ended.set()
    watcher.join()
    assert looks
    assert all(look == {"model.pth", "class_name.json", "model.json"} for look in looks)


def options_for(devkit, out, *words):
    return parse_options(["--data", str(devkit), "--out", str(out), "--weights", "none", *words])


def test_a_folder_that_cannot_take_versions_is_refused_before_training(devkit, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model.pth").write_bytes(b"")
    assert "bare model" in error_of(train, options_for(devkit, tmp_path / "bare"))
    (tmp_path / "file").write_text("")
    assert "is a file" in error_of(train, options_for(devkit, tmp_path / "file"))


def test_data_that_is_not_there_is_named(tmp_path):
    message = error_of(train, options_for(tmp_path / "nowhere", tmp_path / "out"))
    assert "nowhere: there is nothing" in message
    assert not (tmp_path / "out").exists()


def test_two_trainings_do_not_write_to_one_folder(devkit, tmp_path):
    with lock_folder(tmp_path / "out" / ".training"):
        assert "another training" in error_of(train, options_for(devkit, tmp_path / "out"))


def test_a_gpu_that_is_not_there_is_named(devkit, tmp_path):
    words = options_for(devkit, tmp_path / "out", "--device", "cuda:99")
    assert "--device cuda:99: this machine has" in error_of(train, words)


if torch.cuda.is_available():

    def test_on_a_gpu_it_trains_in_mixed_precision(devkit, tmp_path):
        words = ["--side", "64", "--batch", "4", "--epochs", "2", "--device", "cuda"]
        folder, scores = train(options_for(devkit, tmp_path / "out", *words))
        assert 0 < scores["mean_average_precision"] <= 1
        weights = torch.load(folder / "model.pth", weights_only=True)
        assert weights["fc.weight"].dtype == torch.float32
        assert all(tensor.isfinite().all() for tensor in weights.values())


# The program


def program(devkit, out):
    words = [ROOT / "scripts" / "train.py", "--data", devkit, "--out", out, "--weights", "none"]
    words += ["--side", "64", "--batch", "4", "--epochs", "3", "--threads", "1", "--device", "cpu"]
    return [str(word) for word in words]


def test_the_program_can_be_interrupted_and_its_bundle_is_served(devkit, tmp_path):
    """From a shell, in another folder: throw away what is there, Ctrl-C, the same command again, serve it."""
    words = program("VOCdevkit", "models/voc")
    rest_of_another = tmp_path / "models" / "voc" / ".training" / "checkpoint.pth"
    rest_of_another.parent.mkdir(parents=True)
    rest_of_another.write_bytes(b"nothing to go on from")
    with subprocess.Popen(
        [*words, "--restart"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as first:
        for line in first.stderr:
            if "epoch 1" in line or " 4/9 " in line:
                break
        first.send_signal(signal.SIGINT)
        rest = first.stderr.read()
    assert first.returncode == 130, rest
    assert "the same command goes on" in rest
    assert [path.name for path in (tmp_path / "models" / "voc").iterdir()] == [".training"]

    second = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "going on from models/voc/.training/checkpoint.pth" in second.stderr
    assert "written to models/voc/1" in second.stdout
    assert "Dining Table" in second.stdout
    assert [path.name for path in (tmp_path / "models" / "voc").iterdir()] == ["1"]

    bundle = find_bundle(tmp_path / "models", "voc")
    assert list(bundle.class_names) == CLASS_NAMES
    assert bundle.description == "ResNet-50, trained on 12 pictures of VOC2007."
    scores = json.loads((bundle.folder / "model.json").read_text())["scores"]
    assert scores["training_pictures"] == TRAINING
    assert scores["average_precision"]["TV Monitor"] is None
    held_out = read_voc(devkit).validation
    network = build_network(bundle)
    logits = predict(network, held_out, READER, 1, lambda: None)
    assert np.isfinite(logits).all()
    again = score(logits, held_out, CLASS_NAMES)
    assert again["average_precision"] == scores["average_precision"]
    assert again["thresholds"] == pytest.approx(scores["thresholds"], abs=1e-3)


def test_what_is_wrong_is_said_in_a_line_and_not_in_a_traceback(devkit, tmp_path):
    (devkit / "VOC2007" / "JPEGImages" / "000005.jpg").unlink()
    words = program(devkit, tmp_path / "out")
    result = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert result.returncode == 1
    assert result.stderr.count("\n") <= 1
    assert "000005.jpg is missing" in result.stderr
    assert not (tmp_path / "out").exists()


def test_every_option_is_in_the_documentation():
    text = (ROOT / "docs" / "training.md").read_text()
    shown = {
        word
        for row in text.splitlines()
        if row.startswith("| `--")
        for word in row.split("|")[1].strip(" `").split()[:1]
    }
    real = {action.option_strings[-1] for action in make_parser()._actions if action.dest != "help"}
    assert shown == real
