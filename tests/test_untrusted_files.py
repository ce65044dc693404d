"""Untrusted model folders: bad files are refused by name and stop, fill or hang nothing."""

import argparse
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from app.control import scanner as scanner_module
from app.control.footprint import Footprint
from app.control.scanner import RepositoryScanner
from app.engines.network import build_network
from app.engines.weight_names import translate_names
from app.engines.weights import load_weights
from app.errors import BundleError
from app.models.bundle import check_sums, find_bundle, open_bundle, write_sums
from app.models.folders import find_models, versions_of
from app.models.untrusted_files import home_of, read_bytes
from app.names import name_problem, text_problem
from tests.helpers import ROOT

NAMES = {"0": "Rust", "1": "Scab"}
DEEP = "[" * 200 + "]" * 200
TOO_DEEP = "[" * 100_000 + "]" * 100_000


def make_bundle(folder, names=NAMES, weights=b"weights"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pth").write_bytes(weights)
    text = names if isinstance(names, str) else json.dumps(names)
    (folder / "class_name.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    return folder


def without_root(function, *arguments):
    """Call a function as a user subject to file modes, unlike root; return its text."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writing, function(*arguments).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        output = pipe.read()
    os.waitpid(child, 0)
    return output


@pytest.fixture
def closed_folder(tmp_path):
    """Return a models folder that others may read, with a closed lost+found in it."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.name:
            folder.chmod(folder.stat().st_mode | 0o055)
        if folder.name.startswith("pytest-of-"):
            break
    models = tmp_path / "models"
    make_bundle(models / "leaves" / "1")
    (models / "lost+found").mkdir(mode=0o700)
    (models / "lost+found").chmod(0)
    yield models
    (models / "lost+found").chmod(0o700)


def look(models, name=""):
    found = find_models(models, name)
    return "\n".join([*found.folders, *found.skipped])


def test_lost_and_found_is_skipped_with_a_log_line(closed_folder):
    served, skipped = without_root(look, closed_folder).splitlines()
    assert served == "leaves"
    assert "lost+found" in skipped
    assert skipped.endswith("is skipped: Permission denied")


def test_no_other_folder_is_read_if_one_model_is_named(closed_folder):
    make_bundle(closed_folder / "odd\nname")
    assert without_root(look, closed_folder, "leaves") == "leaves"


def test_an_unreadable_version_is_refused_with_the_remedy(closed_folder):
    def refuse(model):
        try:
            open_bundle(versions_of(model)[2], "leaves", 2)
        except BundleError as error:
            return str(error)

    make_bundle(closed_folder / "leaves" / "2").chmod(0)
    assert "chmod -R a+rX" in without_root(refuse, closed_folder / "leaves")
    (closed_folder / "leaves" / "2").chmod(0o700)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "叶子",
            "Blätter 2",
            "versions",
            "labels",
            "50%",
            "%2F",
            "a b",
            "a?b#c",
            "metadata",
            "ready",
        ),
        *("лист", "🍁", "a" * 200, "7", "con", "a,b;c", "infer", "-x", "_", "a'\"b"),
    ],
)
def test_every_ordinary_folder_name_is_a_model_name(tmp_path, name):
    make_bundle(tmp_path / name / "1")
    assert find_bundle(tmp_path).name == name
    assert find_bundle(tmp_path, name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
        "a\u202eb",
        "a\u2066b",
        "b:predict",
        "a\\b",
        " a",
        "a ",
        "\udcff",
        "\t",
        "a" * 201,
        "叶" * 86,
    ],
)
def test_an_unusable_name_is_skipped_with_a_log_line(tmp_path, name):
    assert name_problem(name)
    make_bundle(tmp_path / "good" / "1")
    try:
        make_bundle(tmp_path / name / "1")
    except OSError:
        return  # nor can the folder be
    found = find_models(tmp_path)
    assert list(found.folders) == ["good"]
    (line,) = found.skipped
    assert line.isascii() and line.isprintable() and "rename the folder" in line


def test_folders_that_start_with_a_dot_are_ignored(tmp_path):
    make_bundle(tmp_path / ".hidden" / "1")
    make_bundle(tmp_path / "good" / "1")
    assert find_models(tmp_path).folders == {"good": tmp_path / "good"}
    assert not find_models(tmp_path).skipped
    assert name_problem(".hidden")


