"""Add to schemathesis checks beyond the document: images, and the codes of errors."""

import base64

import schemathesis
from hypothesis import strategies
from schemathesis.transport.serialization import contains_binary

from tests.helpers import gray

IMAGE = gray(200)
BASE64 = base64.b64encode(IMAGE).decode()

schemathesis.openapi.format("binary", strategies.just(IMAGE))


@schemathesis.check
def codes_are_documented(_context, response, case):
    """Check that an error's code is among the documented examples of its status."""
    if response.headers["content-type"] != ["application/problem+json"]:
        return
    problem = response.json()
    documented = find_examples(case.operation, response.status_code)
    if (problem["status"], problem["code"]) not in documented and response.status_code != 405:
        raise AssertionError(f"{problem['status']} {problem['code']} is not among {documented}")


def find_examples(operation, status):
    """Return status and code of each error that an operation documents for a status."""
    document = operation.schema.raw_schema
    responses = document["paths"][operation.path][operation.method]["responses"]
    response = responses.get(str(status)) or responses[f"{status // 100}XX"]
    response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
    examples = response["content"]["application/problem+json"]["examples"].values()
    return [(example["value"]["status"], example["value"]["code"]) for example in examples]


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Put an image in every place of base64 or of a URL in a valid request: URLs are off."""
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if is_valid and isinstance(case.body, dict) and not contains_binary(case.body):
        case.body = with_images(case.body)


def with_images(value):
    """Return a body with images."""
    if isinstance(value, list):
        return [with_images(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"url"}:
        return {"b64": BASE64}
    return {name: with_base64(name, each) for name, each in value.items()}


def with_base64(name, value):
    """Return a member of an object with images; ``b64`` may be a list in a form."""
    if name != "b64":
        return with_images(value)
    return [BASE64 for _ in value] if isinstance(value, list) else BASE64
