"""The languages of pages, and that every sentence of theirs is in each."""

import re
import tomllib
from pathlib import Path
from string import Formatter

import pytest
from jinja2 import Environment, nodes

from sgmft.errors import Message, SgmftError
from sgmft.utils import templates
from sgmft.utils.templates import pick_language, read_texts

SOURCE = Path(templates.__file__).parents[1]
FOLDER = "evaluation/templates"
CHINESE = read_texts(FOLDER, "zh")
LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")


@pytest.mark.parametrize(
    ("named", "values", "language"),
    [
        (None, ("", "", "zh_CN.UTF-8"), "zh"),
        (None, ("", "en_GB", "zh_CN"), "en"),
        (None, ("zh_TW", "en_GB", ""), "zh"),
        (None, ("", "", ""), "en"),
        ("en", ("zh_CN", "", ""), "en"),
        ("zh", ("", "", "C"), "zh"),
    ],
)
def test_a_language_is_the_one_named_or_the_locales(monkeypatch, named, values, language):
    for name, value in zip(LOCALE, values, strict=True):
        monkeypatch.setenv(name, value)
    assert pick_language(named) == language


def test_an_unknown_language_is_refused_with_those_that_are_known():
    with pytest.raises(SgmftError, match="no pages in the language 'fr': use en, zh"):
        pick_language("fr")


def sentences(file):
    """What stands in `_()` of a template, but for names."""
    for call in Environment().parse(file.read_text("utf-8")).find_all(nodes.Call):
        if getattr(call.node, "name", "") == "_":
            given = call.args[0].node if isinstance(call.args[0], nodes.Filter) else call.args[0]
            if isinstance(given, nodes.Const):
                yield given.value
            elif not isinstance(given, nodes.Name | nodes.Getattr | nodes.Getitem | nodes.Call):
                yield from (each.value for each in given.find_all(nodes.Const))


def names(text):
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_sentence_of_the_templates_is_translated():
    files = [
        x for x in (SOURCE / FOLDER).iterdir() if x.suffix in (".html", ".jinja", ".txt", ".md")
    ]
    found = {sentence for file in files for sentence in sentences(file)}
    assert len(found) > 150 and found - CHINESE.keys() == set()
    others = {"count", "more"}  # numbers without an English plural
    for english in found:
        assert names(CHINESE[english]) <= names(english) | others, english
        assert ("<" in english) == ("<" in CHINESE[english]), english


def test_so_are_kinds_of_reasons_as_summaries_count_them():
    for reason in (
        Message("there is no file {name}", name="a.jpg"),
        Message("the text has more than {most:,} characters", most=5000),
        Message("the id {id!r} is already that of row {row}", id="a", row=1),
    ):
        assert "…" in CHINESE[reason.kind] and not re.search("[a-z{]", CHINESE[reason.kind])


def test_so_are_titles_and_notes_of_rows_and_methods():
    rows = tomllib.loads((SOURCE / "evaluation/compare/rows.toml").read_text("utf-8"))
    methods = tomllib.loads((SOURCE / "models/methods.toml").read_text("utf-8"))
    entries = [entry for part in (*rows.values(), methods) for entry in part.values()]
    texts = {entry.get(key, "") for entry in entries for key in ("title", "about", "note")}
    words = {text for text in texts - CHINESE.keys() if re.search(r"[a-z]", text)}
    assert words == {"mPLUG", "UniS-MMC", "BridgeTower"}
