"""Commands in the README and in docs/ run, and their tables match the code."""

import json
import os
import re
import subprocess

import pytest

from app import errors
from app.models.config import KEYS, Fields, read_config
from app.processing.decision import Decision
from app.processing.images import InputTransform
from app.settings import Settings, format_table
from app.web.app import create_app
from tests.conftest import DEMO
from tests.helpers import ROOT
from tests.pages import find_places, longest_word

README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
MODELS = (ROOT / "docs" / "models.md").read_text()
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PAGE_PX, CELL_PX = 980, 27  # GitHub's column of text; padding and border of a cell
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if line.strip()
]
CURL_LINES = [line for line in COMMANDS if line.startswith("curl")]


def run(server, line: str) -> subprocess.CompletedProcess:
    line = line.replace("http://localhost:8999", server.url)
    return subprocess.run(
        line, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_first_curl_line_gets_the_documented_answer(server):
    shown = next(block for kind, block in BLOCKS if kind == "json")
    assert json.loads(run(server, CURL_LINES[0]).stdout) == json.loads(shown)


def test_the_line_that_serve_prints_is_the_readmes_first():
    assert CURL_LINES[0].partition("http")[0] in (ROOT / "scripts" / "ready").read_text()


def test_the_settings_table_is_the_codes():
    shown = re.search(r"<!-- settings.*?-->\n(.*?)\n<!-- end of settings -->", REFERENCE, re.DOTALL)
    assert shown[1] == format_table(), "python -m app.settings prints the right one"


def test_the_routes_are_the_codes():
    app = create_app(Settings.from_env({}))
    real = {
        (str(rule), method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert set(re.findall(r"^\| `(/[^`]*)` \| (\w+) \|", REFERENCE, re.MULTILINE)) == real


def test_the_documented_keys_of_a_model_config_are_the_codes():
    table = re.search(r"^\| `model\.json` \|.*\n\|---.*\n((?:\|.*\n)+)", MODELS, re.MULTILINE)
    shown = [
        key for row in table[1].splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert sorted(shown) == sorted(KEYS)


def test_the_documented_model_config_is_valid(tmp_path):
    (shown,) = re.findall(r'^\{"architecture".*\}$', MODELS, re.MULTILINE)
    config = read_config(Fields(tmp_path, json.loads(shown)), 3)
    assert config.decision == Decision("softmax", top_k=1)
    assert (config.architecture, config.transform) == (
        "mobilenet_v3_small",
        InputTransform(224, 256),
    )


def test_the_errors_are_the_codes():
    family = [
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.ServingError)
    ]
    real = {(str(error.status), error.code) for error in family}
    rows = re.findall(r"^\| ([\d, ]+) \| `(\w+)` \|", REFERENCE, re.MULTILINE)
    shown = {(status, code) for statuses, code in rows for status in statuses.split(", ")}
    of_http_itself = {("404", "not_found"), ("405", "method_not_allowed")}
    of_nginx = {
        ("403", "forbidden"),
        ("421", "misdirected_request"),
        ("429", "too_many_uploads"),
        ("502", "not_ready"),
    }
    assert shown == real | of_http_itself | of_nginx


def test_the_documented_figures_of_the_demo_are_those_of_its_config():
    scores = json.loads((DEMO / "model.json").read_text())["scores"]
    text = " ".join(README.split())
    assert f"On {scores['held_out_scenes']:,} held-out scenes" in text
    assert f"mean average precision of {scores['mean_average_precision']:.3f}" in text
    assert f"gets {scores['exact_label_sets'] * 100:.1f}% of the label sets" in text
    assert f"file weighs {scores['file_mib']:.1f} MB" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_named_file_and_anchor_exists(page):
    text = page.read_text()
    for name in re.findall(
        r"(?<![\w/])(?:scripts|samples|app|conf|docs|tests|deploy)/[\w./-]+\w", text
    ):
        assert (ROOT / name).exists(), name
    for name, place in re.findall(r"\]\((?!http)([^)#]*)(#[^)]+)?\)", text):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not place or place[1:] in find_places(target.read_text()), f"{name}{place}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_fit_the_width_of_a_page(page):
    """GitHub shows 980 px; a table whose words need more is cut off at the right."""
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
        columns = zip(*(row for row in rows if "---" not in row[0]), strict=True)
        widths = [max(map(longest_word, column)) + CELL_PX for column in columns]
        assert sum(widths) <= PAGE_PX, f"{table.splitlines()[0]}: {widths}"


def test_every_supervisorctl_line_is_one_that_supervisorctl_takes(server):
    operate = (ROOT / "docs" / "operate.md").read_text()
    lines = [line for line in (*operate.splitlines(), *COMMANDS) if "supervisorctl -c" in line]
    assert len(lines) >= 8
    for line in lines:
        _, verb = re.search(r"supervisorctl -c \S+( -s \S+)? (\w+)", line).groups()
        assert f"{verb} " in server.control("help", verb).stdout, line


def test_pasted_supervisorctl_lines_name_a_program_that_exists():
    """scripts/serve installs supervisorctl into .venv; it is on the path in the image only."""
    for page in PAGES:
        for line in page.read_text().splitlines():
            if "supervisorctl -c" in line:
                assert re.search(
                    r"\.venv/bin/supervisorctl|docker exec NAME supervisorctl", line
                ), line


def test_the_license_and_the_notice_go_into_the_image():
    assert "Apache License\n" in (ROOT / "LICENSE").read_text()
    assert "COPY LICENSE NOTICE ./" in (ROOT / "Dockerfile").read_text().splitlines()
    assert {"!LICENSE", "!NOTICE"} <= set((ROOT / ".dockerignore").read_text().splitlines())


def test_the_notice_names_files_that_exist():
    for name in re.findall(r"\b(?:app|samples|models)/[\w./-]+", (ROOT / "NOTICE").read_text()):
        assert (ROOT / name).exists(), name


def test_the_changelog_has_the_usual_form():
    headings = re.findall(r"^#{2,3} .*$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "## [Unreleased]"
    kinds = "Added|Changed|Deprecated|Removed|Fixed|Security"
    usual = rf"## \[(Unreleased\]|\d+\.\d+\.\d+\] - \d{{4}}-\d\d-\d\d)$|### ({kinds})$"
    assert [heading for heading in headings if not re.match(usual, heading)] == []


def test_the_examples_for_nginx_are_valid(tmp_path):
    """They are read by nginx itself, without the certificate that nobody has here."""
    (proxy,) = re.findall(r"^```nginx\n(.*?)^```", DEPLOY, re.MULTILINE | re.DOTALL)
    plain = re.sub(r"ssl_certificate.*\n", "", proxy.replace("443 ssl", "443"))
    conf = tmp_path / "nginx.conf"
    conf.write_text(f"pid {tmp_path}/nginx.pid; events {{}} http {{ access_log off; {plain} }}")
    path = f"{os.environ['PATH']}:/usr/sbin"
    command = ["nginx", "-t", "-p", str(tmp_path), "-e", "stderr", "-c", str(conf)]
    done = subprocess.run(
        command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
