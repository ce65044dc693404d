"""Every way in which a picture comes into the server, as the bytes of a request."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

from scripts.hostile.wire import build

BOUNDARY = "xxBOUNDARYxx"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
JSON = "application/json"
MODEL = "demo"


def form(data: bytes, **fields: str) -> bytes:
    """Return a multipart body with a picture and fields."""
    parts = [
        f'Content-Disposition: form-data; name="{n}"\r\n\r\n{v}'.encode() for n, v in fields.items()
    ]
    head = b'Content-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    edge = f"--{BOUNDARY}\r\n".encode()
    body = b"".join(edge + part + b"\r\n" for part in [*parts, head + data])
    return body + f"--{BOUNDARY}--\r\n".encode()


def post_json(path: str, content: object) -> bytes:
    """Return a request with a JSON body."""
    return build("POST", path, json.dumps(content).encode(), Content_Type=JSON)


def text_of(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


def v2_json(data: bytes) -> bytes:
    """Return an Open Inference request with a picture in base64."""
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text_of(data)]}
    return post_json(f"/v2/models/{MODEL}/infer", {"inputs": [tensor]})


def v2_tensor(data: bytes) -> bytes:
    """Return an Open Inference request with a picture behind the JSON."""
    sized = len(data).to_bytes(4, "little") + data
    size = {"binary_data_size": len(sized)}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    length = {"Inference_Header_Content_Length": str(len(head))}
    return build("POST", f"/v2/models/{MODEL}/infer", head + sized, **length)


PICTURE_ROUTES: dict[str, Callable[[bytes], bytes]] = {
    "model_predict": lambda data: build("POST", "/model_predict", form(data), Content_Type=FORM),
    "predict form": lambda data: build(
        "POST", "/predict", form(data, scores="all"), Content_Type=FORM
    ),
    "predict raw": lambda data: build("POST", "/predict?top_k=3", data, Content_Type="image/jpeg"),
    "predict json": lambda data: post_json("/predict", {"images": [{"b64": text_of(data)}]}),
    "predict urlencoded": lambda data: build(
        "POST",
        "/predict",
        b"b64=" + quote(text_of(data)).encode(),
        Content_Type="application/x-www-form-urlencoded",
    ),
    "heatmaps": lambda data: build("POST", "/predict?heatmap=all", data, Content_Type="image/png"),
    "heatmap": lambda data: build(
        "POST", "/predict/heatmap", form(data, size="picture"), Content_Type=FORM
    ),
    "v1 predict": lambda data: post_json(
        f"/v1/models/{MODEL}:predict", {"instances": [{"b64": text_of(data)}]}
    ),
    "v1 classify": lambda data: post_json(
        f"/v1/models/{MODEL}:classify", {"examples": [{"image_bytes": {"b64": text_of(data)}}]}
    ),
    "v2 json": v2_json,
    "v2 tensor": v2_tensor,
    "v2 raw": lambda data: build(
        "POST", f"/v2/models/{MODEL}/infer", data, Inference_Header_Content_Length="0"
    ),
}
