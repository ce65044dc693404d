"""Real programs accept the configuration files, and the numbers that they share fit together."""

import configparser
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from gunicorn.config import Config

from app import __version__
from app.settings import Settings
from tests.helpers import ROOT

HOOKS = {
    "on_starting",
    "when_ready",
    "on_reload",
    "pre_fork",
    "post_fork",
    "child_exit",
    "worker_exit",
}
OWN_NAMES = {"settings", "direct", "plan", "log_plan", "SWITCH_INTERVAL_S", "STOPS"}


@pytest.fixture(scope="module")
def gunicorn():
    """Return the settings of gunicorn.conf.py."""
    values = runpy.run_path(str(ROOT / "conf" / "gunicorn.conf.py"))
    return {name: value for name, value in values.items() if not name.startswith("__")}


@pytest.fixture(scope="module")
def supervisor():
    config = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=None)
    config.read(ROOT / "conf" / "supervisor.conf")
    return config


@pytest.fixture(scope="module")
def nginx():
    return (ROOT / "conf" / "nginx.conf").read_text()


def seconds(nginx_text: str, name: str) -> float:
    return float(re.search(rf"^\s*{name} (\d+)s;", nginx_text, re.MULTILINE)[1])


def test_every_name_in_gunicorns_file_is_one_that_gunicorn_knows(gunicorn):
    known = set(Config().settings)
    modules_and_classes = {n for n, v in gunicorn.items() if isinstance(v, type | type(os))}
    imported = {
        "scoreboard",
        "logging_config",
        "planner",
        "mark_process_dead",
        "is_free",
        "read_keys",
    }
    imported |= modules_and_classes
    assert set(gunicorn) - imported - OWN_NAMES <= known
    assert set(gunicorn) >= HOOKS


