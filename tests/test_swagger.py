"""``/docs`` shows Swagger UI in a real Chromium."""

import json

import pytest
import requests
from playwright.sync_api import expect

from app.web.docs.routes import FILES, SWAGGER_UI
from app.web.openapi.document import GROUPS
from app.web.static import CONTENT_TYPES
from tests.helpers import STREET, check_problem

OPERATIONS = [(group.name, operation) for group in GROUPS for operation in group.operations]


@pytest.fixture
def page(chromium, server):
    """Yield the opened page /docs; fail on browser errors or on requests to another host."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints, urls = [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("request", lambda request: urls.append(request.url))
    page.goto(f"{server.url}/docs")
    yield page
    context.close()
    assert not complaints
    assert [url for url in urls if not url.startswith((server.url, "blob:", "data:"))] == []


def open_operation(page, id_):
    """Open an operation and return its block."""
    block = page.locator(f".opblock[id$='-{id_}']")
    block.locator(".opblock-summary-control").click()
    return block


def execute(page, block):
    """Press "Execute" and return the answer's status and text."""
    with page.expect_response(lambda response: "/docs" not in response.url) as waiting:
        block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table .response-col_status").first).to_be_visible()
    return waiting.value


def test_every_operation_is_shown(page):
    expect(page.locator(".opblock")).to_have_count(len(OPERATIONS))
    expect(page.locator(".opblock-tag")).to_have_count(len(GROUPS))
    expect(page).to_have_title("ResNet Serving: the API")
    for _, operation in OPERATIONS:
        shown = page.locator(f".opblock[id$='-{operation.id}']")
        expect(shown).to_have_count(1)
        expect(shown).to_contain_text(operation.summary)


def test_every_operation_opens(page):
    """Each is drawn with all its references; an unresolved one is an error on the page."""
    for _, operation in OPERATIONS:
        block = open_operation(page, operation.id)
        expect(block.locator(".responses-wrapper")).to_be_visible()
        block.locator(".opblock-summary-control").click()
    expect(page.locator(".errors-wrapper")).to_have_count(0)


def test_an_image_is_tried_out_as_a_file(page):
    block = open_operation(page, "predict")
    block.get_by_role("button", name="Try it out").click()
    block.locator("input[type=file]").set_input_files(STREET)
    block.get_by_placeholder("top_k").first.fill("2")
    response = execute(page, block)
    assert response.status == 200, response.text()
    (image,) = response.json()["images"]
    assert image["name"] == STREET.name
    assert [label["label"] for label in image["labels"]] == ["Car", "Bicycle"]
    expect(block.locator(".live-responses-table").first).to_contain_text('"label": "Car"')


def test_the_example_is_tried_out_unchanged(page):
    block = open_operation(page, "v1_predict")
    block.get_by_role("button", name="Try it out").click()
    response = execute(page, block)
    assert response.status == 200, response.text()
    assert len(response.json()["predictions"][0]) == 20


def test_a_heat_map_is_shown(page):
    block = open_operation(page, "heatmap")
    block.get_by_role("button", name="Try it out").click()
    block.locator("input[type=file]").set_input_files(STREET)
    response = execute(page, block)
    assert (response.status, response.headers["content-type"]) == (200, "image/png")
    expect(block.locator(".live-responses-table img")).to_be_visible()


def test_the_page_may_run_only_its_own_files(server):
    response = requests.get(f"{server.url}/docs", timeout=30)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert "<script>" not in response.text


def test_the_files_are_those_of_the_package_and_no_others(server):
    for name, path in FILES.items():
        response = requests.get(f"{server.url}/docs/{name}", timeout=30)
        assert response.content == path.read_bytes(), name
        assert response.headers["Content-Type"] == CONTENT_TYPES[path.suffix]
    assert int((SWAGGER_UI / "VERSION").read_text().removeprefix("v").split(".")[0]) >= 5
    for name in ("VERSION", "index.html", "..%2fdocs.py", "swagger-ui.js"):
        check_problem(requests.get(f"{server.url}/docs/{name}", timeout=30), 404, "not_found")


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_a_cached_file_is_not_sent_again(client, path):
    first = client.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_description_is_the_same_from_every_worker(client, client_of):
    assert client.get("/openapi.json").data == client_of().get("/openapi.json").data
    assert json.loads(client.get("/openapi.json").data)["openapi"] == "3.1.0"
