"""What schemathesis has to be told about this server beside the document: JSON Schema knows no pictures."""

import base64

import schemathesis
from hypothesis import strategies
from schemathesis.transport.serialization import contains_binary

from tests.helpers import grey

PICTURE = grey(200)
BASE64 = base64.b64encode(PICTURE).decode()

schemathesis.openapi.format("binary", strategies.just(PICTURE))


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Put a picture wherever base64 belongs in a valid request, or a URL: they are off."""
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if is_valid and isinstance(case.body, dict) and not contains_binary(case.body):
        case.body = with_pictures(case.body)


def with_pictures(value):
    """Return a body with pictures."""
    if isinstance(value, list):
        return [with_pictures(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"url"}:
        return {"b64": BASE64}
    return {name: with_base64(name, each) for name, each in value.items()}


def with_base64(name, value):
    """Return a member of an object in the same way; in a form ``b64`` may be a list."""
    if name != "b64":
        return with_pictures(value)
    return [BASE64 for _ in value] if isinstance(value, list) else BASE64
