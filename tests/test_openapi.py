"""``/openapi.json`` describes every route as it behaves."""

import json
import re
import subprocess
import sys
import tracemalloc

import pytest
import requests
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource
from werkzeug.exceptions import HTTPException

from app import errors
from app.settings import Settings
from app.web.app import create_app
from app.web.input.options import PredictOptions
from app.web.openapi.document import EXAMPLES, GROUPS, UNDOCUMENTED, build_document, find_rule
from app.web.openapi.errors import DETAILS, FORBIDDEN, GATEWAY, KEY_ERRORS
from app.web.openapi.schemas import read_docstring
from app.web.problems import find_title
from tests.helpers import ROOT, SAMPLES, gray

APP = create_app(Settings.from_env({}))
DOCUMENT = json.loads(json.dumps(build_document(APP)))
OPERATIONS = {operation.id: operation for group in GROUPS for operation in group.operations}
DRAWN = {
    drawn["operationId"]: drawn for path in DOCUMENT["paths"].values() for drawn in path.values()
}
RECORDED = [
    pytest.param(id_, example, id=f"{id_}-{example['name']}")
    for id_, examples in json.loads(EXAMPLES.read_text()).items()
    for example in examples
]
ANY_TIME = {"timings_ms", "request_id"}  # their values differ from call to call


def resolve(part: dict) -> dict:
    """Return the target of a reference in the document."""
    while "$ref" in part:
        place = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            place = place[name]
        part = place
    return part


def check(value, schema: dict) -> None:
    """Assert that a value is as a schema of the document says."""
    document = Resource.from_contents(
        DOCUMENT | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    )
    registry = Registry().with_resource("urn:document", document)
    pointed = json.loads(json.dumps(schema).replace('"#/', '"urn:document#/'))
    Draft202012Validator(pointed, registry=registry).validate(value)


def medias(drawn: dict) -> list[dict]:
    """Return the bodies that an operation accepts and answers, for each type."""
    parts = [drawn.get("requestBody", {}), *map(resolve, drawn["responses"].values())]
    return [media for part in parts for media in part.get("content", {}).values()]


def test_the_document_is_openapi_3_1():
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1")


def test_every_reference_has_a_component_and_every_component_is_referenced():
    """The files of the other servers' protocols name schemas that types of the code may no longer have."""
    text = json.dumps(DOCUMENT)
    named = {tuple(path.split("/")) for path in re.findall(r'"#/components/([^"]+)"', text)}
    there = {(kind, name) for kind, parts in DOCUMENT["components"].items() for name in parts}
    assert named == there


@pytest.mark.parametrize(
    "rule", [rule for rule in APP.url_map.iter_rules() if rule.rule not in UNDOCUMENTED], ids=str
)
def test_every_route_has_an_operation(rule):
    """TensorFlow Serving's paths are case-insensitive: documentation of /v1 covers /V1."""
    for method in rule.methods - {"HEAD", "OPTIONS"}:
        documented = {
            find_rule(APP, operation).rule.lower()
            for operation in OPERATIONS.values()
            if operation.method == method
        }
        assert rule.rule.lower() in documented, (
            f"{method} {rule} is not documented: give it an Operation in one of the tables in"
            " app/web/openapi/"
        )


@pytest.mark.parametrize("id_", OPERATIONS)
def test_every_operation_has_a_route(id_):
    try:
        find_rule(APP, OPERATIONS[id_])
    except HTTPException as error:
        pytest.fail(f"{id_} is documented, but no route answers it: {error}")


def test_every_undocumented_path_exists():
    assert {rule.rule for rule in APP.url_map.iter_rules()} >= UNDOCUMENTED


def test_every_operation_and_every_member_has_a_description():
    for id_, drawn in DRAWN.items():
        assert drawn["summary"], id_
        assert len(drawn["description"]) > 10, id_
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema.get("description"), name


