"""Fill in the Jinja templates of pages and drawings."""

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from sgmft.errors import SENTENCES, Message, check_name


def pick_language(name: str | None) -> str:
    """Return a language of pages, by default the locale's; SgmftError where it is not known."""
    local = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    name = name or ("zh" if local.startswith("zh") else "en")
    check_name(name, ("en", "zh"), "There are no pages in the language")
    return name


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package; but in .txt, values that are no `Markup` are escaped."""
    return str(_environment().get_template(template).render({"language": "en"} | values))


def _translate(context: Any, sentence: str, **values: Any) -> str:
    """Say what stands in `_()` in the page's `language`, by the zh.json beside the template."""
    if isinstance(sentence, Message):
        said = {k: _translate(context, x) for k, x in sentence.values.items() if k in SENTENCES}
        values, sentence = sentence.values | said, sentence.template
    folder, language = context.name.rpartition("/")[0], context.get("language", "en")
    found = type(sentence)(read_texts(folder, language).get(sentence, sentence))
    return found.format(**values) if values else found


@cache
def read_texts(folder: str, language: str) -> dict[str, Any]:
    """Return texts in a folder of this package, by code, or English sentence and its kind."""
    file = Path(__file__).parents[1] / folder / f"{language}.json"
    texts: dict[str, Any] = json.loads(file.read_text("utf-8"))
    kinds = {re.sub("{.*?}", "…", k): re.sub("{.*?}", "…", x) for k, x in texts.items() if "{" in k}
    return texts | kinds


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context

    environment = Environment(
        loader=PackageLoader("sgmft", ""),
        autoescape=lambda name: not (name or "").endswith(".txt"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["_"] = pass_context(_translate)
    environment.filters.update(
        percent=lambda x: f"{100 * x:.1f}\u00a0%",  # with a space that does not break
        count_of=lambda count, thing: f"{count:,} {thing}{'' if count == 1 else 's'}",
    )
    return environment