def test_only_ascii_digits_are_versions(tmp_path):
    for name in ("1", "007", "١", "２", "0", "1" * 19, "9" * 18):
        make_bundle(tmp_path / name)
    assert set(versions_of(tmp_path)) == {1, 7, 10**18 - 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "a\nb"}, "U\\+000A"),
        ({"0": "a\x00"}, "U\\+0000"),
        ({"0": "\ud800"}, "U\\+D800"),
        ({"0": "a\u202eb"}, "U\\+202E"),
        ({"0": "a\u2029b"}, "U\\+2029"),
        ({"0": "a" * 201}, "has 201 characters; at most 200"),
        ({str(index): "a" for index in range(100_001)}, "100001 names; at most 100000"),
        ('{"0": "a", "0": "b"}', "the key '0' is there twice"),
        ([], r"expected a JSON object or a list of names, found \[\]"),
        (["a", 7], "must be a text, found 7"),
        ({"Rust": 0, "Scab": 2}, "without a gap"),
        ({"Rust": 0, "Scab": 0}, "without a gap"),
        (DEEP, "nested too deep; at most 32"),
        (TOO_DEEP, "nested too deep; at most 32"),
        ('{"0": ' * 500 + "1" + "}" * 500, "nested too deep"),
        ('{"0": 1e999999}', "must be a text, found inf"),
        ("[" + "9" * 5000 + "]", ""),
        ("\x00", "is no JSON"),
        (" " * (9 << 20), "has 9437184 bytes; at most 8388608"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_class_names_that_are_not_text_are_refused(tmp_path, names, message):
    make_bundle(tmp_path, names)
    with pytest.raises(BundleError, match=rf"class_name\.json.*{message}") as error:
        open_bundle(tmp_path, "leaves", 1)
    assert len(str(error.value)) < 500
    assert str(error.value).isprintable()


@pytest.mark.parametrize("names", [["Rust", "Scab"], {"Scab": 1, "Rust": 0}])
def test_class_names_are_also_read_from_a_list_and_from_class_to_idx(tmp_path, names):
    make_bundle(tmp_path, "\ufeff" + json.dumps(names))
    assert open_bundle(tmp_path, "leaves", 1).class_names == ("Rust", "Scab")


def test_a_byte_order_mark_is_ignored(tmp_path):
    make_bundle(tmp_path, "\ufeff" + json.dumps(NAMES))
    (tmp_path / "model.json").write_text('\ufeff{"description": "Apples."}')
    assert open_bundle(tmp_path, "leaves", 1).class_names == ("Rust", "Scab")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_refused(tmp_path, encoding):
    make_bundle(tmp_path)
    (tmp_path / "class_name.json").write_bytes('{"0": "Blätter"}'.encode(encoding))
    with pytest.raises(BundleError, match=r"class_name\.json is not in UTF-8"):
        open_bundle(tmp_path, "leaves", 1)


@pytest.mark.parametrize(
    "config",
    [{"description": text} for text in ("\u202e", "a" * 2001, "\x1b[1m", "\ud800", 7)]
    + [{"architecture": "a\nb"}, {"scores": [[[[[]]]]] * 3, "x\n" * 9999: 1}, {"top_k": 10**400}],
    ids=lambda config: ascii(config)[:20],
)
def test_a_config_that_is_not_text_is_refused(tmp_path, config):
    make_bundle(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=r"model\.json: ") as error:
        open_bundle(tmp_path, "leaves", 1)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600


def test_a_description_may_have_lines(tmp_path):
    make_bundle(tmp_path)
    (tmp_path / "model.json").write_text('{"description": "Leaves.\\nOf 苹果 trees."}')
    assert open_bundle(tmp_path, "leaves", 1).description == "Leaves.\nOf 苹果 trees."


def test_joined_emoji_and_persian_are_accepted_as_text():
    assert not text_problem("👩\u200d🌾")
    assert not text_problem("می\u200cخواهم")


def make_special(path, kind):
    """Create an irregular file at a path."""
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        here = os.open(path.parent, os.O_RDONLY)  # a socket's whole path may be too long
        server.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
        server.close()
    else:
        path.symlink_to({"device": "/dev/zero", "link out": "/etc/passwd", "loop": path}[kind])


SPECIAL = ["FIFO", "folder", "socket", "device", "link out", "loop"]


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize(
    "name",
    ["class_name.json", "model.json", "SHA256SUMS", "model.pth", "model.npz"],
)
def test_an_irregular_file_is_refused_and_blocks_no_reader(tmp_path, name, kind, settings):
    folder = make_bundle(tmp_path / "models" / "leaves" / "1")
    if name == "model.npz":
        (folder / "model.pth").unlink()
    make_special(folder / name, kind)
    began = time.monotonic()
    scanner = RepositoryScanner(
        settings(models=str(tmp_path / "models"), cache=str(tmp_path / "cache"))
    )
    failure = scanner.scan().failure
    assert time.monotonic() - began < 20
    assert name in failure
    assert "leaves/1" in failure


def test_a_file_that_becomes_a_link_is_not_followed(tmp_path):
    """Links may point into the model's own folder (as in Kubernetes ConfigMaps), but not out of it."""
    folder = tmp_path / "leaves" / "1"
    make_bundle(folder / "..2026_01_01")
    (folder / "..data").symlink_to("..2026_01_01")
    for name in ("model.pth", "class_name.json"):
        (folder / name).symlink_to(f"..data/{name}")
    assert open_bundle(folder, "leaves", 1).class_names == ("Rust", "Scab")
    assert home_of(folder) == (tmp_path / "leaves").resolve()
    (tmp_path / "other.json").write_text(json.dumps(NAMES))
    (folder / "class_name.json").unlink()
    (folder / "class_name.json").symlink_to("../../other.json")
    with pytest.raises(BundleError, match=r"leads out of .*leaves: copy the file itself"):
        open_bundle(folder, "leaves", 1)


@pytest.mark.parametrize(
    "name",
    ["/etc/hostname", "../1/model.pth", "README", "optimized/x", "SHA256SUMS", "", "x" * 999],
)
def test_checksums_may_name_only_the_files_of_a_model(tmp_path, name):
    folder = make_bundle(tmp_path / "1")
    (folder / "README").write_text("read me")
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(BundleError, match=r"SHA256SUMS names .*; it can name only model\.pth"):
        check_sums(folder)


def test_checksums_of_either_mode_are_accepted(tmp_path):
    folder = make_bundle(tmp_path / "1")
    write_sums(folder)
    sums = folder / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("  ", " *"))
    check_sums(folder)
    sums.write_bytes(b"\xff\xfe" * 40_000)
    with pytest.raises(BundleError, match="SHA256SUMS"):
        check_sums(folder)


