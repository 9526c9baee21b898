"""Explanations in words, and as one page that needs nothing beside it."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from sgmft.data.posts import Post
from sgmft.data.preprocessing.media import image_view
from sgmft.evaluation.explain.explanation import Explanation, PartAttribution
from sgmft.utils.templates import render

MOSTLY = 2 / 3  # of what speaks for a label
NOTHING = 0.005  # half a percentage point
MOST_NAMED = 3  # words or parts
LEAST = 0.01  # the scale of shades never ends below one percentage point
MOST_CLASSES = 12  # bars
MOST_MAPS = 8  # words whose similarity to regions is shown


def explanation_page(
    explanations: Sequence[Explanation], *, title: str, refused: Sequence[Post] = ()
) -> str:
    """Return the page, as HTML; `refused` posts, which have an `error`, could not be explained."""
    values = {"explanations": list(map(explanation_view, explanations)), "refused": refused}
    return render("evaluation/templates/explain.html", title=title, **values)


def summarize_explanation(found: Explanation) -> str:
    """Return, for instance, "Restaurant, 87 %: mostly because of the words “火锅” and “好吃”." """
    text = f"{found.label}, {format_probability(found.probability)}: {_because(found)}"
    if others := dissenting_parts(found):
        text += f"; {join_words([f'{the(part)} alone would say {part.alone}' for part in others])}"
    text += "."
    if found.label != found.predicted:
        probability = format_probability(found.probabilities[found.predicted])
        text += f" The model's own answer is {found.predicted}, {probability}."
    return text


def describe_strongest(found: Explanation) -> str:
    """Return how far single words and regions move the probability, which shades cannot tell."""
    largest = largest_effects(found).items()
    effects = [f"the strongest {name.removesuffix('s')} by {by:.1f}" for name, by in largest]
    return f"How far they move the probability: {join_words(effects)} points."


def largest_effects(found: Explanation) -> dict[str, float]:
    """Return by how many points the strongest of "words" and of "regions", if there are any."""
    regions = [abs(x) for picture in found.pictures for x in picture.contributions]
    values = {"words": [abs(word.contribution) for word in found.words], "regions": regions}
    return {name: 100 * max(each) for name, each in values.items() if each}


def main_parts(found: Explanation) -> list[PartAttribution]:
    """Return the first few parts that speak for the label and together are most of what does."""
    speaking = [part for part in found.parts if part.contribution > NOTHING]
    speaking.sort(key=lambda part: -part.contribution)
    shares = list(accumulate(part.contribution for part in speaking))
    enough = sum(share < MOSTLY * shares[-1] for share in shares) + 1
    return speaking[: min(enough, MOST_NAMED)]


def main_words(found: Explanation) -> list[str]:
    """Return the few words that speak for the label the most; none where only all do together."""
    top = sorted(found.words, key=lambda word: -word.contribution)
    least = max(top[0].contribution / 3, NOTHING) if top else 0.0
    best = dict.fromkeys(word.text for word in top if word.contribution > least)
    return list(best)[:MOST_NAMED]


def dissenting_parts(found: Explanation) -> list[PartAttribution]:
    """Return the first few of several parts that alone would be given another label."""
    others = [part for part in found.parts if part.alone != found.label]
    return others[:MOST_NAMED] if len(found.parts) > 1 else []


def format_probability(share: float) -> str:
    """0.874 -> "87 %", with a space that does not break."""
    if 0 < share < 0.005:
        return "under 1\u00a0%"
    return "over 99\u00a0%" if 0.995 <= share < 1 else f"{100 * share:.0f}\u00a0%"


def format_points(share: float) -> str:
    """Return a signed difference in percentage points: 0.123 -> "+12.3", -0.02 -> "−2.0"."""
    rounded = round(100 * share, 1)
    return f"{'−' if rounded < 0 else '+'}{abs(rounded):.1f}"


def join_words(items: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else "".join(items)


def the(part: PartAttribution) -> str:
    """ "the text", "the picture", "picture 2"."""
    return part.name if part.name[-1].isdigit() else f"the {part.name}"


def _because(found: Explanation) -> str:
    main = main_parts(found)
    if not main:
        return "nothing in the post speaks for it"
    names = [the(part) for part in main]
    if "the text" in names:
        words = [f"“{word}”" for word in main_words(found)]
        text = f"the word{'s' if len(words) > 1 else ''} {join_words(words)}"
        names[names.index("the text")] = text if words else "the text as a whole"
    mostly = "mostly " if len(main) == 1 and len(found.parts) > 1 else ""
    return f"{mostly}because of {join_words(names)}"


def explanation_view(found: Explanation) -> dict[str, Any]:
    """Return an explanation as templates show it."""
    both = {part.name == "text" for part in found.parts} == {True, False}  # text and picture
    probs = sorted(found.probabilities.items(), key=lambda item: -item[1])
    entropies = zip("me", found.guidance or (), strict=False)
    return {
        "id": found.post.id or found.post.place,
        "summary": summarize_explanation(found),
        "label": found.label,
        "truth": found.post.label,
        "warnings": found.post.warnings,
        "text": _text_pieces(found),
        "pictures": _heat_maps(found),
        "probs": [(name, x, format_probability(x)) for name, x in probs[:MOST_CLASSES]],
        "more": max(0, len(probs) - MOST_CLASSES),
        "steps": _steps(found),
        "exact": found.exact,
        "strongest": describe_strongest(found),
        "alone": [(the(part), part.alone) for part in found.parts],
        "both": both,
        "similarity": _similarity_maps(found),
        "gate": format_probability(found.gate) if both and found.gate is not None else "",
        "guidance": [(name, f"{x:.3f}") for name, x in entropies if both and math.isfinite(x)],
    }


def _text_pieces(found: Explanation) -> list[dict[str, Any]]:
    """Cut the text, as its author wrote it, where words begin and end."""
    text, pieces, at = found.post.text, [], 0
    scale = max([LEAST, *(abs(word.contribution) for word in found.words)])
    for word in found.words:
        if at <= word.start < word.end:
            pieces.append({"text": text[at : word.start], "kind": ""})
            shade = _shade(word.contribution, scale)
            pieces.append({"text": text[word.start : word.end], **shade})
            at = word.end
    return [*pieces, {"text": text[at:], "kind": ""}]


def _shade(contribution: float, scale: float) -> dict[str, Any]:
    """Return how strongly and in which manner something is shaded, and its number."""
    strength = abs(contribution) / scale
    kind = "" if strength < 0.05 else "for" if contribution > 0 else "against"
    return {"kind": kind, "strength": round(strength, 2), "points": format_points(contribution)}


def _heat_maps(found: Explanation) -> list[dict[str, Any]]:
    scale = max([LEAST, *(abs(x) for share in found.pictures for x in share.contributions)])
    maps = []
    for share in found.pictures:
        image = {"data": share.seen, "reason": ""} if share.seen else image_view(Path(share.file))
        cells = [_shade(x, scale) for x in share.contributions]
        maps.append({**image, "grid": share.grid, "cells": cells})
    return maps


def _steps(found: Explanation) -> list[dict[str, Any]]:
    """From the base rate to the answer, a bar for each part, in percent of the chart's width."""
    sums = list(accumulate((part.contribution for part in found.parts), initial=found.base))
    low, high = min(0.0, *sums), max(1.0, *sums)

    def bar(name: str, start: float, end: float, kind: str, number: str) -> dict[str, Any]:
        left, right = sorted(100 * (x - low) / (high - low) for x in (start, end))
        places = {"left": round(left, 2), "width": round(max(right - left, 0.4), 2)}
        return {"name": name, "kind": kind, "number": number, **places}

    def level(name: str, end: float) -> dict[str, Any]:
        return bar(name, 0, end, "level", format_probability(end))

    bars = [level("with nothing", found.base)]
    for part, (start, end) in zip(found.parts, pairwise(sums), strict=True):
        kind = "for" if part.contribution >= 0 else "against"
        bars.append(bar(part.name, start, end, kind, format_points(part.contribution)))
    return [*bars, level("this post", found.probability)]


def _similarity_maps(found: Explanation) -> dict[str, Any] | None:
    """Shade, for the words that matter most, each picture's regions by their similarity."""
    if (similarity := found.similarity) is None:
        return None
    weight = {word.text: abs(word.contribution) for word in found.words}
    values = dict(zip(similarity.words, similarity.values, strict=True))
    rows = sorted(values.items(), key=lambda row: -weight.get(row[0], 0.0))[:MOST_MAPS]
    numbers = [x for _, row in rows for x in row]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    words = []
    for word, row in rows:
        shades = [round((x - low) / max(high - low, 1e-9), 2) for x in row]
        cells = [{"strength": y, "value": f"{x:.3f}"} for x, y in zip(row, shades, strict=True)]
        size = similarity.grid**2
        pictures = [cells[start : start + size] for start in range(0, len(cells), size)]
        words.append({"word": word, "pictures": pictures})
    return {"kind": similarity.kind, "grid": similarity.grid, "words": words, "total": len(rows)}
