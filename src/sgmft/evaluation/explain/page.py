"""Explanations as one page that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import ImageError
from sgmft.data.preprocessing.thumbnails import make_thumbnail
from sgmft.evaluation.explain.explanation import (
    Explanation,
    ImageAttribution,
    PartAttribution,
    SimilarityMap,
)
from sgmft.utils.templates import render

MOSTLY = 2 / 3  # of what speaks for a label

NOTHING = 0.005  # half a percentage point

MOST_NAMED = 3  # words


def summarize_explanation(found: Explanation) -> str:
    """For instance "Restaurant, 87 %: mostly because of the words “火锅” and “好吃”." """
    told = f"{found.label}, {format_probability(found.probability)}: {_because(found)}"
    if others := dissenting_parts(found):
        said = [f"{the(part)} alone would say {part.alone}" for part in others]
        told += f"; {join_words(said)}"
    told += "."
    if found.label != found.predicted:
        chance = format_probability(found.probabilities[found.predicted])
        told += f" The model's own answer is {found.predicted}, {chance}."
    return told


def format_probability(share: float) -> str:
    """0.874 -> "87 %", with a space that does not break."""
    if 0 < share < 0.005:
        return "under 1\u00a0%"
    if 0.995 <= share < 1:
        return "over 99\u00a0%"
    return f"{100 * share:.0f}\u00a0%"


def format_points(share: float) -> str:
    """A signed difference in percentage points: 0.123 -> "+12.3", -0.02 -> "−2.0"."""
    rounded = round(100 * share, 1)
    return f"{'−' if rounded < 0 else '+'}{abs(rounded):.1f}"


def join_words(items: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def describe_strongest(found: Explanation) -> str:
    """How far single words and regions move the probability, which shades cannot tell."""
    names = {"words": "word", "regions": "region"}
    told = [f"the strongest {names[what]} by {x:.1f}" for what, x in largest_effects(found).items()]
    return f"How far they move the probability: {join_words(told)} points."


def largest_effects(found: Explanation) -> dict[str, float]:
    """By how many points the strongest of the "words" and "regions", as far as there are any."""
    words = [abs(word.contribution) for word in found.words]
    regions = [abs(x) for picture in found.pictures for x in picture.contributions]
    values = {"words": words, "regions": regions}
    return {what: 100 * max(each) for what, each in values.items() if each}


def main_parts(found: Explanation) -> list[PartAttribution]:
    """Of the parts that speak for the label, the first few that together are most of it."""
    speaking = [part for part in found.parts if part.contribution > NOTHING]
    speaking.sort(key=lambda part: -part.contribution)
    total = sum(part.contribution for part in speaking)
    main, shared = [], 0.0
    for part in speaking[:MOST_NAMED]:
        main.append(part)
        shared += part.contribution
        if shared >= MOSTLY * total:
            break
    return main


def main_words(found: Explanation) -> list[str]:
    """The few words that speak for the label the most; none where only the whole text does."""
    best: list[str] = []
    top = sorted(found.words, key=lambda word: -word.contribution)
    for word in top:
        strong = word.contribution > max(top[0].contribution / 3, NOTHING)
        if strong and word.text not in best and len(best) < MOST_NAMED:
            best.append(word.text)
    return best


def dissenting_parts(found: Explanation) -> list[PartAttribution]:
    """The first few of several parts that alone would say another label."""
    others = [part for part in found.parts if part.alone != found.label]
    return others[:MOST_NAMED] if len(found.parts) > 1 else []


def _because(found: Explanation) -> str:
    main = main_parts(found)
    if not main:
        return "nothing in the post speaks for it"
    alone = len(main) == 1 and len(found.parts) > 1
    return f"{'mostly ' if alone else ''}because of {join_words([_named(found, x) for x in main])}"


def _named(found: Explanation, part: PartAttribution) -> str:
    """The picture, or the text by its words."""
    if part.name != "text":
        return the(part)
    best = main_words(found)
    if not best:
        return "the text as a whole"
    return f"the word{'s' if len(best) > 1 else ''} {join_words([f'“{word}”' for word in best])}"


def the(part: PartAttribution) -> str:
    """ "the text", "the picture", "picture 2"."""
    return part.name if part.name[-1].isdigit() else f"the {part.name}"


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
    rows = [explanation_view(found) for found in explanations]
    return render(
        "evaluation/templates/explain.html", title=title, explanations=rows, refused=refused
    )


def explanation_view(found: Explanation) -> dict[str, Any]:
    """An explanation as templates show it."""
    both = {part.name == "text" for part in found.parts} == {True, False}  # text and picture
    probs = sorted(found.probabilities.items(), key=lambda item: -item[1])
    return {
        "id": found.post.id or found.post.place,
        "summary": summarize_explanation(found),
        "label": found.label,
        "truth": found.post.label,
        "text": _pieces(found),
        "pictures": [_picture(found, share) for share in found.pictures],
        "probs": [
            (name, chance, format_probability(chance)) for name, chance in probs[:MOST_CLASSES]
        ],
        "more": max(0, len(probs) - MOST_CLASSES),
        "steps": _steps(found),
        "exact": found.exact,
        "strongest": describe_strongest(found),
        "alone": [(the(part), part.alone) for part in found.parts],
        "both": both,
        "similarity": None if found.similarity is None else _maps(found, found.similarity),
        "gate": format_probability(found.gate) if both and found.gate is not None else "",
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
    number = format_points(contribution)
    return {"kind": kind, "strength": round(strength, 2), "points": number}


def _picture(found: Explanation, share: ImageAttribution) -> dict[str, Any]:
    largest = (abs(x) for picture in found.pictures for x in picture.contributions)
    scale = max([LEAST, *largest])
    cells = [_shade(x, scale) for x in share.contributions]
    return {**_image(share), "grid": share.grid, "cells": cells}


def _image(share: ImageAttribution) -> dict[str, str]:
    try:
        return {"data": share.seen or make_thumbnail(Path(share.file)), "reason": ""}
    except ImageError as error:  # it was there a moment ago
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

    bars = [bar("with nothing", 0, found.base, "level", format_probability(found.base))]
    for part, start, end in zip(found.parts, sums, sums[1:], strict=False):
        kind = "for" if part.contribution >= 0 else "against"
        bars.append(bar(part.name, start, end, kind, format_points(part.contribution)))
    return [
        *bars,
        bar("this post", 0, found.probability, "level", format_probability(found.probability)),
    ]


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
