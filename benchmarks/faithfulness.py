"""Whether explanations are faithful: deleting what they rank first must hurt more than chance does.

    python benchmarks/faithfulness.py runs/ place/index_masked.jsonl --posts 60 --features features/

A model of the default method learns from the rows with split=train (kept in runs/model, and not
trained again). Of test posts drawn with seed 0, the words, and then the regions of the first
picture, that matter most for the predicted label are deleted, 1, 2, 3, ... of them; beside that,
as many drawn at random (mean over five draws for words, two for regions). Prints the mean drop of
the predicted label's probability in percentage points, with the 95 % bootstrap interval over posts.
A row counts the posts that have more words than are deleted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgmft import SemanticLocator, read_posts
from sgmft.evaluation.explain.attribution import (
    MOST_WORDS,
    ExplainedModel,
    MaskedPredictor,
    blank_regions,
    find_words,
    region_losses,
    without,
    word_losses,
)

WORDS, REGIONS = (1, 2, 3, 5, 8), (1, 2, 3, 4, 6, 8)  # how many are deleted
WORD_DRAWS, REGION_DRAWS, RESAMPLES = 5, 2, 2000

Drops = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("table")
    parser.add_argument("--posts", type=int, default=100)
    parser.add_argument("--features", type=Path, required=True)
    options = parser.parse_args()
    model = trained(options.runs / "model", options.table, options.features)
    posts = read_posts(options.table, where={"split": "test"})
    chosen = np.random.default_rng(0).permutation(len(posts))[: options.posts]
    words: list[Drops] = []
    regions: list[Drops] = []
    rng = np.random.default_rng(1)
    for i in sorted(chosen):
        predictor = MaskedPredictor(posts[i], model)
        label = int(predictor.predict_proba([predictor.whole])[0].argmax())
        if predictor.text:
            words.append(word_drops(predictor, posts[i].text, label, rng))
        if predictor.images:
            regions.append(region_drops(predictor, label, rng))
    print("| deleted | posts | the top-ranked | at random | difference |")
    print("|---|---|---|---|---|")
    for what, counts, found in (("word", WORDS, words), ("region", REGIONS, regions)):
        for j, count in enumerate(counts):
            name = f"{count} {what}{'s' if count > 1 else ''}"
            print(f"| {name} {line(np.array([drops[:, j] for drops in found]))}")


def trained(folder: Path, table: str, features: Path) -> ExplainedModel:
    """The model in `folder`, trained first if it is not there."""
    if not (folder / "config.json").is_file():
        posts = read_posts(table, where={"split": "train"})
        SemanticLocator(features=features).fit(posts).save_pretrained(folder)
    found = SemanticLocator.from_pretrained(folder)
    assert found.network is not None
    return ExplainedModel(
        found.encoder, found.network, found.uses_tokens, found.labels, found.temperatures
    )


def word_drops(
    predictor: MaskedPredictor, text: str, label: int, rng: np.random.Generator
) -> Drops:
    """Top-ranked and random drop for each of `WORDS`, (2, counts)."""
    words = find_words(text, predictor.text, MOST_WORDS)

    def ask(kept: NDArray[np.bool_]) -> Drops:
        texts = [without(predictor.text, words, row) for row in kept]
        return predictor.predict_proba(predictor.replace_text(texts))[:, label]

    return drops(ask, word_losses(predictor, words, label), WORDS, WORD_DRAWS, rng)


def region_drops(predictor: MaskedPredictor, label: int, rng: np.random.Generator) -> Drops:
    """Top-ranked and random drop for each of `REGIONS`, (2, counts)."""

    def ask(kept: NDArray[np.bool_]) -> Drops:
        pictures = [blank_regions(predictor.images[0], row) for row in kept]
        return predictor.predict_proba(predictor.replace_image(0, pictures))[:, label]

    return drops(ask, region_losses(predictor, 0, label), REGIONS, REGION_DRAWS, rng)


def drops(
    ask: Callable[[NDArray[np.bool_]], Drops],
    losses: Drops,
    counts: Sequence[int],
    draws: int,
    rng: np.random.Generator,
) -> Drops:
    """(2, counts); NaN where there are not more players than are deleted."""
    players = len(losses)
    orders = [
        np.argsort(-losses, kind="stable"),
        *(rng.permutation(players) for _ in range(draws)),
    ]
    rows = [np.ones(players, bool)]
    for order in orders:
        for count in counts:
            kept = np.ones(players, bool)
            kept[order[:count]] = False
            rows.append(kept)
    values = ask(np.array(rows))
    fallen = (values[0] - values[1:]).reshape(len(orders), len(counts))
    fallen[:, [count >= players for count in counts]] = np.nan
    return np.stack([fallen[0], fallen[1:].mean(0)])


def line(found: Drops) -> str:
    """The figures of posts (N, 2), in percentage points."""
    kept = 100 * found[~np.isnan(found).any(1)]
    columns = [kept[:, 0], kept[:, 1], kept[:, 0] - kept[:, 1]]
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(kept), (RESAMPLES, len(kept)))
    told = []
    for values in columns:
        low, high = np.percentile(values[rows].mean(1), (2.5, 97.5))
        told.append(f"{values.mean():.1f} [{low:.1f}, {high:.1f}]")
    return f"| {len(kept)} | {' | '.join(told)} |"


if __name__ == "__main__":
    main()
