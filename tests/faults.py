"""Images that crash tests/mortal.py, recognized by their size in px and their first pixel."""

from PIL import Image

from tests.helpers import encode

FAULTS = {
    "crash in decoding": (61, 17),
    "kill in decoding": (62, 17),
    "exit in the forward": (63, 17),
    "hang in decoding": (64, 17),
    "hang in the forward": (65, 17),
}
MARK = 254  # first value of the pixel; the second is the fault's width


def draw_fault(name: str, shade: int = 0) -> bytes:
    """Return the file of an image that causes a fault; one of another shade is another input."""
    width, height = FAULTS[name]
    return encode(Image.new("RGB", (width, height), (MARK, width, shade)), "PNG")
