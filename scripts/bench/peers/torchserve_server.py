"""TorchServe: ``python -m scripts.bench.peers.torchserve_server PORT``."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from app.settings import ROOT

HANDLER = Path(__file__).with_name("torchserve_handler.py")


def main(port: str) -> None:
    """Archive the model, write the configuration, become TorchServe."""
    folder = Path(tempfile.mkdtemp(prefix="torchserve-"))
    workers = os.environ.get("BENCH_WORKERS", "2")
    (folder / "model.yaml").write_text(
        f"minWorkers: {workers}\nmaxWorkers: {workers}\nbatchSize: 8\nmaxBatchDelay: 5\n"
    )
    # Management shares the inference port, gRPC takes any: fixed ports may be taken.
    (folder / "config.properties").write_text(
        f"inference_address=http://127.0.0.1:{port}\n"
        f"management_address=http://127.0.0.1:{port}\n"
        "enable_metrics_api=false\n"
        "grpc_inference_port=0\n"
        "grpc_management_port=0\n"
        "async_logging=true\n"
    )
    os.chdir(folder)  # for the logs
    archive = ["model_archiver.model_packaging", "--model-name", "resnet", "--version", "1"]
    files = ["--handler", str(HANDLER), "--config-file", "model.yaml", "--export-path", "."]
    subprocess.run([sys.executable, "-m", *archive, *files], check=True)
    os.environ |= {"PYTHONPATH": str(ROOT), "TEMP": str(folder)}
    serve = ["ts.model_server", "--start", "--foreground", "--disable-token-auth", "--ncs"]
    options = ["--model-store", ".", "--models", "resnet.mar", "--ts-config", "config.properties"]
    os.execv(sys.executable, [sys.executable, "-m", *serve, *options])  # noqa: S606 – no shell is meant


if __name__ == "__main__":
    main(sys.argv[1])
