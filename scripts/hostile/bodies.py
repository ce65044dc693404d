"""Bodies that are damaged, odd, huge or compressed: forms, JSON, base64, tensors, and options in any place."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator
from urllib.parse import quote

from scripts.hostile.dice import throw
from scripts.hostile.heavy import LIMIT, URL_ENCODED, heavy_cases, picture
from scripts.hostile.judge import Case
from scripts.hostile.mutate import damage
from scripts.hostile.odd_json import odd_value, place_oddly, requests_of, write
from scripts.hostile.routes import BOUNDARY, FORM, JSON, MODEL, form, text_of
from scripts.hostile.trial import Row, Trial
from scripts.hostile.wire import build

BODIES = 5000
ORDINARY = 20_000  # bytes of the long values in most bodies
LARGE_SHARE = 0.02  # of the bodies have values of megabytes
UPLOADS = ("/predict", "/predict/heatmap", "/model_predict")


async def run(trial: Trial, row: Row) -> None:
    """Send the bodies, some at once, and the heaviest one by one."""
    options = trial.options
    count = options.scaled(BODIES, 150)
    await trial.send_all(row, make_cases(options.seed, count), at_once=4)
    await trial.send_all(row, heavy_cases(min(LIMIT, options.bomb_bytes)), at_once=1)


def make_cases(seed: int, count: int) -> Iterator[Case]:
    """Yield odd bodies; the same for the same seed."""
    for index in range(count):
        dice = throw(seed, "body", index)
        make = dice.choice(MAKERS)
        most = LIMIT // 16 if dice.random() < LARGE_SHARE else ORDINARY
        yield Case(f"{make.__name__}#{index}", make(dice, most))


def odd_json(dice: random.Random, most: int) -> bytes:
    """JSON that is right but for one place, perhaps compressed."""
    path, content = dice.choice(list(requests_of(text_of(picture())).values()))
    text = write(place_oddly(content, dice, most))
    headers = {
        "Content_Type": dice.choice(
            (JSON, JSON, JSON, "text/plain", "application/json; charset=utf-16")
        )
    }
    return compress(dice, "POST", path, text, headers)


def broken_json(dice: random.Random, most: int) -> bytes:
    """JSON text that is cut, flipped, in another encoding, or followed by more."""
    path, content = dice.choice(list(requests_of(text_of(picture())).values()))
    text = json.dumps(content).encode()
    text = dice.choice(
        (
            damage(text, dice),
            damage(text, dice),
            text.decode().encode(dice.choice(("utf-16", "utf-32", "utf-7", "utf-8-sig"))),
            text + dice.choice((b"}", b"\0", b" " * most, text, b",")),
            text.replace(b'"', b"'"),
            text.replace(b":", b"=", 1),
            b"",
        )
    )
    return build("POST", path, text, Content_Type=JSON)


def odd_form(dice: random.Random, most: int) -> bytes:
    """A form with odd options, names, headers or edges."""
    value = odd_value(dice, most)
    text = value if isinstance(value, str) else str(value)[:most]
    text = text.encode("utf-8", "replace").decode()
    option = dice.choice(
        ("top_k", "threshold", "scores", "heatmap", "label", "model", "version", "size", "odd")
    )
    body = form(picture(), **{option: text})
    names = (
        b'"; filename="',
        b"\xff\xfe",
        b"image\r\nX-A: b",
        b"a" * min(most, 100_000),
        b"\x00",
        b"",
    )
    body = dice.choice(
        (
            body,
            body,
            damage(body, dice),
            body.replace(b'name="image"', b'name="' + dice.choice(names) + b'"'),
            body.replace(b"a.jpg", dice.choice((*names, b"..%2f", "\u202e\u2028.jpg".encode()))),
            body.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * min(most, 100_000) + b"\r\n\r\n", 1),
            body.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n"),
            body.replace(b"\r\n", b"\n"),
            body.replace(f"--{BOUNDARY}--".encode(), b""),
            f"--{BOUNDARY}\r\n\r\n".encode() * (most // 20),
            body * dice.choice((2, 20)),
            b"x" * most + b"\r\n" + body,
            form(b"", image=text),
        )
    )
    kinds = (FORM, FORM, FORM, FORM, "multipart/form-data", f"multipart/mixed; boundary={BOUNDARY}")
    odd_kinds = (
        f'{FORM}; boundary="a"',
        "multipart/form-data; boundary=" + "-" * 300,
        "multipart/form-data; boundary=é",
    )
    kind = dice.choice((*kinds, *odd_kinds))
    return build("POST", dice.choice(UPLOADS), body, Content_Type=kind)


def odd_base64(dice: random.Random, most: int) -> bytes:
    """Base64 with blanks, other alphabets, wrong padding, or nothing in it."""
    text = text_of(picture())
    text = dice.choice(
        (
            "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76)),
            " ".join(text),
            text.rstrip("="),
            text + "=" * most,
            text.replace("/", "_").replace("+", "-"),
            text[:-3],
            "é" + text,
            "\u3000".join(text),
            "data:image/png;base64," + text,
            "data:" + "," * most,
            " " * most + text,
            "=" * most,
            "",
        )
    )
    path, content = dice.choice(list(requests_of(text).values()))
    if dice.random() < 0.3:
        body = (
            b"b64="
            + quote(text, safe="").encode()
            + dice.choice((b"", b"&b64=", b"&top_k=1", b"&a" * (most // 2)))
        )
        return build("POST", dice.choice(UPLOADS), body, Content_Type=URL_ENCODED)
    return build("POST", path, json.dumps(content).encode(), Content_Type=JSON)


def odd_tensor(dice: random.Random, most: int) -> bytes:
    """Open Inference with binary data whose sizes, shapes and header do not fit."""
    body = len(picture()).to_bytes(4, "little") + picture()
    size: object = dice.choice(
        (len(body), len(body) + 1, 0, -1, 3, 2**31, 2**64, "9", None, 1.5, [])
    )
    shape = dice.choice(
        ([1], [2], [], [0], [-1], [1, 1], [2**63], [1] * 1000, [[1]], "1", [1.0], [10**18] * 9)
    )
    kind = dice.choice(("BYTES", "UINT8", "FP32", "BOOL", "", 7, "a" * min(most, 100_000)))
    name = dice.choice(("image", "pixels", "", "\ud800", "a" * min(most, 100_000)))
    tensor = {
        "name": name,
        "datatype": kind,
        "shape": shape,
        "parameters": {"binary_data_size": size},
    }
    head = json.dumps({"inputs": [tensor] * dice.choice((1, 1, 2, 1000))}).encode()
    lengths = (len(head), len(head), len(head) + 1, 0, -1, 2**64, "0x10", "", "1" * 5000, "٣", " 1")
    headers = {"Inference_Header_Content_Length": str(dice.choice(lengths))}
    data = head + dice.choice((body, body[:-1], b"", body * 2, b"\xff\xff\xff\xff"))
    return compress(dice, "POST", f"/v2/models/{MODEL}/infer", data, headers)


def odd_request(dice: random.Random, most: int) -> bytes:
    """A good picture with odd options in the query, headers, path or method."""
    value = quote(str(odd_value(dice, 1000))[:2000], safe="", errors="replace")
    option = dice.choice(
        ("top_k", "threshold", "scores", "heatmap", "model", "version", "label", "%00", "")
    )
    model = dice.choice(
        (*[MODEL] * 9, "none", "%ff", "%ED%A0%80", "a" * 5000, "..", "%2e%2e", "%0a", "")
    )
    number = dice.choice(("1", "0" * 20 + "1" * 4400, "-1", "٣", "1e3", "99999999999999999999", ""))
    paths = (
        f"{dice.choice(UPLOADS)}?{option}={value}",
        f"{dice.choice(UPLOADS)}?{option}={value}&{option}={value}",
        f"/v1/models/{model}/versions/{number}:predict",
        f"/v1/models/{model}:classify",
        f"/v2/models/{model}/versions/{number}/infer",
        f"/v2/models/{model}/infer",
    )
    looks = (
        *(
            f"/v1/models/{model}",
            f"/v1/models/{MODEL}/versions/{number}",
            f"/v1/models/{MODEL}/labels/{model}",
        ),
        *(
            "/docs/swagger-ui.css",
            "/samples/street.jpg",
            "/page/x/main.js",
            "/openapi.json",
            "/metrics",
        ),
        *(
            "/",
            f"/?model={model}&version={number}",
            f"/v2/models/{model}/versions/{number}",
            "/readyz",
        ),
    )
    odd = {
        "If_Modified_Since": dice.choice(
            ("Thu, 01 Jan 999999999999 00:00:00 GMT", "0", "Thu, 99 Foo 1")
        ),
        "If_None_Match": dice.choice(('"' + "a" * 4000, "*", ",,,", 'W/"')),
        "Range": dice.choice(
            (
                "bytes=0-",
                "bytes=-1",
                "bytes=9-1",
                "bytes=" + "0-0," * 500,
                "x=1-2",
                "bytes=1-" + "9" * 400,
            )
        ),
        "Accept": dice.choice(
            ("*/*;q=nan", "a/b;q=" + "9" * 400, "image/png;;;", ";", "text/html")
        ),
        "X_Request_ID": dice.choice(("a" * 64, "a b", "\x7f", "é")),
        "X_Routing_Key": dice.choice(("a" * 4000, "é", "")),
        "Content_Encoding": dice.choice(("gzip, gzip", "br", "", "GZIP", "identity, gzip")),
        "Content_Type": dice.choice(
            ("image/jpeg", "a" * 3000, "image/\xe9", ";", "application/json;charset=\ud800")
        ),
        "Expect": "100-continue",
        "Accept_Encoding": "gzip;q=nan, " * 50,
    }
    kept = {
        name: odd[name].encode("utf-8", "replace").decode()
        for name in dice.sample(sorted(odd), dice.choice((0, 0, 1, 2)))
    }
    if dice.random() < 0.5:
        return build(
            dice.choice(("GET", "GET", "HEAD", "OPTIONS", "DELETE")),
            dice.choice(looks),
            b"",
            **kept,
        )
    headers = {"Content_Type": "image/jpeg"} | kept
    return build(
        dice.choice(("POST", "POST", "PUT", "PATCH")), dice.choice(paths), picture(), **headers
    )


MAKERS: tuple[Callable[[random.Random, int], bytes], ...] = (
    *(odd_json, odd_json, odd_json),
    *(broken_json, odd_form, odd_form, odd_base64, odd_tensor, odd_request, odd_request),
)


def compress(
    dice: random.Random, method: str, path: str, body: bytes, headers: dict[str, str]
) -> bytes:
    """Return a request, in some cases compressed, in some of these wrongly."""
    kind = dice.choice(("", "", "", "gzip", "deflate", "damaged", "cut", "wrong"))
    packed = {
        "": body,
        "gzip": gzip.compress(body, 1, mtime=0),
        "deflate": zlib.compress(body, 1),
        "damaged": damage(gzip.compress(body, 1, mtime=0), dice),
        "cut": gzip.compress(body, 1, mtime=0)[:-9],
        "wrong": zlib.compress(body, 1),
    }[kind]
    encoding = {"": {}, "deflate": {"Content_Encoding": "deflate"}}
    return build(
        method, path, packed, **headers, **encoding.get(kind, {"Content_Encoding": "gzip"})
    )