def test_a_file_that_claims_terabytes_is_not_read(tmp_path):
    folder = make_bundle(tmp_path / "1")
    os.truncate(folder / "model.pth", 1 << 42)
    bundle = open_bundle(folder, "leaves", 1)
    with pytest.raises(BundleError, match="has 4398046511104 bytes; at most"):
        bundle.weights_digest()


def test_a_file_that_grows_while_it_is_read_is_limited(tmp_path):
    path = tmp_path / "status"
    path.symlink_to("/proc/self/status")  # reports a size of 0
    with pytest.raises(BundleError, match=r"more than 10 bytes|leads out"):
        read_bytes(path, 10)


# Weights


def write_resnet(folder, config=None):
    make_bundle(folder)
    (folder / "model.pth").unlink()
    (folder / "model.json").write_text(json.dumps(config or {"architecture": "resnet18"}))
    return folder


def build(folder):
    return build_network(open_bundle(folder, "leaves", 1))


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=2).state_dict()


def write_npz_claim(path, name, shape, dtype="<f4"):
    """Write an array whose header claims a larger shape than its data."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    header = header.ljust(117) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        archive.writestr(f"{name}.npy", content + bytes(1 << 20))


def peak_of(code, *arguments):
    """Return the last output of Python code and the peak rise of its memory in bytes."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from app.models.bundle import open_bundle; from app.engines.network import build_network\n"
        "from app.errors import BundleError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"{code}\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *output, rose = done.stdout.splitlines()
    return " ".join(output), int(rose)


