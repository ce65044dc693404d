"""The law of the house, read from the imports themselves (see app/__init__.py)."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

APP = ROOT / "app"
GROUND = {"settings", "errors", "logs", "log_writer", "scoreboard", "machine", "metrics", "outputs"}
GROUND |= {
    "budgets",
    "cgroup",
    "counts",
    "doors",
    "endings",
    "files",
    "gpus",
    "names",
    "quarantine",
}
CONCURRENCY = {"batcher", "fetching", "handoff", "servable", "versions", "native_pool"}
CONCURRENCY |= {"byte_budget", "deadlines", "intake", "trials", "visitors", "watchdog"}
DECODING = {"image_parts", "jpeg_structure", "image_structure", "image_decoding", "image_memory"}
FILES = {"images", "bundle", "card", "decision", "optimized", "precision", "heatmap", "noise"}
FILES |= DECODING | {"agreement", "foreign", "model_folders", "sums"}
TENSORS = {"weights", "weight_faults", "network", "gradcam"}
OFFLINE = {"conversion", "quantisation"}  # a gigabyte: only programs that end soon may import them
NUMERICS = FILES | TENSORS | OFFLINE | {"engines"}
LOADING = {"loading", "prediction", "studio"}
TOGETHER = {"diagnosis", "fleet", "meter"}
SIZING = {"sizing", "footprint"}
REPOSITORY = {"repository", "models_file", "manifest", "manifest_file", "traffic", "tidy"}
REPOSITORY |= {"routing", "statuses"}
ROOF = {"wsgi", "worker", "master", "responses", "probe", "optimize", "follow", "publish"}
FLOORS: dict[str, int] = {
    **dict.fromkeys(GROUND, 0),
    **dict.fromkeys(CONCURRENCY | NUMERICS | SIZING | REPOSITORY, 1),
    **dict.fromkeys(LOADING | TOGETHER, 2),
    "serving": 2,
    "web": 3,
    "factory": 4,
    **dict.fromkeys(ROOF, 5),
}
# Inside a floor: who may call whom. Everything else on one floor keeps apart.
NEIGHBOURS = {
    ("batcher", "handoff"),
    ("settings", "errors"),
    ("settings", "names"),
    ("optimized", "bundle"),
}
NEIGHBOURS |= {
    ("settings", "cgroup"),
    ("machine", "cgroup"),
    ("gpus", "machine"),
    ("files", "machine"),
}
NEIGHBOURS |= {
    ("metrics", "errors"),
    ("metrics", "scoreboard"),
    ("metrics", "counts"),
    ("meter", "prediction"),
}
NEIGHBOURS |= {("budgets", "settings"), ("logs", "log_writer")}
NEIGHBOURS |= {("optimized", "precision"), ("network", "bundle"), ("network", "weights")}
NEIGHBOURS |= {("precision", "foreign"), ("precision", "agreement"), ("agreement", "decision")}
NEIGHBOURS |= {("bundle", "card"), ("card", "images"), ("card", "decision"), ("network", "card")}
NEIGHBOURS |= {("network", "gradcam"), ("heatmap", "images"), ("servable", "heatmap")}
NEIGHBOURS |= {("jpeg_structure", "image_parts"), ("image_structure", "image_parts")}
NEIGHBOURS |= {("image_structure", "jpeg_structure"), ("image_decoding", "image_parts")}
NEIGHBOURS |= {("image_decoding", "image_structure"), ("images", "image_decoding")}
NEIGHBOURS |= {("heatmap", "image_decoding"), ("image_memory", "image_decoding")}
NEIGHBOURS |= {("image_memory", "images"), ("image_memory", "heatmap")}
NEIGHBOURS |= {("engines", there) for there in FILES | {"network", "gradcam"}}
NEIGHBOURS |= {(here, there) for here in OFFLINE for there in FILES | {"network", "engines"}}
NEIGHBOURS |= {(here, there) for here in SIZING for there in FILES | {"engines"}}
NEIGHBOURS |= {("sizing", "footprint"), ("sizing", "manifest"), ("manifest", "footprint")}
NEIGHBOURS |= {("manifest", "repository"), ("manifest", "models_file")}
NEIGHBOURS |= {("models_file", "repository"), ("models_file", "model_folders")}
NEIGHBOURS |= {("manifest_file", "manifest"), ("sizing", "manifest_file")}
NEIGHBOURS |= {("bundle", "foreign"), ("bundle", "model_folders"), ("weights", "foreign")}
NEIGHBOURS |= {("weights", "weight_faults"), ("weights", "bundle"), ("network", "weight_faults")}
NEIGHBOURS |= {
    ("manifest", there)
    for there in ("bundle", "foreign", "optimized", "precision", "model_folders")
}
NEIGHBOURS |= {("servable", "batcher"), ("servable", "handoff"), ("servable", "card")}
NEIGHBOURS |= {("serving", there) for there in LOADING | TOGETHER} | {("studio", "prediction")}
NEIGHBOURS |= {(here, "native_pool") for here in ("batcher", "servable", "trials", "watchdog")}
NEIGHBOURS |= {("native_pool", "handoff"), ("scoreboard", "quarantine"), ("worker", "responses")}
NEIGHBOURS |= {("optimized", "sums"), ("sums", "bundle")} | {
    ("tidy", there) for there in ("manifest", "optimized")
}
NEIGHBOURS |= {("versions", there) for there in ("handoff", "manifest", "servable")}
NEIGHBOURS |= {("versions", there) for there in ("routing", "statuses", "traffic")}
NEIGHBOURS |= {("routing", "manifest"), ("routing", "traffic"), ("statuses", "manifest")}

TORCH = {"torch", "torchvision"}
FORBIDDEN = {
    **{name: TORCH | {"flask", "gevent", "gunicorn"} for name in GROUND},
    **{name: TORCH | {"flask"} for name in CONCURRENCY},
    **{name: {"threading", "queue", "gevent", "flask", "concurrent"} for name in NUMERICS},
    **{
        name: TORCH | {"threading", "queue", "gevent", "flask"}
        for name in FILES | SIZING | REPOSITORY
    },
    "web": TORCH | {"gevent"},
    "factory": TORCH,
}
MODULES = sorted(APP.rglob("*.py"))


def room(path: Path) -> str:
    """Return the module's name in FLOORS."""
    return path.relative_to(APP).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(APP)))
