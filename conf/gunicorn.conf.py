"""Gunicorn: gevent workers behind nginx.

The master plans the workers (``app/control/planner.py``) and imports their engine once for all of them, but
does not use it: a fork after CUDA was touched breaks every worker, a fork after an OpenMP forward hangs the
child. This file is read again on a reload, while the old workers serve.
"""

import importlib
import logging
import os
import signal
import sys
import warnings

from prometheus_client.multiprocess import mark_process_dead

from app.control.planner import planner
from app.errors import SettingsError
from app.gunicorn import exits
from app.gunicorn.arbiter import STOPS, Master
from app.gunicorn.listeners import is_free
from app.keys import read_keys
from app.logs import logging_config
from app.scoreboard import scoreboard
from app.settings import Settings
from app.system import log_writer

os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as NVML counts the GPUs
try:
    settings = Settings.from_env(os.environ)
    if settings.keys:  # at the start a sentence; later each worker keeps the last good ones
        read_keys(settings.keys)
except SettingsError as error:
    sys.exit(f"the settings cannot be used:\n{error}")

bind = [f"unix:{os.path.relpath(settings.run)}/gunicorn.sock"]  # nginx connects to it
direct = f"127.0.0.1:{settings.direct_port}"  # for diagnosis without nginx
if is_free(direct):
    bind.append(direct)
worker_class = "app.gunicorn.worker.ServingWorker"
wsgi_app = "app.wsgi:app"
try:
    plan = planner.make(settings)
except Exception as error:  # noqa: BLE001  (at the start a sentence; on a reload app/gunicorn/arbiter.py goes on)
    sys.exit(f"the workers cannot be planned: {type(error).__name__}: {error}")
workers = len(plan.placements)
preload_app = False  # the model loads after the fork
worker_connections = 1000
umask = 0o177  # gunicorn.sock is 0600: no other user of this machine can bypass nginx
# nginx takes lines of up to 8 KiB and 32 KiB in all: its own refusals come first, but for that of many
# short headers. These limits also hold for clients that bypass it.
limit_request_line = 16_384
limit_request_field_size = 16_384
limit_request_fields = 200
# nginx says which scheme the client used; no other header does, and none sets where we are mounted.
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
forwarder_headers = ""

# The ladder of times, each above the one before it; tests/test_conf.py holds it:
# deadline of a request (30 s) < graceful_timeout < nginx proxy_read_timeout < supervisor
# stopwaitsecs < docker stop -t
timeout = 60  # s without a heartbeat of the hub; the model thread does not block it
graceful_timeout = 35  # s for requests in flight after TERM or HUP
keepalive = 30  # s; above nginx's keepalive_timeout to the upstream: nginx is the one to close

control_socket_disable = True
proc_name = "resnet-serving"
logconfig_dict = logging_config(settings.log_level)

# By default the model thread's Python would hold the GIL for 5 ms at a time while a request waits for it.
SWITCH_INTERVAL_S = 0.0005


def on_starting(server):
    """Replace Gunicorn's reload; in the master, before anything else."""
    Master.adopt(server)


def when_ready(server):
    """Log the plan and import the engine; in the master, after the sockets are open: clients wait, not fail."""
    if len(bind) == 1:
        logging.getLogger("plan").warning(
            "%s is taken: until the next start there is no way past nginx", direct
        )
    log_plan()


def on_reload(server):
    """Log the new plan; in the master, before the new workers are forked."""
    log_plan()


def log_plan():
    """Log the plan with its reasons, and import its engines.

    The workers share the import's memory and load in less than a second. It has to come before
    gevent's patches too: torch's import runs a subprocess, which gevent allows on the hub only, and
    an engine's locks must stay real ones for the model thread. A version that comes later and needs
    another engine has to wait for a reload.
    """
    logger = logging.getLogger("plan")
    for what, text in plan.lines:
        logger.info("%s: %s", what, text)
    if plan.warning:
        logger.warning("%s", plan.warning)
    if plan.manifest.entries:  # otherwise the workers log why there are none
        for rejected in plan.manifest.rejected:
            logger.error(
                "refused: %s, version %s: %s", rejected.name, rejected.version, rejected.reason
            )
    for engine in plan.engines(settings):
        importlib.import_module(f"app.engines.{engine}")


def pre_fork(server, worker):
    """Claim a slot for the worker, whose placement no living worker of this plan has; in the master."""
    exits.watch(server)
    worker.plan, placements = plan, len(plan.placements)
    taken = {each.slot % placements for each in server.WORKERS.values() if each.plan is plan}
    worker.slot = scoreboard.claim(placements, taken)


def post_fork(server, worker):
    """Enter the worker's slot, and switch threads often; in the worker."""
    for number in STOPS:  # until the worker has its own handlers: the master's only queue signals
        signal.signal(number, signal.SIG_DFL)
    # Gunicorn's codes for "cannot boot" would end the master and all workers.
    if scoreboard.has_served():
        server.WORKER_BOOT_ERROR = server.APP_LOAD_ERROR = 1
    # While it patches, gevent reads every attribute of torch; one of them warns when it is read.
    warnings.filterwarnings("ignore", message=".*reduce_op", category=FutureWarning)
    scoreboard.enter(worker.slot)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def child_exit(server, worker):
    """Free a dead worker's slot and remove its gauges from the metrics; in the master. Its counters stay.

    An input that has crashed two workers is quarantined: app/quarantine.py.
    """
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # scripts/run-gunicorn
        mark_process_dead(worker.slot)  # the files are named by slots: app/metrics.py
    for digest in scoreboard.release(worker.slot, exits.take_signal(worker.pid)):
        logging.getLogger("quarantine").error(
            "an input (%s) was being processed when two workers died: it is refused until the next start",
            digest.hex(),
        )


def worker_exit(server, worker):
    """Drain the model server; in the worker, after its last request."""
    if model_server := getattr(getattr(worker, "wsgi", None), "extensions", {}).get("model_server"):
        model_server.stop(timeout_s=1)
        # A model thread that still loads would make the interpreter's own end abort (SIGABRT).
        log_writer.stdout.flush()
        os._exit(0)
