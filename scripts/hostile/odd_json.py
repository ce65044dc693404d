"""JSON that is right but for one place, and JSON text that no library would write."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from scripts.hostile.routes import MODEL

PIXELS = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]]


class Literal(str):
    """Text that stands in JSON as it is."""


def requests_of(picture: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return a path and right content for each JSON route; ``picture`` is in base64."""
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [picture]}
    pixels = {"name": "pixels", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [7] * 12}
    scores = {"name": "scores", "parameters": {"classification": 3, "binary_data": False}}
    v1, v2 = f"/v1/models/{MODEL}", f"/v2/models/{MODEL}/infer"
    example = {"image_bytes": {"b64": picture}}
    options = {"top_k": 2, "threshold": 0.5, "scores": "all", "heatmap": "Car", "model": MODEL}
    return {
        "predict": ("/predict", {"images": [{"b64": picture}], **options}),
        "heatmap": (
            "/predict/heatmap",
            {"images": [{"b64": picture}], "label": "Car", "opacity": 0.4},
        ),
        "v1 rows": (f"{v1}:predict", {"instances": [{"b64": picture}], "signature_name": "logits"}),
        "v1 columns": (f"{v1}:predict", {"inputs": {"image_bytes": [{"b64": picture}]}}),
        "v1 pixels": (f"{v1}:predict", {"instances": [PIXELS], "signature_name": "pixels"}),
        "v1 classify": (f"{v1}:classify", {"context": {"a": 1}, "examples": [example]}),
        "v1 regress": (f"{v1}:regress", {"examples": [example]}),
        "v2 image": (v2, {"id": "7", "inputs": [image], "outputs": [scores]}),
        "v2 pixels": (v2, {"inputs": [pixels], "parameters": {"binary_data_output": True}}),
        "v2 index": ("/v2/repository/index", {"ready": True}),
        "v2 load": (f"/v2/repository/models/{MODEL}/load", {"parameters": {"config": "{}"}}),
    }


def odd_value(dice: random.Random, most: int) -> Any:
    """Return a value that may be handled badly; the long ones have about ``most`` bytes."""
    digits = dice.choice((20, 310, 4299, 4301, min(most, 1_000_000)))
    depth = dice.choice((10, 990, 100_000)) if most > 100_000 else 990
    return dice.choice(
        (
            *(None, True, False, -1, 0, -0.0, 1.5, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1),
            *(
                "",
                " ",
                "\x00",
                "\ud800",
                "\udfff\ud800",
                "é" * 300,
                "\u202e\u2028\x85",
                "%s%n{}",
                "../../etc",
            ),
            *(
                [],
                {},
                [[]],
                [{}],
                {"": ""},
                {"b64": ""},
                {"b64": None},
                {"b64": "AAAA", "url": "x"},
            ),
            *(
                {"url": "file:///etc/passwd"},
                {"url": "http://127.0.0.1:1/"},
                {"url": "http://" + "a" * 300},
            ),
            *("a" * most, " " * most, ["a"] * (most // 4), [0] * (most // 2), [[]] * (most // 3)),
            {str(i): i for i in range(most // 12)},
            [1, *[10**18] * 400],
            [10**9] * 4,
            *(
                Literal(text)
                for text in ("NaN", "-Infinity", "1e999", "-1e-999", "0" * 50, "+1", "01")
            ),
            Literal("9" * digits),
            Literal(f"[1,{','.join(['9' * min(digits, 4300)] * 40)}]"),
            Literal(f"0.{'1' * digits}"),
            Literal("[" * depth + "]" * depth),
            Literal('{"a":' * depth + "1" + "}" * depth),
            Literal('{"b64":"","b64":"","b64":1}'),
            Literal('"\\ud800"'),
            Literal('"\\u0000"'),
            Literal("'text'"),
            Literal("\ufeff1"),
        )
    )


def place_oddly(content: dict[str, Any], dice: random.Random, most: int) -> dict[str, Any]:
    """Return a copy in which one value, one key, or one more key is odd."""
    changed = copy.deepcopy(content)
    places = list(walk(changed))
    holder, key = dice.choice(places)
    value = odd_value(dice, most)
    kind = dice.random()
    if kind < 0.7:
        holder[key] = value
    elif kind < 0.8 and isinstance(holder, dict):
        holder["a" * dice.choice((1, 300, min(most, 100_000)))] = value
    elif isinstance(holder, list):
        holder.extend([holder[key]] * min(most // 1000, 1000))
    else:
        del holder[key]
    return changed


def walk(content: Any) -> list[tuple[Any, Any]]:
    """Return all places in JSON: the dict or list, and the key or index."""
    found = []
    keys = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in keys:
        found.append((content, key))
        if isinstance(value, dict | list):
            found += walk(value)
    return found


def write(content: Any) -> bytes:
    """Return JSON, with literals as they are and lone surrogates as escapes."""
    if isinstance(content, Literal):
        return content.encode()
    if isinstance(content, dict):
        pairs = (json.dumps(key).encode() + b":" + write(each) for key, each in content.items())
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(content, list):
        if len(content) > 1000:  # long lists hold one value again and again
            return b"[" + b",".join([write(content[0])] * len(content)) + b"]"
        return b"[" + b",".join(map(write, content)) + b"]"
    return json.dumps(content).encode()
