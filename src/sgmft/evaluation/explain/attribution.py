"""Attribution of a label's probability to text, pictures, words and picture regions.

A trained model predicts the post again with parts left out or replaced.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import Pixels
from sgmft.errors import SgmftError
from sgmft.evaluation.calibration import temper
from sgmft.evaluation.explain.words import Word, without
from sgmft.features.encode import PreparedPost, encode_prepared, prepare_post
from sgmft.features.encoders.base import Encoder
from sgmft.features.features import Features
from sgmft.features.post_features import PostFeatures
from sgmft.models.base import Model
from sgmft.models.inference import predict_logits

Probabilities = NDArray[np.float64]
Coalitions = NDArray[np.bool_]  # (N, n), True where a player takes part
Game = Callable[[Coalitions], Probabilities]  # N coalitions to their N values
MOST_EXACT = 1024  # coalitions, which is ten players
MOST_WORDS = 64  # attributed to in one text
GRID = 4  # of the regions of a picture, GRID x GRID


class UnexplainableError(SgmftError):
    """A post that a model cannot predict: it has an error, nothing to go on or a bad picture."""

    def __init__(self, post: Post, reason: str) -> None:
        super().__init__(f"{post.place or 'The post'} cannot be explained: {reason}.")
        self.reason = reason


@dataclass(frozen=True)
class ExplainedModel:
    """The parts of a trained locator that explaining needs."""

    encoder: Encoder  # posts to features
    network: Model  # features to logits
    tokens: bool  # whether the network needs word and region features
    labels: Sequence[str]  # the K labels, in the order of the logits
    temperatures: NDArray[np.float64]  # (4,) by which logits are divided, by parts of the post


class MaskedPredictor:
    """Predicts one post as it is, and with parts left out or replaced.

    A modality that is left out is missing, as in a post that never had it: the model's own way
    with missing modalities decides what that means.

    Attributes:
        text: cleaned, as the encoder reads it; "" when there is none.
        images: decoded, as the encoder sees them.
        files: which of the post's files each image is of.
        warnings: why some of its files are left out.
        whole: the post's features.
    """

    def __init__(self, post: Post, model: ExplainedModel) -> None:
        content = prepare_post(post, model.encoder.info)
        if isinstance(content, str):
            raise UnexplainableError(post, content)
        self.model = model
        self.text = content.text
        self.images = content.images
        self.files, self.warnings = content.files, content.warnings
        self.whole = self._encode([content])[0]

    def replace_text(self, texts: Sequence[str]) -> list[PostFeatures]:
        """Return the post with each of these cleaned texts in place of its own, "" for none."""
        new = self._encode([PreparedPost(str(i), text, []) for i, text in enumerate(texts)])
        return [self.whole._replace(text=x.text, words=x.words, ngrams=x.ngrams) for x in new]

    def replace_image(self, number: int, changed: Sequence[Pixels]) -> list[PostFeatures]:
        """Return the post with each of these in place of its image `number`, counted from 0."""
        images, regions = self.whole.images, self.whole.regions
        assert images is not None
        rows = []
        for new in self._encode([PreparedPost(str(i), "", [x]) for i, x in enumerate(changed)]):
            assert new.images is not None
            row = self.whole._replace(images=_with_row(images, number, new.images[0]))
            if regions is not None and new.regions is not None:
                each = regions.reshape(len(images), *new.regions.shape)
                each = _with_row(each, number, new.regions)
                row = row._replace(regions=each.reshape(regions.shape))
            rows.append(row)
        return rows

    def keep_parts(self, text: bool, images: Sequence[bool]) -> PostFeatures:
        """Return the post with its text or without, and with those images that are True."""
        row = self.whole
        if not text:
            row = row._replace(text=None, words=None, ngrams=None)
        if row.images is None:
            return row
        kept = np.asarray(images, bool)
        if not kept.any():
            return row._replace(images=None, regions=None)
        regions = row.regions
        if regions is not None:
            each = regions.reshape(len(row.images), -1, regions.shape[-1])
            regions = each[kept].reshape(-1, regions.shape[-1])
        return row._replace(images=row.images[kept], regions=regions)

    def features(self, rows: Sequence[PostFeatures]) -> Features:
        """Return what the network takes."""
        return Features.of(rows, self.model.encoder.info, self.model.tokens)

    def predict_proba(self, rows: Sequence[PostFeatures]) -> Probabilities:
        """Return the probabilities of N changed posts, (N, K) in the order of the labels."""
        features = self.features(rows)
        logits = predict_logits(self.model.network, features).logits
        return temper(logits, self.model.temperatures[features.parts]).astype(np.float64)

    def _encode(self, contents: Sequence[PreparedPost]) -> list[PostFeatures]:
        found = encode_prepared(contents, self.model.encoder, self.model.tokens, {})
        return [found[content.key] for content in contents]


def _with_row(rows: NDArray[Any], number: int, new: NDArray[Any]) -> NDArray[Any]:
    changed = rows.copy()
    changed[number] = new
    return changed


def check_label(label: str | None, labels: Sequence[str]) -> None:
    """Raise SgmftError for a label that a model does not have; None is any."""
    if label is not None and label not in labels:
        raise SgmftError(f"The model has no label {label!r}: its labels are {', '.join(labels)}.")


class ShapleyValues(NamedTuple):
    """The values of the n players of a game."""

    values: NDArray[np.float64]  # (n,)
    exact: bool  # False: from some orders of joining only, drawn at random


def part_values(predictor: MaskedPredictor, label: int) -> ShapleyValues:
    """Return the values of the text, if there is one, and of each picture.

    From a post with nothing to this one; what is left out is missing, not blank.
    """
    texts = int(bool(predictor.text))

    def game(coalitions: Coalitions) -> Probabilities:
        rows = [predictor.keep_parts(bool(x[:texts].any()), x[texts:]) for x in coalitions]
        return predictor.predict_proba(rows)[:, label]

    return shapley_values(game, texts + len(predictor.images))


def word_losses(
    predictor: MaskedPredictor, words: Sequence[Word], label: int
) -> NDArray[np.float64]:
    """Return what the probability loses when a word is deleted, the rest staying: (n,)."""

    def game(coalitions: Coalitions) -> Probabilities:
        texts = [without(predictor.text, words, kept) for kept in coalitions]
        return predictor.predict_proba(predictor.replace_text(texts))[:, label]

    return _ablate(game, len(words))


def region_losses(predictor: MaskedPredictor, number: int, label: int) -> NDArray[np.float64]:
    """Return what it loses when a region of picture `number` is blanked: (GRID²,), row by row.

    A blanked region has the picture's mean colour.
    """

    def game(coalitions: Coalitions) -> Probabilities:
        images = [blank_regions(predictor.images[number], kept) for kept in coalitions]
        return predictor.predict_proba(predictor.replace_image(number, images))[:, label]

    return _ablate(game, GRID**2)


def shapley_values(
    game: Game, players: int, budget: int = MOST_EXACT, seed: int = 0
) -> ShapleyValues:
    """Return the values of n players, exact where the game can be asked of every coalition.

    Else they are from orders of joining sampled with `seed`. The game is called with many
    coalitions at once, with `budget` at most, of which sampling takes at least 2 n.
    """
    if not players:
        return ShapleyValues(np.zeros(0), True)
    if 2**players <= budget:
        return ShapleyValues(_exact_values(game, players), True)
    orders = max(2, (budget - 2) // players)
    return ShapleyValues(_sampled_values(game, players, orders, seed), False)


def blank_regions(image: Pixels, kept: NDArray[np.bool_]) -> Pixels:
    """Return an image (s, s, 3) with its mean colour in those g x g regions that are not `kept`."""
    changed = image.copy()
    side = round(len(kept) ** 0.5)
    edges = np.linspace(0, len(image), side + 1).round().astype(int)
    colour = image.reshape(-1, 3).mean(0).round().astype(np.uint8)
    for i in np.flatnonzero(~kept):
        row, column = divmod(i, side)
        changed[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = colour
    return changed


def _exact_values(game: Game, players: int) -> NDArray[np.float64]:
    """phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))."""
    codes = np.arange(2**players)
    members = (codes[:, None] >> np.arange(players) & 1).astype(bool)
    values, sizes = game(members), members.sum(1)
    factorials = [math.factorial(k) for k in range(players + 1)]
    weights = [
        factorials[k] * factorials[players - k - 1] / factorials[players] for k in range(players)
    ]
    shares = np.zeros(players)
    for i in range(players):
        without_i = codes[~members[:, i]]
        gains = values[without_i | 1 << i] - values[without_i]
        shares[i] = np.take(weights, sizes[without_i]) @ gains
    return shares


def _ablate(game: Game, players: int) -> NDArray[np.float64]:
    """v(all) - v(all but i), in one call of the game."""
    if not players:
        return np.zeros(0)
    values = game(np.concatenate([np.ones((1, players), bool), ~np.eye(players, dtype=bool)]))
    losses: NDArray[np.float64] = values[0] - values[1:]
    return losses


def _sampled_values(game: Game, players: int, orders: int, seed: int) -> NDArray[np.float64]:
    """The mean gain over random orders of joining (Castro et al. 2009).

    Efficiency holds for every order, and so for their mean.
    """
    rng = np.random.default_rng(seed)
    place = np.stack([rng.permutation(players) for _ in range(orders)])  # of each player in it
    joined = place[:, None] < np.arange(1, players)[:, None]  # (orders, n - 1, n)
    ends = np.stack([np.zeros(players, bool), np.ones(players, bool)])
    values = game(np.concatenate([ends, joined.reshape(-1, players)]))
    nobody, everybody = np.full((orders, 1), values[0]), np.full((orders, 1), values[1])
    along = np.concatenate([nobody, values[2:].reshape(orders, -1), everybody], axis=1)
    gains: NDArray[np.float64] = np.take_along_axis(np.diff(along), place, axis=1)
    return np.asarray(gains.mean(0))
