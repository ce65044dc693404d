"""How a picture is posted: wrk, the open loop and the first request send the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BOUNDARY = "d74496d66958873e"


@dataclass(frozen=True)
class Form:
    """The headers of a request, and the bytes around an image in its body."""

    headers: dict[str, str]
    before: bytes = b""
    after: bytes = b""

    def body(self, picture: bytes) -> bytes:
        """Return the body that posts a picture."""
        return self.before + picture + self.after

    def write_bodies(self, pictures: Path, folder: Path) -> None:
        """Write the body of every picture into a folder, as wrk's script wants them."""
        for path in sorted(pictures.glob("*.jpg")):
            (folder / path.stem).write_bytes(self.body(path.read_bytes()))


def multipart(field: str) -> Form:
    """Return the form that ``curl -F field=@picture.jpg`` sends."""
    return Form(
        {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
        (
            f"--{BOUNDARY}\r\n"
            f'Content-Disposition: form-data; name="{field}"; filename="picture.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        ).encode(),
        f"\r\n--{BOUNDARY}--\r\n".encode(),
    )


IMAGE = multipart("image")
# Triton's "raw binary request": the body is the only input's only element, with no JSON before it.
TRITON = Form({"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"})
