"""The page's words exist in every language, and each is used."""

import json
import re

import pytest

from app.web.page.routes import FILES, FOLDER

TEXT = r'"(?:[^"\\]|\\.)*"'
ENTRY = re.compile(rf"^  ({TEXT}):\s+(\{{.*?\}}|{TEXT}),$", re.MULTILINE | re.DOTALL)


def read_words(name: str) -> dict[str, dict[str, str]]:
    """Return the forms of every entry of a file of words."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    entries = ENTRY.findall(text)
    assert len(entries) == len(re.findall(rf"^  {TEXT}:", text, re.MULTILINE)), "an unread entry"
    words = {}
    for key, value in entries:
        forms = re.findall(rf"(\w+): ({TEXT})", value) if value[0] == "{" else [("other", value)]
        assert json.loads(key) not in words, key
        words[json.loads(key)] = {form: json.loads(text) for form, text in forms}
    return words


WORDS = {name: read_words(name) for name in FILES if name.startswith("words-")}
ENGLISH = WORDS["words-en.js"]
OTHERS = sorted(WORDS.keys() - {"words-en.js"})
SOURCES = "\n".join(
    path.read_text(encoding="utf-8")
    for path in FOLDER.iterdir()
    if path.suffix in (".js", ".html") and path.name not in WORDS
)


def find_placeholders(forms: dict[str, str]) -> set[str]:
    return {name for text in forms.values() for name in re.findall(r"\{(\w+)\}", text)}


@pytest.mark.parametrize("name", OTHERS)
def test_every_language_has_the_same_words_with_the_same_values(name):
    words = WORDS[name]
    assert words.keys() == ENGLISH.keys()
    for key, forms in words.items():
        assert find_placeholders(forms) == find_placeholders(ENGLISH[key]), key


def test_every_entry_has_text_and_a_form_for_any_number():
    for name, words in WORDS.items():
        for key, forms in words.items():
            assert "other" in forms, (name, key)
            assert all(
                text.strip() == text or key.startswith("list.") for text in forms.values()
            ), key
            assert all(forms.values()), (name, key)


def test_every_key_of_the_page_has_words():
    exact = set(
        re.findall(r'(?:\bt\((?:\w+ \? "[\w.-]+" : )?|data-t(?:-\w+)?=)"([\w.-]+)"', SOURCES)
    )
    exact |= set(re.findall(r'\bt\([^"()]+ \? "([\w.-]+)" :', SOURCES))
    assert exact
    assert sorted(exact - ENGLISH.keys()) == []


def test_every_word_is_used():
    quoted = set(re.findall(r'"([\w.-]+)"', SOURCES))
    computed = [
        re.compile(re.sub(r"\\\$\\\{.*?\\\}", r"[\\w-]+", re.escape(pattern)))
        for pattern in re.findall(r"`([\w.-]*\$\{[^`]*)`", SOURCES)
        if re.match(r"[a-z]+\.", pattern)
    ]
    unused = [
        key
        for key in ENGLISH
        if key not in quoted and not any(each.fullmatch(key) for each in computed)
    ]
    assert unused == []


@pytest.mark.parametrize("name", OTHERS)
def test_a_translation_is_not_a_copy(name):
    same = {key for key, forms in WORDS[name].items() if forms["other"] == ENGLISH[key]["other"]}
    assert same <= {"gallery.more", "labels.logit"}


def test_no_visible_text_stands_outside_the_files_of_words():
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    body = re.sub(r"<(noscript|code)>.*?</\1>", "", page.partition("<body>")[2], flags=re.DOTALL)
    texts = re.findall(r">([^<>]*[A-Za-z][^<>]*)<", body)
    assert {text.strip() for text in texts} == {"ResNet Serving"}
    assert not re.findall(r'\s(?:aria-label|title|alt|placeholder)="[^"]', body)
