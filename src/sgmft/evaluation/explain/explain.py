"""Explain one post: everything that this package finds out about it."""

from __future__ import annotations

import torch
from PIL import Image

from sgmft.data.posts import Attachment, Post
from sgmft.data.preprocessing.thumbnails import make_thumbnail, to_data_url
from sgmft.evaluation.explain import attribution
from sgmft.evaluation.explain.explanation import (
    Explanation,
    ImageAttribution,
    PartAttribution,
    WordAttribution,
)
from sgmft.evaluation.explain.masked_model import ExplainedModel, MaskedPredictor, check_label
from sgmft.evaluation.explain.similarity import similarity_map
from sgmft.evaluation.explain.words import find_words


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
    probs = predictor.predict_proba([predictor.whole])[0]
    predicted = labels[int(probs.argmax())]
    label = predicted if label is None else label
    k = labels.index(label)
    shares = attribution.part_values(predictor, k)
    words = find_words(post.text, predictor.text, attribution.MOST_WORDS)
    word_values = attribution.word_losses(predictor, words, k)
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
            WordAttribution(word.text, *word.shown, float(value))
            for word, value in zip(words, word_values, strict=True)
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
    rows = [
        predictor.keep_parts(name == "text", [name == other for other in pictures])
        for name in names
    ]
    alone = predictor.predict_proba(rows).argmax(1).tolist()
    labels = predictor.model.labels
    return tuple(
        PartAttribution(name, share, labels[best])
        for name, share, best in zip(names, shares, alone, strict=True)
    )


@torch.no_grad()
def _guidance(predictor: MaskedPredictor) -> tuple[float | None, tuple[float, float] | None]:
    """Return P^m as the text's weight, and the entropies of P^m and P^e."""
    network = predictor.model.network
    batch = predictor.features([predictor.whole]).batch(torch.tensor([0]), network.uses_ngrams)
    output = network(batch.to(next(iter(network.state_dict().values())).device))
    gate = (output.parts or {}).get("gate")
    guidance = output.guidance
    return (
        None if gate is None else float(gate[0]),
        None if guidance is None else (float(guidance.gate[0]), float(guidance.elements[0])),
    )
