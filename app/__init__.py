"""ResNet Serving: an image comes in over HTTP, its labels go out.

The folders are layers. A module imports from its own folder or from one further down, nothing else;
import-linter holds that (``[tool.importlinter]`` in pyproject.toml), and who may import torch, Flask and gevent.

    commands/     programs: watch, publish, optimize, measure, plan, configure_nginx       python -m app.commands.NAME
    wsgi.py       the application built from the environment; what Gunicorn imports
    gunicorn/     Gunicorn's master, worker and response, adapted
    web/          HTTP: the application, its access log and its errors
        input/       reading requests: forms, bodies, options, images, URLs
        native/ tfserving/ openinference/     a folder for each dialect
        openapi/ docs/ page/                  the API's description, Swagger UI, the web page
    serving/      the data plane: server, registry, batcher, thread pools, the workers' reports
    control/      the control plane: repository, scanner, manifest, footprint, plan, placement
    gateway/      the part of nginx's configuration that follows from the settings
    engines/      numerics on a device: OpenVINO, CUDA, eager; conversion, weights, Grad-CAM
    models/       a model on disk: bundle, config, artifacts, precision
    processing/   Pillow and NumPy: images, decision, heat map
    system/       the machine: processes, control groups, GPUs, files
    settings.py setting_parsers.py keys.py errors.py names.py logs.py metrics.py scoreboard.py quarantine.py
                  used by all

The path of a request, which is ``app/serving/server.py``:

    route → find (the version that answers, once) → check_capacity → predict:
          image pool (native threads) → batcher.submit (bounded queue, deadline)
          → engine.forward (the model thread: one forward for many requests) → decision → JSON

This file imports nothing: Gunicorn's master imports ``app.settings`` and must never touch CUDA or run a
forward, because a fork after CUDA was touched breaks every worker, and a fork after an OpenMP forward hangs
the child.
"""

__version__ = "0.1.0"
