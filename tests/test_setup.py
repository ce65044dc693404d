"""scripts/setup and the command line of scripts/serve show progress, help and errors."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
import zipfile

import pytest

from app import __version__
from tests.helpers import ROOT, wait_until

METADATA = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_wheel(folder):
    """Write a wheel of a package with one module; return its line of requirements."""
    path = folder / "tiny-1.0-py3-none-any.whl"
    record = "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\n"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("tiny-1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("tiny-1.0.dist-info/RECORD", record + "tiny-1.0.dist-info/RECORD,,\n")
    return f"./{path.name} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def checkout(tmp_path):
    """Return a folder with scripts/setup and one small package to install."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    (tmp_path / "requirements.txt").write_text(make_wheel(tmp_path))
    return tmp_path


def start_setup(checkout):
    """Start scripts/setup as a terminal does: Ctrl-C reaches all of its processes."""
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    return subprocess.Popen(
        ["bash", "-c", "trap - INT; exec scripts/setup"],
        cwd=checkout,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_setup(checkout):
    process = start_setup(checkout)
    _, text = process.communicate(timeout=120)
    return process.returncode, text


def test_setup_shows_its_progress_in_few_lines_and_keeps_the_output_in_a_log(checkout):
    status, text = run_setup(checkout)
    assert status == 0, text
    assert len(text.splitlines()) <= 3, text
    assert "packages: 1/1" in text
    assert "Successfully installed tiny-1.0" in (checkout / "run" / "setup.log").read_text()
    assert run_setup(checkout) == (0, ""), "there is nothing left to do"


def test_a_failed_setup_prints_the_end_of_the_log_and_its_path(checkout):
    requirements = checkout / "requirements.txt"
    requirements.write_text(f"./tiny-1.0-py3-none-any.whl --hash=sha256:{'0' * 64}\n")
    status, text = run_setup(checkout)
    assert status == 1
    assert "the end of run/setup.log:" in text
    assert "DO NOT MATCH THE HASHES" in text
    requirements.write_text(make_wheel(checkout))
    assert run_setup(checkout)[0] == 0


def test_an_interrupted_setup_is_finished_by_the_next_one(checkout):
    process = start_setup(checkout)
    wait_until((checkout / ".venv" / "bin").is_dir, 30)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert text.endswith("interrupted; the next start finishes the installation\n")
    status, text = run_setup(checkout)
    assert status == 0, text
    assert "Successfully installed tiny-1.0" in (checkout / "run" / "setup.log").read_text()


def serve(*arguments):
    command = [ROOT / "scripts" / "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_serve_prints_its_help_and_its_version_without_setup():
    result = serve("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: scripts/serve")
    assert serve("--version").stdout == f"resnet-serving {__version__}\n"


@pytest.mark.parametrize("arguments", [["--port", "9000"], ["now"], ["--help", "me"]])
def test_serve_refuses_unknown_arguments(arguments):
    refused = serve(*arguments)
    assert refused.returncode == 2
    assert f"unknown arguments: {' '.join(arguments)}" in refused.stderr
    assert "usage: scripts/serve" in refused.stderr
