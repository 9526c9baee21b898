"""Who is misread: accuracy by the length and the script of a text, and without pictures or text.

    python benchmarks/misread.py runs/ masked=place/index_masked.jsonl ... --features features/

The models of shares.py, which learned one half of a set, on the posts of the other half. Script is
what most letters of the text are; mixed is a Chinese text with a Latin word of three letters or
more. Accuracy in percent with its 95 % bootstrap interval, beside the posts; `-` for fewer than 20.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
from shares import split
from trained import arguments, trained

from sgmft.data.posts import Post
from sgmft.evaluation.metrics import evaluate

LENGTHS = {"to 10 characters": 10, "to 30": 30, "to 80": 80, "longer": 10**9}
GROUPS = ("as they are", "without pictures", "without text", *LENGTHS, "Han", "mixed", "Latin")


def main() -> None:
    options = arguments(__doc__, "gated-experts").parse_args()
    print(f"| set | {' | '.join(GROUPS)} |\n|{'---|' * (1 + len(GROUPS))}", flush=True)
    for item in options.tables:
        name, table = item.split("=", 1)
        learned, left = split(table, 0)
        model = trained("gated-experts", learned, options.runs / f"{name}-0", options.features)
        cells = {}
        for change in ({}, {"images": ()}, {"text": ""}):
            key = GROUPS[("images" in change) + 2 * ("text" in change)]
            posts = [dataclasses.replace(post, **change) for post in left]
            found = [p for p in model.predictions(posts) if p.probabilities is not None]
            groups = {"all": [key] * len(found)}
            if not change:
                groups |= {"length": [length(p.post) for p in found]}
                groups |= {"script": [script(p.post) for p in found]}
            probs = np.array([p.probabilities for p in found])
            truth = [str(p.post.label) for p in found]
            for scores in evaluate(probs, truth, model.labels, groups=groups).groups.values():
                for group, score in scores.items():
                    x, low, high = (100 * v for v in dataclasses.astuple(score.accuracy)[:3])
                    shown = f"{x:.0f} [{low:.0f}, {high:.0f}], {score.posts}"
                    cells[group] = shown if score.posts >= 20 else "-"
        print(f"| {name} | {' | '.join(cells.get(x, '-') for x in GROUPS)} |", flush=True)


def length(post: Post) -> str:
    """The shortest of `LENGTHS` that a text does not pass."""
    return next(name for name, most in LENGTHS.items() if len(post.text) <= most)


def script(post: Post) -> str:
    """What most letters are."""
    han, latin = (len(re.findall(x, post.text)) for x in ("[\u4e00-\u9fff]", "[A-Za-z]"))
    mixed = han and re.search(r"[A-Za-z]{3}", post.text)
    return "no letters" if not han + latin else "mixed" if mixed else "Han" if han else "Latin"


if __name__ == "__main__":
    main()
