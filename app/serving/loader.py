"""A version of the manifest becomes a model at work in one worker."""

from __future__ import annotations

import sys
from functools import partial

from gevent.monkey import is_module_patched

from app.control.manifest import Entry
from app.control.plan import choose_how, current_plan, room_on_device
from app.engines.loader import load_engine
from app.errors import BundleError
from app.serving.model import Model
from app.settings import Settings
from app.system.gpus import confine_to


def load_model(settings: Settings, slot: int, entry: Entry) -> Model:
    """Load a version for the worker in ``slot``, on the calling thread.

    Raises:
        BundleError: it cannot be served.
    """
    placement, footprint = current_plan(settings).placement(slot), entry.footprint
    choice = choose_how(settings, placement, footprint)
    if is_module_patched("threading") and f"app.engines.{choice.engine}" not in sys.modules:
        raise BundleError(  # see tell_plan in conf/gunicorn.conf.py
            f"it needs the engine {choice.engine}, which the server did not start with: reload Gunicorn"
        )
    artifacts = entry.open(settings.cache)
    bundle = artifacts.bundle
    if footprint.device == "cuda" and placement.gpu:
        confine_to(placement.gpu)  # before anything here has touched CUDA
    with room_on_device(settings, placement, footprint):
        engine = load_engine(choice, artifacts)
    return Model(
        bundle.name,
        bundle.version,
        bundle.class_names,
        bundle.description,
        placement.device if footprint.device == "cuda" else "cpu",
        choice.engine,
        choice.precision,
        engine.max_batch,
        engine.forward,
        tuple(partial(engine.forward_in_lane, lane) for lane in range(engine.lanes)),
        bundle.config,
        engine.gradients,
        engine.close,
    )
