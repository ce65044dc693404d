"""What schemathesis has to be told about this server beside the document: JSON Schema knows no pictures."""

import base64

import schemathesis
from hypothesis import strategies
from schemathesis.transport.serialization import contains_binary

from tests.helpers import SAMPLES

PICTURE = (SAMPLES / "airport.jpg").read_bytes()
BASE64 = base64.b64encode(PICTURE).decode()

schemathesis.openapi.format("binary", strategies.just(PICTURE))


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Make of a valid request one that can be answered: with pictures in base64, and each option in one place."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if isinstance(case.body, dict) and not contains_binary(case.body):
        case.body = with_pictures(case.body)
    if isinstance(case.body, dict) and case.query:
        case.query = {name: value for name, value in case.query.items() if name not in case.body}


def with_pictures(value):
    """Return a body with a picture wherever base64 belongs, or a URL: they are off."""
    if isinstance(value, list):
        return [with_pictures(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"url"}:
        return {"b64": BASE64}
    return {name: with_base64(name, each) for name, each in value.items()}


def with_base64(name, value):
    """Return a member of an object in the same way; in a form ``b64`` is a list."""
    if name != "b64":
        return with_pictures(value)
    return [BASE64 for _ in value] if isinstance(value, list) else BASE64
