"""Read the commands of the documentation and run them as pasted."""

import json
import re
import subprocess
from pathlib import Path

from PIL import Image

from tests.helpers import ROOT

CODE_PX, PROSE_PX = (
    8.2,
    8.6,
)  # a character's width on GitHub, at most: 13.6 px monospace, 16 px sans-serif
URL = "http://localhost:8999"  # on every page
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("clients", "predict", "protocols")),
]


def blocks(page: Path, kind: str) -> list[str]:
    """Return the blocks of a page that are marked as one kind of text."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for its_kind, block in found if its_kind == kind]


def find_links(text: str) -> list[str]:
    """Return the targets of a page's links into this project, images included, in order."""
    return re.findall(r"\]\((?!http)([^)]+)\)", text)


def find_places(text: str) -> list[str]:
    """Return the anchors that GitHub gives to a page's headings, in order."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings)
    return [heading.strip().replace(" ", "-") for heading in words]


def longest_word(cell: str) -> float:
    """Return the width in px of the longest part of a table's cell that GitHub does not break."""
    shown = re.sub(r"\[([^]]*)\]\([^)]*\)|\*\*", r"\1", cell.replace("\\|", "|"))
    code = [word for part in re.findall(r"`([^`]*)`", shown) for word in part.split()]
    prose = re.sub(r"`[^`]*`", " ", shown).split()
    return max(
        [0, *(len(word) * CODE_PX for word in code), *(len(word) * PROSE_PX for word in prose)]
    )


def find_commands() -> list[str]:
    """Return the commands of all pages that call a running server, each with its continuation lines."""
    lines = [
        line
        for page in PAGES
        for block in blocks(page, "sh")
        for line in re.sub(r"\\\n", "", block).replace("|\n", "| ").splitlines()
    ]
    return list(dict.fromkeys(line for line in lines if URL in line or " --csv " in line))


def paste(server, command: str, folder: Path) -> None:
    """Run a command as shown, except for the server and output files; assert that it succeeds."""
    command = command.replace(URL, server.url).replace("curl ", "curl -sS --fail ")
    command = command.replace("out.csv", f"{folder}/out.csv --url {server.url}")
    written = re.search(r"--output (\w\S+)", command)
    if written:
        command = command.replace(written[1], str(folder / written[1]))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if written:
        with Image.open(folder / written[1]) as image:
            assert image.width
    elif "curl" in command and "--output" not in command:
        assert json.loads(done.stdout)
