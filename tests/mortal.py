"""An application that crashes or hangs on some images, faults that cannot be caused at will otherwise.

Of an image in tests/faults.py the decode thread or the model thread ends the process, or hangs. A white
image ends the model thread.
"""

import os
import signal

import numpy as np
from gevent.monkey import get_original
from PIL import Image

from app.gunicorn import worker
from app.scoreboard import scoreboard
from app.serving import image_pool
from app.serving.server import ModelServer
from app.settings import Settings
from app.web.app import create_app
from tests.faults import FAULTS, MARK
from tests.helpers import StubLoader, as_forward, make_entry, make_manifest, make_model

HANG_S = 3600
NATIVE_SLEEP = get_original("time", "sleep")  # gevent's own would let other greenlets run


def prepare_image(image: Image.Image, *rest: object) -> np.ndarray:
    """Replace ``app.processing.images.prepare_image``, which cannot crash at will."""
    if image.size == FAULTS["crash in decoding"]:
        signal.raise_signal(signal.SIGSEGV)  # of this thread, as a real one is
    if image.size == FAULTS["kill in decoding"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if image.size == FAULTS["hang in decoding"]:
        NATIVE_SLEEP(HANG_S)
    return really_prepare_image(image, *rest)


def forward(images: list[np.ndarray]) -> np.ndarray:
    """Answer, or cause the fault of an image."""
    for image in images:
        demand = tuple(image[:2, 0, 0])
        if (image == 255).all():
            raise SystemExit
        if demand == (MARK, 63):
            os._exit(1)
        if demand == (MARK, 65):
            NATIVE_SLEEP(HANG_S)
    return np.ones((len(images), 1), np.float32)


really_prepare_image, image_pool.prepare_image = image_pool.prepare_image, prepare_image
worker.BODY_S = 2  # a test of half a minute would be all waiting
settings = Settings.from_env(os.environ)
entry = make_entry("mortal", 1)
model = make_model(entry, ("Alive",), as_forward(forward))
manifest = make_manifest(entry)
loader = StubLoader(settings, scoreboard, lambda *_: model)
server = ModelServer(settings, scoreboard, loader, lambda: manifest, lambda: os._exit(1))
app = create_app(settings, server)
server.start()
