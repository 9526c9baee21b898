"""How well scores tell posts of no class from posts of the classes: AUROC in percent.

    python benchmarks/out_of_scope.py place/index_masked.jsonl mvsa/index.jsonl --features features/

The model learns the training rows (split=train) of the first table. Posts of the classes are its
test rows. Posts of none are (a) *pairs*: the text of a test row whose picture alone tells the label
(informative=image) with the picture of one whose text alone does (informative=text), so that
neither side says anything of a place; (b) *tweets*: the test rows of the second table. Intervals:
95 % bootstrap over posts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from sgmft import Post, SemanticLocator, read_posts
from sgmft.locator.abstention import entropy
from sgmft.models.arrays import logsumexp, softmax
from sgmft.models.base import ModelOutputs, predict_logits

COMPONENTS, RESAMPLES = 256, 500


class Mahalanobis:
    """Distance to the nearest class mean under the classes' common covariance (Lee et al. 2018)."""

    def __init__(self, x: np.ndarray, classes: np.ndarray) -> None:
        self.means = np.stack([x[classes == k].mean(0) for k in np.unique(classes)])
        self.covariance = LedoitWolf().fit(x - self.means[classes])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.min([self.covariance.mahalanobis(x - mean) for mean in self.means], 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("others")
    parser.add_argument("--methods", default="gated-experts,unis-mmc")
    parser.add_argument("--features", type=Path, required=True)
    options = parser.parse_args()
    posts = read_posts(options.table)
    train, test = (
        [post for post in posts if post.row["split"] == name] for name in ("train", "test")
    )
    texts, pictures = (
        [p for p in test if p.row["informative"] == side] for side in ("image", "text")
    )
    strangers = {
        "pairs": [Post(t.text, p.images) for t, p in zip(texts, pictures, strict=False)],
        "tweets": [p for p in read_posts(options.others) if p.row["split"] == "test"],
    }
    print(
        "| method | score | " + " | ".join(f"{k} ({len(v)})" for k, v in strangers.items()) + " |"
    )
    print("|---|---|---|---|", flush=True)
    for method in options.methods.split(","):
        locator = SemanticLocator(method=method, features=options.features).fit(train)
        scores = scores_of(locator, train)
        known = scores(test)
        found = {kind: scores(some) for kind, some in strangers.items()}
        for name in known:
            cells = [auroc(known[name], found[kind][name]) for kind in strangers]
            print(f"| {locator.method.title} | {name} | {' | '.join(cells)} |", flush=True)


def scores_of(locator: SemanticLocator, train: list[Post]):
    """From posts to each score, larger for posts that are more likely of no class."""
    encoded, said = answers(locator, train)
    classes = np.array([locator.labels.index(str(post.label)) for post in encoded.posts])
    pooled = features_of(encoded)
    centre, scale = pooled.mean(0), pooled.std(0).clip(1e-4)
    pca = PCA(COMPONENTS, random_state=0).fit((pooled - centre) / scale)
    fused = Mahalanobis(said.fused, classes)
    encodings = Mahalanobis(pca.transform((pooled - centre) / scale), classes)

    def scores(posts: list[Post]) -> dict[str, np.ndarray]:
        encoded, said = answers(locator, posts)
        logits = said.logits / locator.temperatures[encoded.features.parts, None]
        probs = softmax(logits)
        features = pca.transform((features_of(encoded) - centre) / scale)
        return {
            "largest probability": 1 - probs.max(1),
            "entropy": entropy(probs),
            "energy": -logsumexp(logits)[:, 0],
            "Mahalanobis, fused": fused(said.fused),
            f"Mahalanobis, encodings ({COMPONENTS} components)": encodings(features),
        }

    return scores


def answers(locator: SemanticLocator, posts: list[Post]) -> tuple[object, ModelOutputs]:
    encoded = locator.encode(posts)
    assert locator.network is not None
    return encoded, predict_logits(locator.network, encoded.features)


def features_of(encoded) -> np.ndarray:
    return np.concatenate([encoded.features.text, encoded.features.image], 1)


def auroc(known: np.ndarray, strange: np.ndarray) -> str:
    rng = np.random.default_rng(0)

    def once(a: np.ndarray, b: np.ndarray) -> float:
        return 100 * roc_auc_score(np.repeat([0, 1], [len(a), len(b)]), np.concatenate([a, b]))

    draws = [
        once(rng.choice(known, len(known)), rng.choice(strange, len(strange)))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{once(known, strange):.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
