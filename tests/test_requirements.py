"""Installed packages are pinned with hashes, equal in all sets, listed in the bill of materials and audited."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers import ROOT

SETS = ["requirements", "requirements-optimize", "requirements-dev"]  # each holds those before it
BENCHES = ["requirements-bench", "requirements-bench-triton"]
PIN = re.compile(r"(?P<pin>[a-z0-9.-]+==[^ ;]+)(?P<marker> ; .+)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
FROM_HASHES = "--require-hashes --only-binary :all:"


def read_wanted(name: str) -> list[Requirement]:
    """Return the requirements of a .in file and of the files that it names."""
    found = []
    for line in (ROOT / f"{name}.in").read_text().splitlines():
        if line.startswith("-r "):
            found += read_wanted(line.removeprefix("-r ").removesuffix(".in"))
        elif line and not line.startswith("#"):
            found.append(Requirement(line))
    return found


def read_pinned(name: str) -> dict[str, list[str]]:
    """Return each pin of a .txt file, with its hashes; every line has to be one or a comment."""
    text = (ROOT / f"{name}.txt").read_text().replace(" \\\n", "\n")
    pinned: dict[str, list[str]] = {}
    pin = ""
    for line in text.splitlines():
        if line.startswith("    "):
            assert HASH.fullmatch(line.strip()), line
            pinned[pin].append(line.strip())
        elif not line.startswith("#"):
            match = PIN.fullmatch(line)
            assert match, f"{name}.txt: {line}"
            pin = match["pin"] + (match["marker"] or "")
            pinned[pin] = []
    return pinned


def hashes_of(name: str) -> dict[str, tuple[str, ...]]:
    """Return the hashes of each package and version; another set may want it on more platforms."""
    return {pin.partition(" ")[0]: tuple(hashes) for pin, hashes in read_pinned(name).items()}


def versions_of(name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pin in read_pinned(name):
        package, _, pinned = pin.partition(" ")[0].partition("==")
        found.setdefault(canonicalize_name(package), set()).add(pinned)
    return found


@pytest.mark.parametrize("name", SETS + BENCHES)
def test_every_requirement_is_pinned_with_hashes(name):
    """scripts/lock makes them."""
    pinned = read_pinned(name)
    assert all(pinned.values()), "a pin without a hash"
    versions = versions_of(name)
    for requirement in read_wanted(name):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        assert versions[canonicalize_name(requirement.name)] == {specifier.version}, requirement


def test_a_requirement_set_includes_the_previous_ones():
    """One environment can hold them all."""
    base, optimize, dev = map(hashes_of, SETS)
    assert base.items() <= optimize.items()
    assert optimize.items() <= dev.items()


def test_installed_packages_match_the_pins():
    for package in ("torch", "werkzeug", "greenlet", "jinja2", "openvino", "triton", "pytest"):
        assert versions_of("requirements-dev")[package] == {version(package)}


def test_only_the_pinned_files_are_installed():
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    installs = [line for line in dockerfile.splitlines() if " install " in line and "pip" in line]
    assert len(installs) == 2
    assert all(FROM_HASHES in line for line in installs)
    setup = (ROOT / "scripts" / "setup").read_text()
    assert FROM_HASHES in setup.replace('":all:"', ":all:")
    assert len(re.findall(r"-m pip install", setup)) == 1
    assert "npm ci --ignore-scripts" in setup


def run(script: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / script)]
    environment = os.environ | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_bill_of_materials_names_every_package():
    bill = json.loads(run("sbom").stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["bom-ref"]: part for part in bill["components"]}
    assert len(parts) == len(bill["components"])
    assert parts[f"pkg:pypi/torch@{version('torch')}"]["version"] == version("torch")
    assert f"pkg:pypi/prometheus-client@{version('prometheus-client')}" in parts
    (nginx,) = [part for part in parts.values() if part["name"] == "nginx"]
    assert nginx["purl"].startswith("pkg:deb/debian/nginx@1.")
    assert all(part["version"] for part in parts.values())


# A stand-in for the output of pip-audit, whose data may be out of reach.
UNKNOWN = {"name": "a", "skip_reason": "Dependency not found on PyPI"}
SOUND = {"name": "b", "version": "1", "vulns": []}
BAD = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}


@pytest.mark.parametrize(
    ("said", "status", "line"),
    [
        ("no network", 0, "the vulnerability data cannot be reached from here; not audited"),
        (json.dumps({"dependencies": [UNKNOWN]}), 0, "cannot be reached from here; not audited"),
        (json.dumps({"dependencies": [UNKNOWN, SOUND]}), 0, "0 known vulnerabilities in 5 pinned"),
        (json.dumps({"dependencies": [BAD]}), 1, "c 2: PYSEC-1; fixed in: 3"),
    ],
)
def test_the_audit_lists_known_vulnerabilities_or_none(tmp_path, said, status, line):
    (tmp_path / "pip_audit.py").write_text(f"print({said!r})")
    done = run("audit", PYTHONPATH=str(tmp_path))
    assert (done.returncode, line in done.stdout) == (status, True), done.stdout + done.stderr


def test_findings_of_the_audit_count_even_if_the_network_fails(tmp_path):
    said = json.dumps({"dependencies": [BAD]})
    # The files are audited in the order of their names.
    first = sorted(path.name for path in ROOT.glob("requirements*.txt"))[0]
    (tmp_path / "pip_audit.py").write_text(
        f"import sys; print({said!r} if sys.argv[-1].endswith({first!r}) else '')"
    )
    done = run("audit", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "c 2: PYSEC-1; fixed in: 3" in done.stdout
    assert "cannot be reached" in done.stdout
