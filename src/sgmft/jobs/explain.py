"""Explain predictions for posts of a table, and write a page or the numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from sgmft.data.posts import Post, raise_first_error
from sgmft.data.source import JobSummary, Source
from sgmft.errors import SgmftError, check_name
from sgmft.evaluation.explain.attribution import UnexplainableError
from sgmft.evaluation.explain.explanation import Explanation
from sgmft.evaluation.explain.page import ENGLISH, explanation_page
from sgmft.locator.locator import SemanticLocator
from sgmft.utils.files import write_file
from sgmft.utils.templates import pick_language


def explain_table(
    source: Source,
    output: str | Path,
    locator: SemanticLocator,
    row: int | None = None,
    most: int = 20,
    label: str | None = None,
    language: str | None = None,  # of the page: en or zh; by default the locale's
    on_explained: Callable[[int], object] = lambda done: None,
) -> tuple[JobSummary, list[str]]:
    """Explain the first `most` posts of a table, or one row, and write `output`.

    A .html is a page, a .json a list of `Explanation.to_dict`, with `error` in place of the rest
    for a post that cannot be explained. Returns the posts read, and a sentence for each
    explanation, of several behind the post's id or row; one more where the table has more posts.
    """
    if (path := Path(output)).suffix.lower() not in (".html", ".json"):
        raise SgmftError(f"{output} must end in .html for a page, or in .json for the numbers.")
    source.refuse_overwriting(path)
    if label is not None:
        check_name(label, locator.labels, "The model has no label")
    found: list[tuple[Post, Explanation | None]] = []
    at, count = ("", most + 1) if row is None else (f", row {row}", 1)
    chosen = list(islice((x for x in source.iter_posts() if x.place.endswith(at)), count))
    if not chosen and row is not None:
        raise SgmftError(f"{source.table} has no row {row}: rows are counted as in its messages.")
    chosen = chosen or source.read_posts()  # which raises the reason
    for post in chosen[:most]:
        try:
            explanation = locator.explain(post, label=label)
            if source.strict:
                raise_first_error([explanation.post])
            found.append((explanation.post, explanation))
        except UnexplainableError as error:
            if source.strict:
                raise
            found.append((replace(post, error=error.reason), None))
        on_explained(len(found))
    explanations = [explanation for _, explanation in found if explanation]
    refused = [post for post, explanation in found if not explanation]
    if not explanations:
        raise UnexplainableError(refused[0], str(refused[0].error))
    if path.suffix.lower() == ".html":
        text = explanation_page(explanations, refused, pick_language(language))
    else:
        bad = [{"post": {"id": p.id, "place": p.place}, "error": p.error} for p, _ in found]
        rows = [x.to_dict() if x else y for (_, x), y in zip(found, bad, strict=True)]
        text = json.dumps(rows, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    write_file(path, text.encode(errors="replace"))
    sentences = [ENGLISH.summarize(each) for each in explanations]
    if len(chosen) > 1:
        posts = (each.post for each in explanations)
        sentences = [f"{p.id or p.place}: {x}" for p, x in zip(posts, sentences, strict=True)]
    if len(chosen) > most:
        sentences.append(f"Only the first {most} posts are explained: --posts N explains more.")
    return JobSummary.of(post for post, _ in found), sentences