def write_bomb(folder, kind):
    """Write a small file that would take gigabytes."""
    if kind == "expanded .pth":
        torch.save({"conv1.weight": torch.zeros(1).expand(500_000_000)}, folder / "model.pth")
    elif kind == "unknown arrays":
        with zipfile.ZipFile(
            folder / "model.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1
        ) as archive:
            header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (150000000,), }"
            header = header.ljust(117) + b"\n"
            with archive.open("x.npy", "w", force_zip64=True) as member:
                member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
                for _ in range(400):
                    member.write(bytes(1_000_000))
    elif kind == "a claim of terabytes":
        write_npz_claim(folder / "model.npz", "conv1.weight", (1 << 40,))
    elif kind == "giant outputs":
        write_npz_claim(folder / "model.npz", "fc.bias", (1 << 40,))
    elif kind == "long strings":
        write_npz_claim(folder / "model.npz", "conv1.weight", (64, 3, 7, 7), "|S1000000")
    else:
        with (
            zipfile.ZipFile(
                folder / "model.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1
            ) as archive,
            archive.open("archive/data.pkl", "w", force_zip64=True) as member,
        ):
            for _ in range(400):
                member.write(bytes(1_000_000))


BOMBS = ["expanded .pth", "unknown arrays", "a claim of terabytes", "giant outputs", "long strings"]


def test_weights_that_would_unpack_to_gigabytes_are_refused_before_they_do(tmp_path):
    folders = []
    for kind in (*BOMBS, "packed .pth"):
        folders.append(write_resnet(tmp_path / kind))
        write_bomb(folders[-1], kind)
    code = (
        "for folder in sys.argv[1:]:\n"
        "    try: build_network(open_bundle(Path(folder), 'leaves', 1))\n"
        "    except BundleError as error: print('refused:', error)\n"
    )
    output, rose = peak_of(code, *folders)
    assert output.count("refused: ") == len(folders), output
    assert rose < 250 << 20


def test_extra_keys_and_wrong_shapes_are_refused_and_listed(tmp_path, resnet18):
    folder = write_resnet(tmp_path)
    weights = dict(resnet18) | {"conv1.weight": torch.zeros(1), "fc.1.weight": torch.zeros(2)}
    del weights["fc.weight"]
    torch.save(weights, folder / "model.pth")
    with pytest.raises(BundleError) as error:
        build(folder)
    message = str(error.value)
    assert "these look most like resnet18, but 1 tensors are missing (fc.weight)" in message
    assert "1 are not known to it ('fc.1.weight')" in message
    assert "'conv1.weight' is (1,), expected (64, 3, 7, 7)" in message


def test_weights_of_another_network_are_refused_with_its_architecture(tmp_path, resnet18):
    torch.save(resnet18, make_bundle(tmp_path) / "model.pth")
    with pytest.raises(BundleError) as error:
        build(tmp_path)
    assert "does not fit resnet50" in str(error.value)
    remedy = 'these look like resnet18: write {"architecture": "resnet18"} into model.json'
    assert str(error.value).endswith(remedy)
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(BundleError, match=r"without model\.json a model is a resnet50"):
        build(tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net."])
def test_prefixes_that_all_names_share_are_removed_and_told(tmp_path, resnet18, prefix, caplog):
    caplog.set_level("INFO")
    folder = write_resnet(tmp_path)
    named = {f"{prefix}{name}": tensor for name, tensor in resnet18.items()}
    torch.save({"state_dict": named, "epoch": 3}, folder / "model.pth")
    assert torch.equal(build(folder).classifier.fc.bias, resnet18["fc.bias"])
    unwrapped = "leaves: in model.pth the state_dict is the checkpoint's 'state_dict'; "
    assert caplog.messages == [f"{unwrapped}the prefix {prefix!r} is left out"]
    save_file({n: t.clone() for n, t in named.items()}, folder / "model.safetensors")
    (folder / "model.pth").unlink()
    assert torch.equal(build(folder).classifier.fc.bias, resnet18["fc.bias"])


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "net"])
def test_a_checkpoint_with_the_options_of_its_training_is_accepted(tmp_path, resnet18, key):
    """The training scripts of torchvision save theirs so."""
    options = argparse.Namespace(lr=0.1, output_dir=".")
    checkpoint = {key: dict(resnet18), "optimizer": {"state": {}}, "args": options}
    torch.save(checkpoint, tmp_path / "model.pth")
    assert set(load_weights(tmp_path / "model.pth")) == set(resnet18)


@pytest.mark.parametrize(
    ("prefix", "other"), [("module.", "n_averaged"), ("model.", "criterion.weight")]
)
def test_tensors_beside_the_network_are_left_out_and_told(
    tmp_path, resnet18, prefix, other, caplog
):
    """An average of weights has a counter, and a Lightning module may hold its loss."""
    caplog.set_level("INFO")
    weights = {f"{prefix}{name}": tensor for name, tensor in resnet18.items()}
    torch.save(weights | {other: torch.tensor(3.0)}, write_resnet(tmp_path) / "model.pth")
    assert torch.equal(build(tmp_path).classifier.fc.bias, resnet18["fc.bias"])
    assert caplog.messages[0].endswith(f"is left out; so are [{other!r}], which do not have it")


