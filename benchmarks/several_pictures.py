"""Accuracy on generated posts with one picture of each against several.

    python benchmarks/several_pictures.py runs/ --features features/ [--posts 420]

Posts of `write_sample(several=1)`: all that have pictures have 2 to 9. Of each its first picture
is kept, or its first two, first four, or all. Everything is cross-validated: five stratified folds,
every post a test post once, and the number kept is the same in training and in test. Accuracy in
percent, over all posts and over those whose place only the pictures tell; ▼ and ▲: below or above
the same method with one picture by more than chance (paired randomisation test over posts,
Holm-corrected over the table, p < 0.05). Encoded posts are kept in features/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from cross_validation import FOLDS, mark
from learning_curves import SYSTEMS, Table, learn, task_of
from sample_posts import write_sample

from sgmft import SemanticLocator, read_posts
from sgmft.data.posts import Post
from sgmft.data.splits import fold_posts
from sgmft.evaluation.compare.statistics import corrected, difference
from sgmft.features.encode import MAX_IMAGES, encode_posts
from sgmft.features.encoders.base import PostFeatures
from sgmft.features.features import Features, LabelledFeatures
from sgmft.features.store import FeatureStore
from sgmft.models.arrays import softmax
from sgmft.models.base import predict_logits

KEPT = {"1": 1, "2": 2, "4": 4, "all": MAX_IMAGES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--posts", type=int, default=420)
    parser.add_argument("--methods", default="image-only,gated-experts")
    options = parser.parse_args()
    file = options.runs / f"several-{options.posts}" / "posts.jsonl"
    if not file.is_file():
        write_sample(file.parent, options.posts, several=1.0)
    posts = read_posts(file)
    tables = tables_of(posts, options.features)
    truth = tables["1"].data.labels
    groups = {
        "all posts": np.full(len(posts), True),
        "only pictures tell": np.array([post.row["informative"] == "image" for post in posts]),
    }
    methods = options.methods.split(",")
    found = {
        (method, name): predicted(table, method)
        for method in methods
        for name, table in tables.items()
    }
    compared = [(*cell, group) for cell in found if cell[1] != "1" for group in groups]
    differences = corrected(
        [
            difference(
                found[method, name][None, groups[group]],
                found[method, "1"][None, groups[group]],
                truth[groups[group]],
            )
            for method, name, group in compared
        ]
    )
    marks = dict(zip(compared, map(mark, differences), strict=True))
    heads = [
        f"{SYSTEMS[m][0]}, {group} ({g.sum()})" for m in methods for group, g in groups.items()
    ]
    print(f"| pictures kept | {' | '.join(heads)} |\n|---{'|---' * len(heads)}|")
    for name in KEPT:
        cells = []
        for method in methods:
            right = 100 * (found[method, name].argmax(1) == truth)
            for group, rows in groups.items():
                cells.append(f"{right[rows].mean():.1f}{marks.get((method, name, group), '')}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def tables_of(posts: list[Post], features: Path) -> dict[str, Table]:
    """The posts with their first pictures only; every picture is encoded once."""
    encoder = SemanticLocator().encoder
    store = FeatureStore(features, encoder.info, tokens=False)
    rows = [row for chunk in encode_posts(posts, encoder, store=store) for row in chunk.rows]
    assert len(rows) == len(posts)
    labels = sorted({str(post.label) for post in posts})
    classes = np.array([labels.index(str(post.label)) for post in posts])
    tables = {}
    for name, most in KEPT.items():
        fewer = [row if row.images is None else cut(row, most) for row in rows]
        data = LabelledFeatures(Features.of(fewer, encoder.info, False), classes)
        tables[name] = Table(posts, labels, data, encoder.info)
    return tables


def cut(row: PostFeatures, most: int) -> PostFeatures:
    assert row.images is not None
    return row._replace(images=row.images[:most])


def predicted(table: Table, method: str) -> np.ndarray:
    """Probabilities (N, K) of every post by the run that has not seen it."""
    found = np.full((len(table.posts), len(table.labels)), np.nan)
    for fold, test in enumerate(fold_posts(table.posts, FOLDS)):
        unseen = set(test)
        train = [i for i in range(len(table.posts)) if i not in unseen]
        model = learn(task_of(table, method, train, fold), [table.posts[i] for i in train])
        features = table.data.features.take(np.array(test))
        found[test] = softmax(predict_logits(model, features).logits)
    return found


if __name__ == "__main__":
    main()