def test_a_docstring_is_rendered_in_markdown_without_its_sections():
    description, members = read_docstring(
        """What it is.

        More of ``it``.

        Attributes:
            one: the first, which
                goes on.
            two: the second.
        """
    )
    assert description == "What it is.\n\nMore of `it`."
    assert members == {"one": "the first, which goes on.", "two": "the second."}


def test_the_options_are_in_the_query_and_in_json_and_no_form_repeats_them():
    """openapi-generator makes an argument of each parameter and of each field of a form."""
    drawn = DRAWN["predict"]
    query = {part["name"] for part in map(resolve, drawn["parameters"]) if part["in"] == "query"}
    assert query == set(PredictOptions.__struct_fields__)
    bodies = {kind: media["schema"] for kind, media in drawn["requestBody"]["content"].items()}
    assert bodies["multipart/form-data"]["properties"].keys() == {"image"}
    assert bodies["application/x-www-form-urlencoded"]["properties"].keys() == {"b64"}
    assert bodies["application/json"]["properties"].keys() == {"images", *query}
    assert next(iter(bodies)) == "multipart/form-data"
    for part in map(resolve, drawn["parameters"]):
        assert "null" not in json.dumps(part), "text cannot be null"


@pytest.mark.parametrize("id_", OPERATIONS)
def test_every_example_matches_its_schema(id_):
    for media in medias(DRAWN[id_]):
        for example in media.get("examples", {}).values():
            check(example["value"], media["schema"])


def test_every_answer_with_text_has_an_example():
    whole = {"openapi", "docs"}  # they would be examples of themselves
    for id_, drawn in DRAWN.items():
        for kind, media in drawn["responses"].get("200", {}).get("content", {}).items():
            if kind in ("application/json", "text/plain") and id_ not in whole:
                assert media.get("examples"), f"{id_} has no example of {kind}: see {EXAMPLES.name}"


def same(shown, found) -> bool:
    """Return whether an answer matches an example; "…" stands for the rest of a text or a list."""
    if isinstance(shown, dict):
        return shown.keys() == found.keys() and all(
            name in ANY_TIME or same(shown[name], found[name]) for name in shown
        )
    if isinstance(shown, list):
        if shown[-1:] == ["…"]:
            shown, found = shown[:-1], found[: len(shown) - 1]
        return len(shown) == len(found) and all(map(same, shown, found))
    if isinstance(shown, str) and shown.endswith("…"):
        return found.startswith(shown[:-1])
    if isinstance(shown, str) and (label := re.fullmatch(r"(0\.\d+)(:\d+:.*)", shown)):
        score, _, rest = found.partition(":")  # as Triton writes labels
        return same(float(label[1]), float(score)) and label[2] == f":{rest}"
    if isinstance(shown, float):
        return found == pytest.approx(shown, abs=1e-3)
    return shown == found


@pytest.mark.parametrize(("id_", "example"), RECORDED)
def test_every_example_matches_the_running_server(server, id_, example):
    url, kind = f"{server.url}{example['path']}", example.get("request_type")
    headers = {"Accept": example["answer_type"]}
    sent = {}
    if "files" in example:
        sent["files"] = [
            ("image", (name, (SAMPLES / name).read_bytes())) for name in example["files"]
        ]
    elif kind:
        sent["json" if kind == "application/json" else "data"] = example["request"]
    method = OPERATIONS[id_].method
    response = requests.request(method, url, headers=headers, timeout=60, **sent)
    assert response.status_code == 200, response.text
    is_json = example["answer_type"] == "application/json"
    found = response.json() if is_json else response.text
    assert same(example["answer"], found), f"{json.dumps(found)} is not what is shown"