def test_a_module_imports_only_from_floors_below_its_own(path):
    here = room(path)
    if here == "__init__":
        assert not imported(path) - {"__future__"}, "app/__init__.py imports nothing"
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "app" or len(parts) < 2:
            continue
        there = parts[1]
        if there == here or (here, there) in NEIGHBOURS:
            continue
        assert FLOORS[there] < FLOORS[here], f"{here} (floor {FLOORS[here]}) imports {there}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(APP)))
def test_a_room_keeps_out_what_does_not_belong_there(path):
    packages = {name.split(".")[0] for name in imported(path)}
    assert not packages & FORBIDDEN.get(room(path), set())


def test_every_module_has_a_floor():
    assert {room(path) for path in MODULES} - {"__init__"} == set(FLOORS)


def test_nobody_imports_the_roof():
    for path in MODULES:
        roof = ROOF - {"responses"} if room(path) == "worker" else ROOF
        assert not {f"app.{name}" for name in roof} & imported(path), path


def test_a_worker_on_the_cpu_imports_no_torch(tmp_path):
    """Its imports in one process, as far as they go before an engine is chosen, and OpenVINO's after it."""
    program = (
        "import sys, app.wsgi, app.gunicorn.worker, app.engines.openvino;"
        "assert not {'torch', 'torchvision', 'nncf', 'openvino_telemetry.main'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program]
    # Neither the models nor the cache hold one: nothing is being loaded when the process ends.
    environment = os.environ | {"SERVING_MODELS": "samples", "SERVING_CACHE": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
