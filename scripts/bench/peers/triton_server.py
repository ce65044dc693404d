"""Triton, as pytriton brings it along: ``python -m scripts.bench.peers.triton_server PORT``.

Not through pytriton's own proxy: with an instance for each core, now and then one of them hung in it.
"""

import os
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

from app.settings import ROOT

CONFIG = """
backend: "python"
max_batch_size: 8
input [ { name: "image" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "answer" data_type: TYPE_STRING dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: WORKERS } ]
dynamic_batching { max_queue_delay_microseconds: 5000 }
"""


def main(port: str) -> None:
    """Lay out the model repository and the backend, become Triton."""
    package = find_spec("pytriton")
    if package is None or package.origin is None:
        sys.exit("pytriton is not installed")
    triton = Path(package.origin).parent / "tritonserver"
    folder = Path(tempfile.mkdtemp(prefix="triton-"))
    model = folder / "repository" / "resnet"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(
        CONFIG.replace("WORKERS", os.environ.get("BENCH_WORKERS", "2"))
    )
    (model / "1" / "model.py").symlink_to(Path(__file__).with_name("triton_model.py"))
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    stubs = triton / "python_backend_stubs" / sysconfig.get_python_version()
    for file in [*(triton / "backends" / "python").iterdir(), *stubs.iterdir()]:
        (backend / file.name).symlink_to(file)
    # The backend embeds Python: it has to be this one, and to find this one's packages.
    os.environ |= {
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    where = ["--model-repository", str(model.parent), "--backend-directory", str(backend.parent)]
    http = ["--http-address", "127.0.0.1", "--http-port", port]
    off = ["--disable-auto-complete-config", "--allow-grpc=false", "--allow-metrics=false"]
    server = triton / "bin" / "tritonserver"
    os.execv(server, [str(server), *where, *http, *off])  # noqa: S606 – no shell is meant


if __name__ == "__main__":
    main(sys.argv[1])
