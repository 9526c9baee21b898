"""Attribution of a label's probability to parts of a post: a model predicts it without each."""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from itertools import compress, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from sgmft.data.posts import Attachment, Post
from sgmft.data.preprocessing.images import Pixels
from sgmft.data.preprocessing.media import make_thumbnail, to_data_url
from sgmft.data.preprocessing.text import CLEANINGS, simplify, split_words
from sgmft.errors import SgmftError, check_name
from sgmft.evaluation.calibration import temper
from sgmft.evaluation.explain import explanation as result
from sgmft.features.attributes import AttributeReader
from sgmft.features.encode import PreparedPost, encode_prepared, prepare_post
from sgmft.features.encoders.base import Encoder, PostFeatures
from sgmft.features.encoders.batches import encode_joint
from sgmft.features.features import Features
from sgmft.models.arrays import Array, Doubles, Flags, Floats, normalize
from sgmft.models.base import Model, predict_logits

Coalitions = Flags  # (N, n), True where a player takes part
Game = Callable[[Coalitions], Doubles]  # N coalitions to their N values
MOST_EXACT = 1024  # coalitions, which is ten players
MOST_WORDS = 64  # attributed to in one text
SHOWN = 512  # pixels of the longer side of a picture as it is, while regions of it are blanked
SEGMENTED = CLEANINGS["none"]  # of a text that has been cleaned, every word stays
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
    temperatures: Doubles  # (4,) by which logits are divided, by parts of the post
    attributes: AttributeReader = field(default_factory=AttributeReader)  # of other columns


class Word(NamedTuple):
    """A word, or several in a row, with the marks and space after it (and before the first)."""

    text: str
    start: int  # of what it owns in the cleaned text
    end: int
    shown: tuple[int, int]  # where the word is in the original text; empty where it is not found


