"""The README lists every page, and its Chinese version has the same commands, headings, tables and links."""

import re

import pytest

from tests.helpers import ROOT
from tests.pages import find_links, find_places

ENGLISH = (ROOT / "README.md").read_text()
CHINESE = (ROOT / "README.zh-CN.md").read_text()


def headings(text: str) -> list[str]:
    """Return the levels of the headings, in order."""
    return re.findall(r"^(#+) ", without_code(text), re.MULTILINE)


def code(text: str) -> list[str]:
    """Return the blocks of commands, answers and files."""
    return re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)


def without_code(text: str) -> str:
    """Return the text outside of blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """Return the targets of the links, sorted; a place on the page itself as the number of its heading."""
    places = find_places(without_code(text))
    return sorted(
        f"#{places.index(target[1:])}" if target.startswith("#") else target
        for target in find_links(text)
        if not target.startswith("README")
    )


def tables(text: str) -> list[int]:
    """Return the number of columns of every row of every table."""
    return [line.count("|") for line in text.splitlines() if line.startswith("|")]


def names(text: str) -> set[str]:
    """Return what stands in backticks: commands, paths, settings."""
    return set(re.findall(r"`([^`\n]+)`", without_code(text)))


@pytest.mark.parametrize("part", [headings, code, links, tables], ids=lambda p: p.__name__)
def test_the_chinese_readme_has_the_same_parts_as_the_english_one(part):
    assert part(CHINESE) == part(ENGLISH)


def test_the_chinese_readme_names_what_the_english_one_names():
    assert names(ENGLISH) <= names(CHINESE)


def test_the_first_lines_link_to_the_other_language():
    assert "](README.zh-CN.md)" in ENGLISH.splitlines()[0]
    assert "](README.md)" in CHINESE.splitlines()[0]


def test_the_index_lists_every_page():
    index = ENGLISH.partition("## Documentation\n")[2].partition("\n## ")[0]
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert {target for target in find_links(index) if target.endswith(".md")} == {
        *pages,
        "CHANGELOG.md",
    }


def test_requirements_and_the_demos_limits_come_before_the_commands_and_the_first_answer():
    order = ("docs/page.png", "## Requirements", "git clone", "demo for drawings", "```json")
    places = [ENGLISH.index(words) for words in order]
    assert places == sorted(places)
