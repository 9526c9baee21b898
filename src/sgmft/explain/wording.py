"""An explanation in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from sgmft.explain.explanation import Explanation, Part

MOSTLY = 2 / 3  # of what speaks for a label
NOTHING = 0.005  # half a percentage point
MOST_NAMED = 3  # words


def summary(found: Explanation) -> str:
    """For instance "Restaurant, 87 %: mostly because of the words “火锅” and “好吃”." """
    told = f"{found.label}, {percent(found.probability)}: {_because(found)}"
    if others := dissenting(found):
        said = [f"{the(part)} alone would say {part.alone}" for part in others]
        told += f"; {joined(said)}"
    told += "."
    if found.label != found.predicted:
        chance = percent(found.probabilities[found.predicted])
        told += f" The model's own answer is {found.predicted}, {chance}."
    return told


def percent(share: float) -> str:
    """0.874 -> "87 %", with a space that does not break."""
    if 0 < share < 0.005:
        return "under 1\u00a0%"
    if 0.995 <= share < 1:
        return "over 99\u00a0%"
    return f"{100 * share:.0f}\u00a0%"


def points(share: float) -> str:
    """A signed difference in percentage points: 0.123 -> "+12.3", -0.02 -> "−2.0"."""
    rounded = round(100 * share, 1)
    return f"{'−' if rounded < 0 else '+'}{abs(rounded):.1f}"


def joined(items: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def strongest(found: Explanation) -> str:
    """How far single words and regions move the probability, which shades cannot tell."""
    names = {"words": "word", "regions": "region"}
    told = [f"the strongest {names[what]} by {x:.1f}" for what, x in farthest(found).items()]
    return f"How far they move the probability: {joined(told)} points."


def farthest(found: Explanation) -> dict[str, float]:
    """By how many points the strongest of the "words" and "regions", as far as there are any."""
    words = [abs(word.contribution) for word in found.words]
    regions = [abs(x) for picture in found.pictures for x in picture.contributions]
    values = {"words": words, "regions": regions}
    return {what: 100 * max(each) for what, each in values.items() if each}


def main_parts(found: Explanation) -> list[Part]:
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


def dissenting(found: Explanation) -> list[Part]:
    """The first few of several parts that alone would say another label."""
    others = [part for part in found.parts if part.alone != found.label]
    return others[:MOST_NAMED] if len(found.parts) > 1 else []


def _because(found: Explanation) -> str:
    main = main_parts(found)
    if not main:
        return "nothing in the post speaks for it"
    alone = len(main) == 1 and len(found.parts) > 1
    return f"{'mostly ' if alone else ''}because of {joined([_named(found, x) for x in main])}"


def _named(found: Explanation, part: Part) -> str:
    """The picture, or the text by its words."""
    if part.name != "text":
        return the(part)
    best = main_words(found)
    if not best:
        return "the text as a whole"
    return f"the word{'s' if len(best) > 1 else ''} {joined([f'“{word}”' for word in best])}"


def the(part: Part) -> str:
    """ "the text", "the picture", "picture 2"."""
    return part.name if part.name[-1].isdigit() else f"the {part.name}"