class MaskedPredictor:
    """Predicts one post as it is, and with parts left out, as if it never had them, or replaced."""

    def __init__(self, post: Post, model: ExplainedModel) -> None:
        content = prepare_post(post, model.encoder.info)
        if isinstance(content, str):
            raise UnexplainableError(post, content)
        self.model, self.post, self.content = model, post, content
        self.text, self.images = content.text, content.images  # as the encoder sees them
        self.whole = self._encode([content])[0]  # the post's features

    def replace_text(self, texts: Sequence[str]) -> list[PostFeatures]:
        """Return the post with each of these cleaned texts in place of its own, "" for none."""
        new = self._encode([PreparedPost(str(i), text, []) for i, text in enumerate(texts)])
        rows = [self.whole._replace(text=x.text, words=x.words, ngrams=x.ngrams) for x in new]
        return self._together(rows, [(text, self.images) for text in texts])

    def replace_image(self, number: int, changed: Sequence[Pixels]) -> list[PostFeatures]:
        """Return the post with each of these in place of its image `number`, counted from 0."""
        row, images, rows = self.whole, self.images, []
        for new in self._encode([PreparedPost(str(i), "", [x]) for i, x in enumerate(changed)]):
            seen = _with_rows(row.images, number, new.images)
            regions = _with_rows(row.regions, number, new.regions)
            rows.append(row._replace(images=seen, regions=regions))
        sets = [[*images[:number], x, *images[number + 1 :]] for x in changed]
        return self._together(rows, [(self.text, some) for some in sets])

    def keep_parts(self, text: bool, images: Sequence[bool]) -> PostFeatures:
        """Return the post with its text or without, and with those images that are True."""
        row, kept = self.whole, np.asarray(images, bool)
        if not text:
            row = row._replace(text=None, words=None, ngrams=None)
        whole = (row.images, row.regions) if kept.any() else (None, None)
        seen, regions = (x if x is None else x[np.repeat(kept, len(x) // len(kept))] for x in whole)
        row = row._replace(images=seen, regions=regions)
        content = self.text if text else "", list(compress(self.images, kept))
        return self._together([row], [content])[0]

    def _together(
        self, rows: Sequence[PostFeatures], contents: Sequence[tuple[str, Sequence[Pixels]]]
    ) -> list[PostFeatures]:
        joint = encode_joint(self.model.encoder, contents)
        return [row._replace(joint=x) for row, x in zip(rows, joint, strict=True)]

    def features(self, rows: Sequence[PostFeatures]) -> Features:
        """Return what the network takes."""
        found = Features.of(rows, self.model.encoder.info, self.model.tokens)
        return self.model.attributes.add(found, [self.post] * len(rows))

    def predict_proba(self, rows: Sequence[PostFeatures]) -> Doubles:
        """Return the probabilities of N changed posts, (N, K) in the order of the labels."""
        features = self.features(rows)
        logits = predict_logits(self.model.network, features).logits
        return temper(logits, self.model.temperatures[features.parts]).astype(np.float64)

    def _encode(self, contents: Sequence[PreparedPost]) -> list[PostFeatures]:
        found = encode_prepared(contents, self.model.encoder, self.model.tokens, {})
        return [found[content.key] for content in contents]


def _with_rows(rows: Array | None, number: int, new: Array | None) -> Array | None:
    if rows is None or new is None:
        return rows
    start, changed = number * len(new), rows.copy()
    changed[start : start + len(new)] = new
    return changed


def explain_post(post: Post, model: ExplainedModel, label: str | None = None) -> result.Explanation:
    """Attribute the probability of a label, by default the most probable, to parts of a post.

    The contributions of text and pictures are Shapley values; those of words and regions what the
    probability loses without them. Deterministic. Encodes up to 64 changed texts, and 16 changed
    pictures for each picture. SgmftError where the model cannot predict it, or has no such label.
    """
    labels = list(model.labels)
    predictor = MaskedPredictor(post, model)
    post = replace(post, warnings=(*post.warnings, *predictor.content.warnings))
    probs = predictor.predict_proba([predictor.whole])[0]
    predicted = labels[int(probs.argmax())]
    label = predicted if label is None else label
    check_name(label, labels, "The model has no label")
    k = labels.index(label)
    parts, exact = _parts(predictor, k)
    words = find_words(post.text, predictor.text, MOST_WORDS)
    losses = zip(words, word_losses(predictor, words, k).tolist(), strict=True)
    network = model.network
    output = network.predict(predictor.features([predictor.whole]).batch(None, network.uses_ngrams))
    gate, found = (output.parts or {}).get("gate"), output.guidance
    return result.Explanation(
        post=post,
        label=label,
        predicted=predicted,
        probabilities=dict(zip(labels, probs.tolist(), strict=True)),
        base=float(predictor.predict_proba([predictor.keep_parts(False, [])])[0, k]),
        parts=parts,
        exact=exact,
        words=tuple(result.WordAttribution(x.text, *x.shown, y) for x, y in losses),
        pictures=tuple(_picture(predictor, post, i, k) for i in range(len(predictor.images))),
        similarity=_similarity_map(predictor),
        gate=None if gate is None else float(gate[0]),
        guidance=None if found is None else (float(found.gate[0]), float(found.elements[0])),
    )


def _picture(predictor: MaskedPredictor, post: Post, i: int, k: int) -> result.ImageAttribution:
    files, frame, seen = predictor.content.files, None, ""
    if files.count(file := files[i]) > 1:
        frame = i - files.index(file) + 1
        seen = to_data_url(Image.fromarray(predictor.images[i]))
    elif isinstance(shown := post.images[file], Attachment):
        seen = make_thumbnail(shown)
    losses = tuple(region_losses(predictor, i, k).tolist())
    return result.ImageAttribution(str(post.images[file]), frame, seen, GRID, losses)


def _parts(predictor: MaskedPredictor, k: int) -> tuple[tuple[result.PartAttribution, ...], bool]:
    """Return Shapley values of the text, if there is one, and each picture; whether exact."""
    count, texts = len(predictor.images), int(bool(predictor.text))
    pictures = ["picture"] if count == 1 else [f"picture {i + 1}" for i in range(count)]
    names = ["text"] * texts + pictures

    def predict(coalitions: Coalitions) -> Doubles:
        rows = [predictor.keep_parts(bool(x[:texts].any()), x[texts:]) for x in coalitions]
        return predictor.predict_proba(rows)

    values, exact = shapley_values(lambda coalitions: predict(coalitions)[:, k], len(names))
    alone = predict(np.eye(len(names), dtype=bool)).argmax(1)
    labels = [predictor.model.labels[best] for best in alone]
    return tuple(map(result.PartAttribution, names, values.tolist(), labels)), exact


def _similarity_map(predictor: MaskedPredictor) -> result.SimilarityMap | None:
    """Return P^e of SG-MFT in the tokens view, else cosines in a shared space, else None."""
    if not predictor.text or not predictor.images:
        return None
    words = split_words(predictor.text, SEGMENTED)
    values = _element_guidance(predictor, words)
    kind: Literal["P^e", "cosine"] = "P^e"
    info = predictor.model.encoder.info
    if values is None and info.shared_space and info.has_tokens:
        values, kind = _cosines(predictor, words), "cosine"
    if values is None:
        return None
    rows = [i for i in range(len(values)) if is_word(words[i])]
    grid = math.isqrt(values.shape[1] // len(predictor.images))
    shown = tuple(tuple(map(float, values[i])) for i in rows)
    return result.SimilarityMap(kind, tuple(words[i] for i in rows), grid, shown)


def _element_guidance(predictor: MaskedPredictor, words: Sequence[str]) -> Floats | None:
    """Return P^e (n, m), a row for each word that the encoder read; None if that is not known."""
    network: Any = predictor.model.network
    batch = predictor.features([predictor.whole]).batch()
    if not hasattr(network, "element_map") or batch.text_tokens is None:
        return None
    if (found := network.element_map(batch.to(next(network.parameters()).device))) is None:
        return None
    rows = found[0].float().cpu().numpy()  # (tokens, m)
    alone = predictor.model.encoder.encode_texts(words, True).tokens
    ends = np.cumsum([0, *(len(tokens) for tokens in alone or ())])
    read = int(np.searchsorted(ends, len(rows), "right")) - 1  # a long text is read in part
    if read < len(words) and ends[-1] < len(rows):
        return None
    return np.stack([rows[a:b].mean(0) for a, b in pairwise(ends[: read + 1])])


def _cosines(predictor: MaskedPredictor, words: Sequence[str]) -> Floats:
    """Return cosines (n, m) of each word, encoded alone, and each region."""
    encoder = predictor.model.encoder
    images = PreparedPost("", "", predictor.images)
    regions = encode_prepared([images], encoder, True, {})[images.key].regions
    text = encoder.encode_texts(words, False).pooled
    return np.asarray(normalize(text) @ normalize(np.asarray(regions, np.float32)).T)


def word_losses(predictor: MaskedPredictor, words: Sequence[Word], label: int) -> Doubles:
    """Return what the probability loses when a word is deleted, the rest staying: (n,)."""
    texts = [without(predictor.text, words, kept) for kept in _all_and_all_but_one(len(words))]
    return _losses(predictor, predictor.replace_text(texts), label)


def region_losses(predictor: MaskedPredictor, number: int, label: int) -> Doubles:
    """Return what it loses when a region of picture `number` is blanked: (GRID²,), row by row."""
    picture, coalitions = Image.fromarray(predictor.images[number]), _all_and_all_but_one(GRID**2)
    if not predictor.model.encoder.info.image_size:
        picture.thumbnail((SHOWN, SHOWN))
    changed = [blank_regions(np.asarray(picture), kept) for kept in coalitions]
    return _losses(predictor, predictor.replace_image(number, changed), label)


def _all_and_all_but_one(players: int) -> Coalitions:
    return np.concatenate([np.ones((1, players), bool), ~np.eye(players, dtype=bool)])


def _losses(predictor: MaskedPredictor, rows: Sequence[PostFeatures], label: int) -> Doubles:
    values = predictor.predict_proba(rows)[:, label]
    return np.asarray(values[0] - values[1:])


def shapley_values(
    game: Game, players: int, budget: int = MOST_EXACT, seed: int = 0
) -> tuple[Doubles, bool]:
    """Return the values of n players, and whether they are exact: not with a small `budget`."""
    if 2**players <= budget:
        return _exact_values(game, players), True
    return _sampled_values(game, players, max(2, (budget - 2) // players), seed), False


def blank_regions(image: Pixels, kept: Flags) -> Pixels:
    """Return an image (h, w, 3) with its mean colour in those g x g regions that are not `kept`."""
    side = round(len(kept) ** 0.5)
    edges = (np.linspace(0, n, side + 1).round().astype(int) for n in image.shape[:2])
    rows, columns = map(np.diff, edges)  # pixels of each region
    shown = kept.reshape(side, side).repeat(rows, 0).repeat(columns, 1)
    return np.where(shown[..., None], image, image.reshape(-1, 3).mean(0).round().astype(np.uint8))


def _exact_values(game: Game, players: int) -> Doubles:
    """phi_i = sum over S without i of (v(S + i) - v(S)) / (n (n - 1 over |S|))."""
    codes = np.arange(2**players)
    members = (codes[:, None] >> np.arange(players) & 1).astype(bool)
    values, sizes = game(members), members.sum(1)
    weights = np.array([1 / (players * math.comb(players - 1, k)) for k in range(players)])
    absent = [codes[~joined] for joined in members.T]  # the coalitions S without each player
    gains = [values[S | 1 << i] - values[S] for i, S in enumerate(absent)]
    return np.array([weights[sizes[S]] @ gain for S, gain in zip(absent, gains, strict=True)])


def _sampled_values(game: Game, players: int, orders: int, seed: int) -> Doubles:
    """The mean gain over random orders of joining (Castro et al. 2009)."""
    rng = np.random.default_rng(seed)
    place = np.stack([rng.permutation(players) for _ in range(orders)])  # of each player in it
    joined = place[:, None] < np.arange(1, players)[:, None]  # (orders, n - 1, n)
    ends = np.repeat([[False], [True]], players, axis=1)
    nobody, all_of_them, *values = game(np.concatenate([ends, joined.reshape(-1, players)]))
    gains = np.diff(np.reshape(values, (orders, -1)), prepend=nobody, append=all_of_them)
    return np.asarray(np.take_along_axis(gains, place, axis=1).mean(0))


def find_words(original: str, cleaned: str, most: int) -> list[Word]:
    """Return a text's words, but no marks; of more than `most`, neighbours are taken together."""
    if not cleaned:
        return []
    inside, at = [], 0
    for word in split_words(cleaned, SEGMENTED):
        if (start := cleaned.find(word, at)) >= 0:
            at = start + len(word)
            inside += [(start, at)] if is_word(word) else []
    inside = inside or [(0, len(cleaned))]
    per_word = -(-len(inside) // most)
    groups = [inside[i : i + per_word] for i in range(0, len(inside), per_word)]
    bounds = [0, *(group[0][0] for group in groups[1:]), len(cleaned)]
    place = _places(original, cleaned)
    found = []
    for group, (start, end) in zip(groups, pairwise(bounds), strict=True):
        first, last = group[0][0], group[-1][1]
        places = [place[i] for i in range(first, last) if i in place]
        shown = (min(places), max(places) + 1) if places else (0, 0)
        found.append(Word(cleaned[first:last], start, end, shown))
    return found


def without(cleaned: str, found: Sequence[Word], kept: Flags) -> str:
    """Return the cleaned text with the words that are `kept` (n,); a space where others were."""
    pairs = zip(found, kept, strict=True)
    pieces = (cleaned[word.start : word.end] if stays else " " for word, stays in pairs)
    return " ".join("".join(pieces).split())


def is_word(piece: str) -> bool:
    """Return whether there is a letter, a digit or an emoji in it."""
    return any(kind[0] in "LN" or kind == "So" for kind in map(unicodedata.category, piece))


def _places(original: str, cleaned: str) -> dict[int, int]:
    """Map positions in the cleaned text to the original's, by Ratcliff & Metzener (1988)."""
    read = enumerate(map(simplify, original))
    normal = [(x, i) for i, character in read for x in unicodedata.normalize("NFKC", character)]
    plain = zip(map(simplify, cleaned), range(len(cleaned)), strict=True)
    source, target = ([(c, i) for c, i in text if not c.isspace()] for text in (normal, plain))
    matcher = SequenceMatcher(None, [c for c, _ in source], [c for c, _ in target])
    blocks = matcher.get_matching_blocks()
    return {target[x.b + k][1]: source[x.a + k][1] for x in blocks for k in range(x.size)}
