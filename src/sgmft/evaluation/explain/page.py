"""Explanations in words, and as one page that needs nothing beside it."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from sgmft.data.preprocessing.media import image_view
from sgmft.evaluation.explain.explanation import Explanation, PartAttribution
from sgmft.utils.templates import read_texts, render

MOSTLY = 2 / 3  # of what speaks for a label
NOTHING = 0.005  # half a percentage point
MOST_NAMED = 3  # words or parts
LEAST = 0.01  # effects below one percentage point are not shaded
MOST_CLASSES = 12  # bars
MOST_MAPS = 8  # words whose similarity to regions is shown


def explanation_page(found: Sequence[Explanation], refused: Any = (), language: str = "en") -> str:
    """Return the page, as HTML; `refused` posts, which have an `error`, could not be explained."""
    given = {"explanations": [(each, explanation_view(each)) for each in found], "refused": refused}
    given |= {"language": language, "wording": Wording(language), "shown": MOST_CLASSES}
    return render("evaluation/templates/explain.html", **given)


class Wording:
    """The sentences of an explanation in a language, whose texts, by code, are in `texts/`."""

    def __init__(self, code: str) -> None:
        self.texts = dict(read_texts("evaluation/explain/texts", code))

    def text(self, code: str, **values: object) -> str:
        """Return a text, filled in."""
        return str(self.texts[code].format(**values))

    def percent(self, share: float) -> str:
        """Return a share in percent: 0.874 -> "87 %"; what is not quite 0 or 1 as "under 1 %"."""
        low, usual, high = self.texts["percents"]
        chosen = low if 0 < share < 0.005 else high if 0.995 <= share < 1 else usual
        return str(chosen).format(number=f"{100 * share:.0f}")

    def part(self, name: str, names: str = "parts") -> str:
        """Return the name of a part of a post: "picture 2" -> "图片 2"."""
        kind, _, number = name.partition(" ")
        return f"{self.texts['parts'][kind]} {number}" if number else str(self.texts[names][kind])

    def summarize(self, found: Explanation, label: str | None = None) -> str:
        """Return the main reasons, and the label where it is not `label`, which is shown above."""
        apart = [x for x in found.parts if x.alone != found.label and len(found.parts) > 1]
        named = [(self.part(x.name, "definite_parts"), x.alone) for x in apart[:MOST_NAMED]]
        others = [self.text("part_alone", part=name, label=label) for name, label in named]
        more = self.text("others", parts=self.join(others, "others")) if others else ""
        summary = self.text("summary", because=self._because(found), others=more)
        if found.label == label:
            return summary[:1].upper() + summary[1:]
        percent = self.percent(found.probability)
        text = self.text("summary_start", label=found.label, percent=percent) + summary
        own = {"label": found.predicted, "percent": self.percent(max(found.probabilities.values()))}
        return text + (self.text("own_answer", **own) if found.label != found.predicted else "")

    def strongest(self, found: Explanation) -> str:
        """Return how far single words and regions move the probability; shades do not."""
        regions = [x for picture in found.pictures for x in picture.contributions]
        effects = {"words": [x.contribution for x in found.words], "regions": regions}
        points = {x: 100 * max(map(abs, each)) for x, each in effects.items() if each}
        points = {x: y for x, y in points.items() if y >= 100 * LEAST}
        items = [self.text(f"strongest_{x}", points=f"{y:.1f}") for x, y in points.items()]
        return self.text("strongest" if items else "weak", items=self.join(items, "others"))

    def join(self, items: Sequence[str], kind: str) -> str:
        """Return a list with the separators of its kind: ["a", "b", "c"] -> "a, b and c"."""
        between, last = self.texts["separators"][kind]
        return str(last).join(filter(None, [str(between).join(items[:-1]), *items[-1:]]))

    def _because(self, found: Explanation) -> str:
        if not (main := main_parts(found)):
            return self.text("because_nothing")
        best = [f"“{word}”" for word in main_words(found)]
        code = "several_words" if best[1:] else "one_word" if best else "all_words"
        words = self.text(code, words=self.join(best, "words"))
        others = (self.part(x.name, "definite_parts") for x in main)
        names = [words if x.name == "text" else y for x, y in zip(main, others, strict=True)]
        alone = len(main) == 1 and len(found.parts) > 1
        return self.text("mostly_because" if alone else "because", parts=self.join(names, "parts"))


ENGLISH = Wording("en")


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
    return [*dict.fromkeys(x.text for x in top if x.contribution > least)][:MOST_NAMED]


def format_points(share: float) -> str:
    """Return a signed difference in percentage points: 0.123 -> "+12.3", -0.02 -> "−2.0"."""
    rounded = round(100 * share, 1)
    return f"{'−' if rounded < 0 else '+'}{abs(rounded):.1f}"


def explanation_view(found: Explanation) -> dict[str, Any]:
    """Return what templates draw of an explanation: shaded words and regions, and bars."""
    maps = {"pictures": _heat_maps(found), "similarity": _similarity_maps(found)}
    return {"text": _text_pieces(found), "steps": _steps(found), **maps}


def _text_pieces(found: Explanation) -> list[dict[str, Any]]:
    text, pieces, at = found.post.text, [], 0
    scale = max([LEAST, *(abs(word.contribution) for word in found.words)])
    for word in found.words:
        if at <= word.start < word.end:
            pieces.append({"text": text[at : word.start], "kind": ""})
            pieces.append({"text": text[word.start : word.end], **_shade(word.contribution, scale)})
            at = word.end
    return [*pieces, {"text": text[at:], "kind": ""}]


def _shade(contribution: float, scale: float) -> dict[str, Any]:
    strength = abs(contribution) / scale
    least = max(LEAST, 0.05 * scale)
    kind = "" if abs(contribution) < least else "for" if contribution > 0 else "against"
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
    spans = [("nothing", "level", 0.0, found.base)]
    for part, span in zip(found.parts, pairwise(sums), strict=True):
        spans.append((part.name, "for" if part.contribution >= 0 else "against", *span))
    bars = []
    for name, kind, start, end in [*spans, ("all", "level", 0.0, found.probability)]:
        left, right = sorted(100 * (x - low) / (high - low) for x in (start, end))
        places = {"left": round(left, 2), "width": round(max(right - left, 0.4), 2)}
        bars.append({"name": name, "kind": kind, "number": format_points(end - start), **places})
    return bars


def _similarity_maps(found: Explanation) -> list[dict[str, Any]]:
    """Shade, for the words that matter most, each picture's regions by their similarity."""
    if (similarity := found.similarity) is None:
        return []
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
    return words
