"""The page's files are served with cache headers and load nothing from other hosts."""

import gzip
import re

import pytest

from app import __version__, errors
from app.web.page.routes import DIGEST, FILES, FOLDER, PAGE
from app.web.static import CONTENT_TYPES
from tests.helpers import SAMPLES, check_problem, make_entry, make_light, make_manifest

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
TEXT_TYPES = (".css", ".js", ".svg")  # nginx compresses them
TEXTS = sorted(path for path in FOLDER.iterdir() if path.suffix in (".html", ".css", ".js"))
SCRIPTS = [path for path in TEXTS if path.suffix == ".js"]


def browse(client, **headers: str):
    return client.get("/", headers={"Accept": BROWSER, **headers})


def test_a_browser_gets_the_page_and_a_program_gets_json(client):
    page = browse(client)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert 'data-t="add.title"' in page.text
    for accept in ("*/*", "application/json", ""):
        answer = client.get("/", headers={"Accept": accept})
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json["service"] == "resnet-serving"
        assert answer.json["server_version"] == __version__
    assert page.headers["Vary"] == answer.headers["Vary"] == "Accept"


def test_the_page_is_served_before_a_model_is_ready(client_of):
    client = client_of(manifest=make_manifest())
    assert client.get("/").status_code == 503
    assert browse(client).status_code == 200


def test_the_root_lists_the_rule_the_crop_and_the_limits(client_of):
    answer = client_of(max_body_mb="3", max_pixels="20000", exif_rotate="on").get("/").json
    assert answer["rule"] == {
        "activation": "sigmoid",
        "threshold": 0.5,
        "threshold_on": "logit",
        "top_k": None,
    }
    assert answer["frame"] == {"side": 224, "resize": None}
    assert answer["limits"] == {"max_body_bytes": 3 * 1024 * 1024, "max_pixels": 20000}
    assert answer["exif_rotate"] is True
    assert answer["heatmaps"] is False


def test_the_root_describes_another_model(client_of):
    manifest = make_manifest(make_entry("light", 4), make_entry("night", 2))
    client = client_of(lambda _settings, _slot, entry: make_light(entry), manifest)
    answer = client.get("/?model=night&version=2").json
    assert (answer["model"], answer["version"]) == ("night", 2)
    check_problem(client.get("/?model=dawn"), 404, "unknown_model")
    check_problem(client.get("/?color=red"), 422, "invalid_option")


def test_the_page_may_run_and_load_only_files_of_this_server(client):
    policy = browse(client).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert browse(client).headers["Permissions-Policy"].startswith("camera=(self), ")


def test_the_page_may_preview_images_of_the_hosts_that_the_server_fetches_from(client_of):
    client = client_of(url_hosts="images.example.org,*.example.net:8443")
    policy = browse(client).headers["Content-Security-Policy"]
    assert "img-src 'self' blob: images.example.org *.example.net:8443;" in policy
    assert client.get("/").json["url_hosts"] == ["images.example.org", "*.example.net:8443"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_file_needs_another_host_and_none_is_long(path):
    text = path.read_text()
    assert not re.findall(r"(?:https?:)?//(?!localhost)[\w-]+\.[\w.-]+", text)
    assert text.count("\n") <= 310
    if path.suffix == ".html":
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


def test_the_page_with_its_samples_weighs_at_most_300_kb():
    sent = [path for name, path in FILES.items() if name != "inter-license.txt"]
    texts = [gzip.compress(path.read_bytes(), 1) for path in sent if path.suffix in TEXT_TYPES]
    rest = [path.read_bytes() for path in sent if path.suffix not in TEXT_TYPES]
    samples = [path.read_bytes() for path in SAMPLES.glob("*.jpg")]
    assert sum(map(len, [gzip.compress(PAGE, 1), *texts, *rest, *samples])) < 300_000


def test_every_named_file_exists_and_every_script_is_used():
    reference = re.compile(r'(?:"page/files/|from "\./|url\(")([\w.-]+)"')
    named = {name for path in TEXTS for name in reference.findall(path.read_text())}
    assert named == set(FILES) - {"inter-license.txt"}


def test_all_modules_are_loaded_at_once():
    linked = re.findall(rb'<link rel="modulepreload" href="page/\w+/([\w-]+\.js)">', PAGE)
    imported = {path.name for path in SCRIPTS} - {"early.js", "main.js"}
    assert linked == sorted(name.encode() for name in imported)


def test_every_error_that_a_visitor_can_meet_has_its_own_message():
    family = [each for each in vars(errors).values() if isinstance(each, type)]
    codes = {each.code for each in family if issubclass(each, errors.ServingError)}
    known = re.findall(r'"problem\.(\w+)\.title"', (FOLDER / "words-en.js").read_text())
    of_programs = {
        "malformed_request",
        "invalid_option",
        "not_acceptable",
    }
    assert codes - set(known) == of_programs | {"client_gone"}


def test_every_id_that_a_script_uses_is_in_the_page():
    there = re.findall(r'\sid="([\w-]+)"', PAGE.decode())
    assert len(there) == len(set(there))
    for path in SCRIPTS:
        used = set(re.findall(r'element\("([\w-]+)"\)', path.read_text()))
        assert used <= set(there), path.name


def test_files_are_cached_forever_under_their_digest_and_revalidated_otherwise(client):
    assert f"page/{DIGEST}/main.js" in browse(client).text
    for name in FILES:
        kept = client.get(f"/page/{DIGEST}/{name}")
        assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert kept.headers["Content-Type"] == CONTENT_TYPES[FILES[name].suffix]
        assert kept.headers["X-Content-Type-Options"] == "nosniff"
        assert kept.data == (FOLDER / name).read_bytes()
        assert client.get(f"/page/older/{name}").headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", f"/page/{DIGEST}/base.css", "/samples/farm.jpg"])
def test_an_unchanged_file_is_not_sent_again(client, path):
    first = client.get(path, headers={"Accept": BROWSER})
    again = {"Accept": BROWSER, "If-None-Match": first.headers["ETag"]}
    assert (client.get(path, headers=again).status_code, first.status_code) == (304, 200)
    assert client.get(path, headers={**again, "If-None-Match": '"other"'}).data == first.data


@pytest.mark.parametrize("path", ["page/x/index.html", "page/x/page.py", "samples/labels.csv"])
def test_no_other_file_is_served_from_the_static_folder(client, path):
    check_problem(client.get(f"/{path}"), 404, "not_found")
    check_problem(client.get("/samples/..%2Fapp%2Fwsgi.py"), 404, "not_found")


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/samples/street.jpg"]
)
def test_an_impossible_date_or_range_does_no_harm(client, path):
    """Werkzeug raises OverflowError at the first."""
    far = "Thu, 01 Jan 999999999999 00:00:00 GMT"
    conditions = {"If-Modified-Since": far, "If-Range": far, "Range": "bytes=0-1"}
    response = client.get(path, headers={"Accept": BROWSER, **conditions})
    assert response.status_code == 200, response.text
    again = {"Accept": BROWSER, **conditions, "If-None-Match": response.headers["ETag"]}
    assert client.get(path, headers=again).status_code == 304