def test_gunicorn_accepts_its_file():
    command = [sys.executable, "-m", "gunicorn", "--check-config", "-c", "conf/gunicorn.conf.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_model_loads_after_the_fork(gunicorn):
    assert gunicorn["preload_app"] is False
    assert gunicorn["control_socket_disable"] is True


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "eager"])
def test_imports_of_the_master_neither_touch_cuda_nor_start_threads(engine):
    """A fork after CUDA or after an OpenMP region breaks the workers."""
    program = (
        "import runpy, threading;"
        "conf = runpy.run_path('conf/gunicorn.conf.py');"
        "conf['when_ready'](None);"
        "import sys, torch, app.engines.cuda;"
        "assert not torch.cuda.is_initialized();"
        'engine = conf["plan"].manifest.entries[0].footprint.engine;'
        "assert f'app.engines.{engine}' in sys.modules;"
        "assert threading.active_count() == 1, threading.enumerate();"
        "assert 'app.metrics' not in sys.modules"  # it would count in the file of the first slot
    )
    command = [sys.executable, "-W", "error", "-c", program]
    environment = os.environ | {"SERVING_ENGINE": engine, "SERVING_PRECISION": "fp32"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_nginx_accepts_its_file(tmp_path):
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    result = subprocess.run(
        ["scripts/run-nginx", "-t"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "syntax is ok" in result.stderr, result.stderr
    assert "warn" not in result.stderr


def test_timeouts_are_in_ascending_order(gunicorn, supervisor, nginx):
    """A request may end by its own deadline, then by a graceful stop, and only then by force."""
    deadline = float(Settings.from_env({}).deadline_s)
    graceful = gunicorn["graceful_timeout"]
    proxy = seconds(nginx, "proxy_read_timeout")
    stop = min(
        supervisor.getint(f"program:{name}", "stopwaitsecs") for name in ("gunicorn", "nginx")
    )
    assert deadline < graceful < proxy < stop
    assert proxy <= seconds(nginx, "worker_shutdown_timeout") < stop
    assert seconds(nginx, "proxy_next_upstream_timeout") == proxy
    assert f"no answer within {proxy:g} s" in nginx
    operate = (ROOT / "docs" / "operate.md").read_text()
    docker_stop = int(re.search(r"docker stop -t (\d+)", operate)[1])
    assert docker_stop >= 2 * stop, "nginx stops first, gunicorn after it"


def test_nginx_is_the_one_to_close_idle_connections(gunicorn, nginx):
    upstream = nginx[nginx.index("upstream gunicorn") :]
    assert seconds(upstream, "keepalive_timeout") < gunicorn["keepalive"]


def test_nginx_and_the_application_agree_on_the_largest_body(nginx):
    limit = Settings.from_env({}).max_body_bytes
    megabytes = int(re.search(r"client_max_body_size (\d+)m;", nginx)[1])
    assert megabytes * 1024 * 1024 >= limit
    assert f'"{megabytes * 1024 * 1024:,}"' in nginx
    kilobytes = int(re.search(r"client_max_body_size (\d+)k;", nginx)[1])
    assert f'"{kilobytes * 1024:,}"' in nginx


def test_a_request_outlives_six_kills_in_a_row_with_every_idle_connection_dead(nginx):
    """A kill uses one server line for the connection in use, and one for each idle one; then a new one answers."""
    kills = 6
    idle = int(re.search(r"^\s*keepalive (\d+);", nginx, re.MULTILINE)[1])
    lines = nginx.count("server unix:gunicorn.sock max_fails=0;")
    assert lines >= kills * (1 + idle) + 1
    assert "proxy_next_upstream error timeout non_idempotent;" in nginx
    tries = int(re.search(r"proxy_next_upstream_tries (\d+);", nginx)[1])
    assert kills < tries <= lines


def test_nginxs_stored_client_data_fits_the_documented_size_of_run(nginx):
    """The rest of the folder holds the logs, the metrics and converted networks."""
    numbers = dict(re.findall(r"limit_conn (\w+) (\d+);", nginx))
    largest = int(re.search(r"client_max_body_size (\d+)m;", nginx)[1])
    stored = int(numbers["stored_bodies"]) * 4 + int(numbers["large_bodies"]) * largest
    assert f"run/ holds {stored} MB of bodies" in nginx
    operate = (ROOT / "docs" / "operate.md").read_text()
    assert f"{stored} MB of bodies" in operate
    (gigabytes,) = set(re.findall(r"--tmpfs /srv/run:size=(\d+)g", operate))
    assert stored <= int(gigabytes) * 1024 * 0.75
    image_tests = (ROOT / "tests" / "image" / "conftest.py").read_text()
    assert f"--tmpfs /srv/run:size={gigabytes}g" in image_tests
    for name in ("stored", "large"):
        assert int(numbers[f"{name}_addresses"]) < int(numbers[f"{name}_bodies"])
    assert "proxy_max_temp_file_size 0;" in nginx


def test_nginx_accepts_smaller_headers_than_gunicorn(gunicorn, nginx):
    """Nginx refuses first: its largest line has 8 KiB."""
    assert "large_client_header_buffers" not in nginx
    assert gunicorn["limit_request_line"] > 8 * 1024
    assert gunicorn["limit_request_field_size"] > 8 * 1024
    assert gunicorn["limit_request_fields"] > 0


def test_supervisord_never_writes_to_the_terminal(supervisor):
    assert supervisor.getboolean("supervisord", "silent")
    written = {
        value
        for section in supervisor.sections()
        for name, value in supervisor.items(section)
        if name.endswith("logfile")
    }
    in_run = "%(ENV_SERVING_RUN)s/"
    assert all(value == "NONE" or value.startswith(in_run) for value in written), written
    shown = (ROOT / "scripts" / "show-logs").read_text()
    for value in written - {"NONE"}:
        assert Path(value).name in shown


def test_nginx_drains_before_gunicorn(supervisor):
    """Supervisord stops programs in the reverse order of their priority."""
    priority = {
        name: supervisor.getint(name, "priority")
        for name in supervisor
        if ":" in name
        if name != "rpcinterface:supervisor"
    }
    order = sorted(priority, key=priority.get, reverse=True)
    assert order.index("program:nginx") < order.index("program:gunicorn")
    assert order[-1] == "program:logs"
    assert supervisor.get("program:nginx", "stopsignal") == "QUIT"


def test_every_program_ends_with_supervisord(supervisor):
    """Processes that a program leaves behind are killed with it."""
    programs = [supervisor[name] for name in supervisor if name.startswith(("program:", "eventl"))]
    assert len(programs) == 5
    for program in programs:
        assert program["command"].startswith("setpriv --pdeathsig TERM "), program.name
    for name in ("nginx", "gunicorn", "watch", "logs"):
        assert supervisor.getboolean(f"program:{name}", "killasgroup")


def test_an_nginx_that_cannot_bind_its_port_counts_as_not_started(supervisor):
    """Nginx tries five times, half a second apart."""
    assert supervisor.getfloat("program:nginx", "startsecs") > 2.5


def test_request_ids_are_safe_by_the_same_rule_in_nginx_and_in_the_application(nginx):
    from app.web.access import SAFE_ID

    assert f'"~^{SAFE_ID.pattern}$" $http_x_request_id;' in nginx


def test_the_documents_and_the_image_name_the_default_port_and_runtime_folder(supervisor):
    defaults = Settings.from_env({})
    for path in ("Dockerfile", "README.md"):
        assert str(defaults.port) in (ROOT / path).read_text(), path
    assert f"EXPOSE {defaults.port}\n" in (ROOT / "Dockerfile").read_text()
    assert str(defaults.direct_port) in (ROOT / "docs" / "operate.md").read_text()
    run = defaults.run.relative_to(ROOT)
    assert f"ENV SERVING_RUN={run}\n" in (ROOT / "Dockerfile").read_text()
    socket = supervisor.get("supervisorctl", "serverurl")
    assert socket == f"unix://%(here)s/../{run}/supervisor.sock", "the one that people type"


def test_the_label_of_the_image_is_the_version_of_the_server():
    label = f"LABEL org.opencontainers.image.version={__version__}\n"
    assert label in (ROOT / "Dockerfile").read_text()


def test_no_configuration_file_and_no_script_of_the_server_names_a_port():
    names = ("run-nginx", "run-gunicorn", "ready", "serve", "show-logs", "exit-on-fatal")
    files = [*(ROOT / "conf").glob("*.*"), *(ROOT / "scripts" / name for name in names)]
    for path in files:
        lines = path.read_text().splitlines()
        code = "\n".join(line for line in lines if not line.lstrip().startswith(("#", ";")))
        assert not re.search(r"8999|10086", code), path