def test_answers_of_nginx_itself_are_documented():
    text = (ROOT / "conf" / "nginx.conf").read_text()
    documented = {}
    for name in ("code", "detail"):
        (block,) = re.findall(rf"map \$status \$problem_{name} {{\n(.*?)\n    }}", text, re.DOTALL)
        rows = re.findall(r'^ +(\d+) +"?(.*?)"?;$', block, re.MULTILINE)
        (default,) = re.findall(r'default +"?(.*?)"?;$', block, re.MULTILINE)
        documented[name] = {int(status): value for status, value in rows} | {500: default}
    (pages,) = re.findall(r"error_page ((?:\d+ )+)/.problem", text)
    shown = GATEWAY
    assert set(shown) == {*map(int, pages.split()), 431}
    (block,) = re.findall(r"map \$refusal \$problem_refusal {\n(.*?)\n    }", text, re.DOTALL)
    refusals = dict(re.findall(r'^ +(\w+) +"(.*)";$', block, re.MULTILINE))
    assert {403: ("forbidden", refusals["operators"])} == FORBIDDEN
    assert {status: code for status, (code, _) in shown.items()} == documented["code"]
    words = {
        status: text.replace("40000000 bytes", "$problem_size")
        .replace("33,554,432", "$problem_limit")
        .replace(refusals["default"], "$problem_refusal")
        for status, (_, text) in shown.items()
    }
    assert words == documented["detail"]


def test_a_status_has_one_title_from_nginx_and_from_the_application():
    text = (ROOT / "conf" / "nginx.conf").read_text()
    (block,) = re.findall(r"map \$status \$problem_title {\n(.*?)\n    }", text, re.DOTALL)
    titles = dict(re.findall(r'^ +(\d+) +"(.*)";$', block, re.MULTILINE))
    assert titles == {status: find_title(int(status)) for status in titles}
    assert len(titles) > 10


def test_every_error_class_is_documented_for_some_route():
    family = {
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.ServingError)
    }
    unread = {
        errors.ServingError,
        errors.ClientGone,
    }  # the base class; a disconnected client reads nothing
    assert family - unread == set(DETAILS)
    used = {error for operation in OPERATIONS.values() for error in operation.errors}
    of_many_routes = {errors.InternalError, *KEY_ERRORS}  # of every one, of every closed one
    assert used == set(DETAILS) - of_many_routes


@pytest.mark.parametrize(
    ("error", "path", "sent"),
    [
        (
            errors.InvalidOption,
            "/predict?threshold=2",
            {"data": gray(0), "content_type": "image/png"},
        ),
        (errors.MalformedRequest, "/predict", {"json": {"images": [{}]}}),
        (errors.MissingImage, "/predict", {"data": {}, "content_type": "multipart/form-data"}),
        (errors.UnreadableImage, "/predict", {"data": b"", "content_type": "image/png"}),
        (errors.UnsupportedType, "/predict", {"data": b"II*\x00", "content_type": "image/tiff"}),
        (errors.UrlRefused, "/predict", {"json": {"images": [{"url": "http://a.org/b"}]}}),
        (errors.NotAcceptable, "/predict/heatmap", {"headers": {"Accept": "text/html"}}),
    ],
)
def test_the_description_of_an_error_is_that_of_the_code(client, error, path, sent):
    response = client.post(path, **sent)
    assert response.status_code == error.status
    assert response.json["code"] == error.code
    assert response.json["detail"] == DETAILS[error]


def test_the_document_costs_a_worker_less_than_a_megabyte():
    client = create_app(Settings.from_env({})).test_client()
    client.get("/openapi.json")  # caches that all applications share
    other = create_app(Settings.from_env({})).test_client()
    tracemalloc.start()
    try:
        assert other.get("/openapi.json").status_code == 200
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


@pytest.mark.timeout(500)
def test_schemathesis_finds_no_undocumented_answer(tiny_server):
    """It sends some hundred valid and invalid requests to every operation; the file has its settings."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "tests/schemathesis.toml"]
    result = subprocess.run(
        [*command, "run", f"{tiny_server.url}/openapi.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=450,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr
    assert tiny_server.predict(gray(0)).status_code == 200
