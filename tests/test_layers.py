"""The layers of app/ keep imports out of a running process; import-linter checks the layers themselves."""

import ast
import os
import subprocess
import sys

from tests.helpers import ROOT


def test_the_app_package_itself_imports_nothing():
    tree = ast.parse((ROOT / "app" / "__init__.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_a_worker_on_the_cpu_imports_no_torch(tmp_path):
    """One process makes the imports before an engine is chosen, and OpenVINO's after it."""
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
