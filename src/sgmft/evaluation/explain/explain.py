"""Explain one post: everything that this package finds out about it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sgmft.data.posts import Attachment, Post
from sgmft.data.preprocessing.media import make_thumbnail, to_data_url
from sgmft.data.preprocessing.text import split_words
from sgmft.evaluation.explain import attribution
from sgmft.evaluation.explain.attribution import ExplainedModel, MaskedPredictor, check_label
from sgmft.evaluation.explain.explanation import (
    Explanation,
    ImageAttribution,
    PartAttribution,
    SimilarityMap,
    WordAttribution,
)
from sgmft.evaluation.explain.words import SEGMENTED, find_words, is_word
from sgmft.models.base import ClosedFormModel


def explain_post(post: Post, model: ExplainedModel, label: str | None = None) -> Explanation:
    """Attribute the probability of a label, by default the most probable, to parts of a post.

    The contributions of text and pictures are Shapley values; those of words and regions what the
    probability loses without them. Deterministic. Encodes up to 64 changed texts, and 16 changed
    pictures for each picture.

    Raises:
        SgmftError: the post has an error or nothing to go on, or the model has no such label.
    """
    labels = list(model.labels)
    check_label(label, labels)
    predictor = MaskedPredictor(post, model)
    post = replace(post, warnings=(*post.warnings, *predictor.warnings))
    probs = predictor.predict_proba([predictor.whole])[0]
    predicted = labels[int(probs.argmax())]
    label = predicted if label is None else label
    k = labels.index(label)
    shares = attribution.part_values(predictor, k)
    words = find_words(post.text, predictor.text, attribution.MOST_WORDS)
    word_losses = attribution.word_losses(predictor, words, k).tolist()
    gate, guidance = _guidance(predictor)
    return Explanation(
        post=post,
        label=label,
        predicted=predicted,
        probabilities=dict(zip(labels, probs.tolist(), strict=True)),
        base=float(predictor.predict_proba([predictor.keep_parts(False, [])])[0, k]),
        parts=_parts(predictor, shares.values.tolist()),
        exact=shares.exact,
        words=tuple(
            WordAttribution(word.text, *word.shown, loss)
            for word, loss in zip(words, word_losses, strict=True)
        ),
        pictures=tuple(_picture(predictor, post, i, k) for i in range(len(predictor.images))),
        similarity=similarity_map(predictor),
        gate=gate,
        guidance=guidance,
    )


def _picture(predictor: MaskedPredictor, post: Post, number: int, k: int) -> ImageAttribution:
    """Attribute the probability of class k to the regions of picture `number`."""
    file = predictor.files[number]
    frame, seen = None, ""
    if predictor.files.count(file) > 1:
        frame = number - predictor.files.index(file) + 1
        seen = to_data_url(Image.fromarray(predictor.images[number]))
    elif isinstance(shown := post.images[file], Attachment):
        seen = make_thumbnail(shown)
    losses = tuple(attribution.region_losses(predictor, number, k).tolist())
    return ImageAttribution(str(post.images[file]), frame, seen, attribution.GRID, losses)


def _parts(predictor: MaskedPredictor, shares: list[float]) -> tuple[PartAttribution, ...]:
    """Return names, contributions, and the label that each part gets alone."""
    count = len(predictor.images)
    pictures = ["picture"] if count == 1 else [f"picture {i + 1}" for i in range(count)]
    names = ["text"] * bool(predictor.text) + pictures
    rows = [predictor.keep_parts(x == "text", [x == other for other in pictures]) for x in names]
    alone = predictor.predict_proba(rows).argmax(1).tolist()
    labels = predictor.model.labels
    return tuple(
        PartAttribution(name, share, labels[best])
        for name, share, best in zip(names, shares, alone, strict=True)
    )


def _guidance(predictor: MaskedPredictor) -> tuple[float | None, tuple[float, float] | None]:
    """Return P^m as the text's weight, and the entropies of P^m and P^e."""
    network = predictor.model.network
    output = network.predict(predictor.features([predictor.whole]).batch(None, network.uses_ngrams))
    gate, guidance = (output.parts or {}).get("gate"), output.guidance
    return (
        None if gate is None else float(gate[0]),
        None if guidance is None else (float(guidance.gate[0]), float(guidance.elements[0])),
    )


def similarity_map(predictor: MaskedPredictor) -> SimilarityMap | None:
    """Return P^e of SG-MFT in the tokens view, else cosines in a shared space, else None.

    None also for a post without text or without pictures.
    """
    if not predictor.text or not predictor.images:
        return None
    read_words = split_words(predictor.text, SEGMENTED)
    values = _element_guidance(predictor, read_words)
    kind: Literal["P^e", "cosine"] = "P^e"
    if values is None and predictor.model.encoder.info.shared_space:
        values, kind = _cosines(predictor, read_words), "cosine"
    if values is None:
        return None
    rows = [i for i in range(len(values)) if is_word(read_words[i])]
    return SimilarityMap(
        kind,
        tuple(read_words[i] for i in rows),
        math.isqrt(values.shape[1] // len(predictor.images)),
        tuple(tuple(map(float, values[i])) for i in rows),
    )


def _element_guidance(
    predictor: MaskedPredictor, read_words: Sequence[str]
) -> NDArray[np.float32] | None:
    """Return P^e (n, m) with a row for each word that the encoder read, the mean over its tokens.

    None where the network has none, or tokens cannot be assigned to words.
    """
    network = predictor.model.network
    if isinstance(network, ClosedFormModel):
        return None
    from sgmft.models.sgmft import SGMFT  # torch, which not every installation has

    if not isinstance(network, SGMFT):
        return None
    batch = predictor.features([predictor.whole]).batch()
    device = next(network.parameters()).device
    found = network.element_map(batch.to(device)) if batch.text_tokens is not None else None
    if found is None:
        return None
    rows = found[0].float().cpu().numpy()  # (tokens, m)
    alone = predictor.model.encoder.encode_texts(read_words, True).tokens
    ends = np.cumsum([0, *(len(tokens) for tokens in alone or ())])
    read = int(np.searchsorted(ends, len(rows), "right")) - 1  # a long text is read in part
    if read < len(read_words) and ends[-1] < len(rows):
        return None
    return np.stack([rows[a:b].mean(0) for a, b in pairwise(ends[: read + 1])])


def _cosines(predictor: MaskedPredictor, read_words: Sequence[str]) -> NDArray[np.float32]:
    """Return cosines (n, m) of each word, encoded alone, and each region."""
    encoder = predictor.model.encoder
    text = encoder.encode_texts(read_words, False).pooled
    regions = np.concatenate(encoder.encode_images(np.stack(predictor.images), True).tokens or [])
    return np.asarray(_unit(text) @ _unit(regions).T)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
