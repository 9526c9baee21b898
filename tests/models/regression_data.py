"""Features and n-grams that say a little of their labels, and scikit-learn's own regressions."""

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from sgmft.data.preprocessing.ngrams import BUCKETS

K, D = 3, 6


@pytest.fixture
def tight(monkeypatch):
    """The search goes on to the very end, so that numbers can be compared closely."""
    monkeypatch.setattr("sgmft.models.logistic.TOLERANCE", 1e-8)
    monkeypatch.setattr("sgmft.models.logistic.MAX_ITERATIONS", 20_000)


def dense(n=60, classes=K, seed=0, slope=1.0, width=D):
    """Features (n, width) that say a little of the labels (n,), float64."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=rng)
    labels[:classes] = torch.arange(classes)
    centres = torch.randn(classes, width, generator=rng, dtype=torch.float64)
    noise = torch.randn(n, width, generator=rng, dtype=torch.float64)
    return 3 * (slope * centres[labels] + noise) + 2, labels


def grams(n=60, seed=0, clear=0.5, longest=9):
    """Posts of n-grams (n, g), padded with -1, and labels: some n-grams belong to a label."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(K), rng.integers(0, K, n - K)])
    x = np.full((n, longest + 1), -1, np.int32)
    for i, k in enumerate(labels):
        length = rng.integers(1, longest + 1)
        own = rng.random(length) < clear
        x[i, :length] = np.where(
            own, 10 * k + rng.integers(0, 4, length), rng.integers(0, 60, length)
        )
    x[x == 12] = BUCKETS - 1
    return torch.from_numpy(x), torch.from_numpy(labels)


def scikit(x, labels, penalty):
    """Its own solution of: mean cross-entropy + penalty |w|^2 / 2, from a start at zero."""
    model = LogisticRegression(C=1 / (len(labels) * penalty), tol=1e-8, max_iter=20_000)
    return model.fit(x, labels.numpy())


def vectorizer():
    def tokens(row):
        return [int(a) for a in row if a >= 0]

    return TfidfVectorizer(analyzer=tokens, sublinear_tf=True, min_df=2)
