"""Explanations as one page that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from sgmft.explain.explanation import Explanation, PictureShare, SimilarityMap
from sgmft.explain.wording import percent, points, strongest, summary, the
from sgmft.images import PictureError
from sgmft.posts import Post
from sgmft.templates import render
from sgmft.thumbnails import thumbnail

LEAST = 0.01  # the scale of shades never ends below one percentage point
MOST_CLASSES = 12  # bars
MOST_MAPS = 8  # words whose similarity to regions is shown


def explanation_page(
    explanations: Sequence[Explanation], *, title: str, refused: Sequence[Post] = ()
) -> str:
    """The page, as HTML.

    Args:
        refused: posts that could not be explained, each with its `error`.
    """
    rows = [shown(found) for found in explanations]
    return render("explain.html", title=title, explanations=rows, refused=refused)


def shown(found: Explanation) -> dict[str, Any]:
    """An explanation as templates show it."""
    both = {part.name == "text" for part in found.parts} == {True, False}  # text and picture
    chances = sorted(found.probabilities.items(), key=lambda item: -item[1])
    return {
        "id": found.post.id or found.post.place,
        "summary": summary(found),
        "label": found.label,
        "truth": found.post.label,
        "text": _pieces(found),
        "pictures": [_picture(found, share) for share in found.pictures],
        "chances": [(name, chance, percent(chance)) for name, chance in chances[:MOST_CLASSES]],
        "more": max(0, len(chances) - MOST_CLASSES),
        "steps": _steps(found),
        "exact": found.exact,
        "strongest": strongest(found),
        "alone": [(the(part), part.alone) for part in found.parts],
        "both": both,
        "similarity": None if found.similarity is None else _maps(found, found.similarity),
        "gate": percent(found.gate) if both and found.gate is not None else "",
        "guidance": _guidance(found) if both else [],
    }


def _pieces(found: Explanation) -> list[dict[str, Any]]:
    """The text as its author wrote it, cut where words begin and end."""
    text, pieces, at = found.post.text, [], 0
    scale = max([LEAST, *(abs(word.contribution) for word in found.words)])
    for word in found.words:
        if word.start < at or word.end <= word.start:
            continue
        pieces.append({"text": text[at : word.start], "kind": ""})
        shade = _shade(word.contribution, scale)
        pieces.append({"text": text[word.start : word.end], **shade})
        at = word.end
    return [*pieces, {"text": text[at:], "kind": ""}]


def _shade(contribution: float, scale: float) -> dict[str, Any]:
    """How strongly and in which manner something is shaded, and its number."""
    strength = abs(contribution) / scale
    kind = "" if strength < 0.05 else "for" if contribution > 0 else "against"
    number = points(contribution)
    return {"kind": kind, "strength": round(strength, 2), "points": number}


def _picture(found: Explanation, share: PictureShare) -> dict[str, Any]:
    largest = (abs(x) for picture in found.pictures for x in picture.contributions)
    scale = max([LEAST, *largest])
    cells = [_shade(x, scale) for x in share.contributions]
    return {**_image(share), "grid": share.grid, "cells": cells}


def _image(share: PictureShare) -> dict[str, str]:
    try:
        return {"data": share.seen or thumbnail(Path(share.file)), "reason": ""}
    except PictureError as error:  # it was there a moment ago
        return {"data": "", "reason": str(error)}


def _steps(found: Explanation) -> list[dict[str, Any]]:
    """From the base rate to the answer, a bar for each part, in percent of the chart's width."""
    changes = [part.contribution for part in found.parts]
    sums = list(accumulate(changes, initial=found.base))
    low, high = min(0.0, *sums), max(1.0, *sums)

    def bar(name: str, start: float, end: float, kind: str, number: str) -> dict[str, Any]:
        left, right = sorted(((start - low) / (high - low), (end - low) / (high - low)))
        width = max(right - left, 0.004)
        return {
            "name": name,
            "left": round(100 * left, 2),
            "width": round(100 * width, 2),
            "kind": kind,
            "number": number,
        }

    bars = [bar("with nothing", 0, found.base, "level", percent(found.base))]
    for part, start, end in zip(found.parts, sums, sums[1:], strict=False):
        kind = "for" if part.contribution >= 0 else "against"
        bars.append(bar(part.name, start, end, kind, points(part.contribution)))
    return [*bars, bar("this post", 0, found.probability, "level", percent(found.probability))]


def _maps(found: Explanation, similarity: SimilarityMap) -> dict[str, Any]:
    """For the words that matter most, each picture with its regions shaded by similarity."""
    weight = {word.text: abs(word.contribution) for word in found.words}
    rows = sorted(
        dict(zip(similarity.words, similarity.values, strict=True)).items(),
        key=lambda row: -weight.get(row[0], 0.0),
    )[:MOST_MAPS]
    numbers = [x for _, values in rows for x in values]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    size = similarity.grid**2
    words = [
        {
            "word": word,
            "pictures": [
                [
                    {"strength": round((x - low) / max(high - low, 1e-9), 2), "value": f"{x:.3f}"}
                    for x in values[start : start + size]
                ]
                for start in range(0, len(values), size)
            ],
        }
        for word, values in rows
    ]
    return {"kind": similarity.kind, "grid": similarity.grid, "words": words, "total": len(rows)}


def _guidance(found: Explanation) -> list[tuple[str, str]]:
    """Entropies of P^m and P^e, where there are any."""
    pairs = zip("me", found.guidance or (), strict=False)
    return [(name, f"{value:.3f}") for name, value in pairs if math.isfinite(value)]