@pytest.mark.parametrize(
    ("architecture", "layer", "found"),
    [
        ("resnet18", "fc", "fc.1"),
        ("mobilenet_v2", "classifier.1", "classifier"),
        ("mobilenet_v2", "classifier.1", "classifier.2"),
        ("mobilenet_v3_small", "classifier.3", "classifier.3.1"),
        ("squeezenet1_1", "classifier.1", "classifier.0"),
    ],
)
def test_a_class_layer_that_training_has_wrapped_is_read_as_torchvisions(
    tmp_path, architecture, layer, found, caplog
):
    caplog.set_level("INFO")
    weights = torchvision.models.get_model(architecture, num_classes=2).state_dict()
    wrapped = {name.replace(f"{layer}.", f"{found}."): tensor for name, tensor in weights.items()}
    assert wrapped.keys() != weights.keys()
    folder = write_resnet(tmp_path, {"architecture": architecture})
    torch.save(wrapped, folder / "model.pth")
    built = build(folder).classifier.state_dict()
    assert torch.equal(built[f"{layer}.bias"], weights[f"{layer}.bias"])
    assert caplog.messages == [
        f"leaves: in model.pth {found!r} is read as {layer}, the class layer"
    ]
    (folder / "model.json").write_text("{}")
    with pytest.raises(BundleError, match=f"these look like {architecture}: write"):
        build(folder)


def test_a_head_of_several_layers_is_refused_with_the_network_that_it_replaced_one_in(
    tmp_path, resnet18
):
    weights = {name: tensor for name, tensor in resnet18.items() if not name.startswith("fc.")}
    weights |= {"fc.0.weight": torch.zeros(9, 512), "fc.2.weight": torch.zeros(2, 9)}
    torch.save(weights, write_resnet(tmp_path) / "model.pth")
    with pytest.raises(BundleError) as error:
        build(tmp_path)
    assert "these look most like resnet18, but 2 tensors are missing" in str(error.value)
    assert "2 are not known to it ('fc.0.weight', 'fc.2.weight')" in str(error.value)


