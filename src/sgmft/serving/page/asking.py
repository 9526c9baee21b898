"""One post from the page: read within the server's limits, asked about, answered as HTML."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from sgmft.data.posts import Attachment, Post
from sgmft.serving.engine import Engine
from sgmft.serving.guard import log_mistake
from sgmft.serving.page.result import problem_html, result_html
from sgmft.serving.page.wording import Wording
from sgmft.serving.problems import Problem
from sgmft.serving.requests import check_pixels

OFF = "off"


class Refusal(Exception):  # noqa: N818 a sentence for whoever asked
    """What is wrong with what was given, in the language of the page."""


async def answers(
    engine: Engine, words: Wording, text: str, files: Sequence[str], coverage: str
) -> AsyncGenerator[str, None]:
    """HTML of the prediction, then with the reasons for it; or a sentence why there is none.

    Args:
        files: paths of pictures and videos.
        coverage: of the prediction set, as a number; or `OFF`.
    """
    try:
        with engine.place():
            post = await asyncio.to_thread(_post, engine, words, text, files)
            async with aclosing(_said(engine, words, post, coverage)) as said:
                async for html in said:
                    yield html
    except Exception as error:
        yield problem_html(words, sentence(words, error))


def sentence(words: Wording, error: Exception) -> str:
    """What is said of a problem; a mistake of ours goes to the log, without what a post says."""
    if isinstance(error, Refusal):
        return str(error)
    if isinstance(error, Problem):
        told = words.problems.get(error.kind, words.problems[""])
        return told.format(detail=words.reason(str(error)))
    log_mistake(error)
    return words.problems["internal"]


async def _said(
    engine: Engine, words: Wording, post: Post, coverage: str
) -> AsyncGenerator[str, None]:
    labels = engine.about.labels
    rules = replace(engine.rules, coverage=None if coverage == OFF else float(coverage))
    said = (await engine.predict([post], rules))[0]
    if said.error is not None:
        raise Problem("unusable-post", f"{said.error}.")
    if not engine.about.explains:
        yield result_html(words, said, labels, rules, note=words.no_explanation)
        return
    yield result_html(words, said, labels, rules, note=words.reading)
    try:
        said, why = await engine.explain(post, None, rules)
    except Problem as problem:
        if problem.kind not in ("takes-too-long", "worker-stopped", "busy"):
            raise
        yield result_html(words, said, labels, rules, note=words.too_long_to_explain)
    else:
        yield result_html(words, said, labels, rules, why)


def _post(engine: Engine, words: Wording, text: str, files: Sequence[str]) -> Post:
    """The post, unless it is beyond the limits."""
    limits = engine.limits
    if not text.strip() and not files:
        raise Refusal(words.nothing_given)
    if len(text) > limits.text:
        raise Refusal(words.text_too_long.format(count=len(text), most=limits.text))
    if len(files) > limits.pictures:
        raise Refusal(words.too_many_pictures.format(count=len(files), most=limits.pictures))
    paths = [Path(file) for file in files]
    try:
        size = sum(path.stat().st_size for path in paths)
        if size > limits.body:
            raise Refusal(words.too_large.format(size=size / 1e6, most=limits.body / 1e6))
        pictures = [Attachment(path.read_bytes(), path.name) for path in paths]
    except FileNotFoundError:
        raise Refusal(words.gone) from None
    for picture in pictures:
        check_pixels(picture, limits)
    return Post(text, pictures)