@pytest.mark.parametrize(
    ("architecture", "new", "old"),
    [
        ("densenet121", r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2"),
        ("vit_b_32", r"\.mlp\.0\.", ".mlp.linear_1."),
    ],
)
def test_the_names_of_torchvisions_own_older_files_are_accepted(architecture, new, old):
    with torch.device("meta"):
        names = torchvision.models.get_model(architecture).state_dict().keys()
    older = [re.sub(new, old, name).replace(".mlp.3.", ".mlp.linear_2.") for name in names]
    originals, notes = translate_names(older)
    assert list(originals) == list(names)
    assert list(originals.values()) == older
    assert notes == ["names of an older torchvision are read as today's"]


def test_a_checkpoint_with_other_objects_is_refused_with_the_lines_that_convert_it(
    tmp_path, resnet18
):
    path = tmp_path / "model.pth"
    torch.save({"best": np.float64(0.9), "model_state_dict": resnet18}, path)
    with pytest.raises(BundleError) as error:
        load_weights(path)
    *_, lines = str(error.value).partition("where it was made: ")
    script = f"import os, torch; os.chdir({str(tmp_path)!r}); {lines}"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert set(load_weights(path)) == set(resnet18)


def write_torchscript(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda path: torch.save(torch.nn.Linear(2, 2), path),
            r"whole pickled model .*nn\.modules.*; convert it in Python, where it was made: model = torch\.load"
            r"\('model\.pth', weights_only=False\); ",
        ),
        (write_torchscript, r"TorchScript archive; .* model = torch\.jit\.load\('model\.pth'\); "),
        (lambda path: path.write_bytes(b"\x08\x07\x12\x07pytorch\x1a"), "it is an ONNX file"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n"), "it is an HDF5 file"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: save_file({"a": torch.zeros(1)}, path), r"call it model\.safetensors"),
        (lambda path: torch.save({"a": torch.zeros(1).to_sparse()}, path), "no dictionary of tens"),
        (
            lambda path: torch.save({"a": torch.empty(1, device="meta")}, path),
            "no dictionary of te",
        ),
        (lambda path: torch.save({}, path), "no dictionary of tensors"),
        (
            lambda path: torch.save({"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}}, path),
            r"no dictionary of tensors; its keys are \['a', 'b'\]",
        ),
    ],
    ids=lambda value: "" if callable(value) else value[:20],
)
def test_files_of_another_kind_are_refused_with_the_remedy(tmp_path, write, message):
    path = tmp_path / "model.pth"
    write(path)
    with pytest.raises(BundleError, match=message) as error:
        load_weights(path)
    assert "torch.save(model.state_dict(), 'model.pth')" in str(error.value)
    assert "\x1b" not in str(error.value)


# Fuzz: any file content raises only BundleError


def small_files():
    """Return small good files of every kind, by name."""
    import io
    import tempfile
    from pathlib import Path

    weights = {"fc.weight": torch.ones(2, 4), "fc.bias": torch.zeros(2).half()}
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        torch.save(weights, where / "model.pth")
        torch.save(weights, where / "old.pth", _use_new_zipfile_serialization=False)
        save_file(weights, where / "model.safetensors")
        np.savez_compressed(where / "model.npz", **{n: t.numpy() for n, t in weights.items()})
        buffer = io.BytesIO()
        np.savez(buffer, **{n: t.numpy() for n, t in weights.items()})
        return [
            ("model.pth", (where / "model.pth").read_bytes()),
            ("model.pth", (where / "old.pth").read_bytes()),
            ("model.safetensors", (where / "model.safetensors").read_bytes()),
            ("model.npz", (where / "model.npz").read_bytes()),
            ("model.npz", buffer.getvalue()),
        ]


WEIGHT_KINDS = small_files()
EDITS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6)


def garble(data, edits, cut):
    spoiled = bytearray(data)
    for place, value in edits:
        spoiled[place % len(spoiled)] = value
    return bytes(spoiled[: len(spoiled) * cut // 100] if cut < 100 else spoiled)


@pytest.mark.filterwarnings("ignore")
@hypothesis_settings(max_examples=300, deadline=None)
@given(st.sampled_from(range(len(WEIGHT_KINDS))), EDITS, st.sampled_from([100] * 6 + [10, 50, 99]))
def test_garbled_weights_are_read_or_refused(tmp_path_factory, kind, edits, cut):
    name, data = WEIGHT_KINDS[kind]
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(garble(data, edits, cut))
    try:
        load_weights(path)
    except BundleError as error:
        assert name in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3)
    ),
    max_leaves=8,
)
KEYS = ["architecture", "input_size", "crop", "mean", "deviation", "activation", "threshold"]
KEYS += ["threshold_on", "top_k", "description", "scores", "channels", "input_range", "antialias"]
CONFIGS = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4) | JSON
CLASSES = st.dictionaries(st.sampled_from(["0", "1", "2", "x"]), JSON, max_size=3) | JSON


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    CLASSES | st.just(NAMES),
    CONFIGS,
    st.binary(max_size=80) | st.text(max_size=80),
    EDITS,
    st.booleans(),
)
def test_a_scanner_reads_any_folder_and_never_raises(
    tmp_path_factory, names, config, sums, edits, is_garbled
):
    models = tmp_path_factory.getbasetemp() / "any"
    shutil.rmtree(models, ignore_errors=True)
    folder = make_bundle(models / "leaves" / "1", names)
    (folder / "model.json").write_text(json.dumps(config))
    if is_garbled:
        spoiled = garble((folder / "model.json").read_bytes(), edits, 100)
        (folder / "model.json").write_bytes(spoiled)
        text = sums if isinstance(sums, bytes) else sums.encode("utf-8", "surrogatepass")
        (folder / "SHA256SUMS").write_bytes(text)
    from app.settings import Settings

    chosen = Settings.from_env({"SERVING_MODELS": str(models), "SERVING_CACHE": str(models / "c")})
    found = RepositoryScanner(chosen).scan()
    assert found.entries or found.failure


@pytest.fixture(autouse=True)
def without_measurement(monkeypatch):
    """Replace the measure process: every version that reaches it can be served."""
    needs = Footprint("openvino", "fp32", "cpu", "asked for", 10**8)
    monkeypatch.setattr(scanner_module, "find_footprint", lambda *_: needs)
