"""One post, explained: everything that this package finds out about it."""

from __future__ import annotations

import torch
from PIL import Image

from sgmft.data.posts import Attachment, Post
from sgmft.data.preprocessing.thumbnails import make_thumbnail, to_data_url
from sgmft.evaluation.explain.attribution import (
    GRID,
    MOST_WORDS,
    part_values,
    region_losses,
    word_losses,
)
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
    """What text and pictures, words and regions bring to the probability of a label.

    The contributions of text and pictures are Shapley values; those of words and regions what the
    probability loses without them. Deterministic. Encodes up to 64 changed texts, and 16 changed
    pictures for each picture.

    Args:
        label: the label to explain; None is the most probable one.

    Raises:
        SgmftError: the post has an error or nothing to go on, or the model has no such label.
    """
    labels = list(model.labels)
    check_label(label, labels)
    reader = MaskedPredictor(post, model)
    probs = reader.probabilities([reader.whole])[0]
    predicted = labels[int(probs.argmax())]
    label = predicted if label is None else label
    k = labels.index(label)
    shares = part_values(reader, k)
    words = find_words(post.text, reader.text, MOST_WORDS)
    word_values = word_losses(reader, words, k)
    gate, guidance = _guidance(reader)
    return Explanation(
        post=post,
        label=label,
        predicted=predicted,
        probabilities=dict(zip(labels, probs.tolist(), strict=True)),
        base=float(reader.probabilities([reader.with_parts(False, [])])[0, k]),
        parts=_parts(reader, shares.values.tolist()),
        exact=shares.exact,
        words=tuple(
            WordAttribution(word.text, *word.shown, float(value))
            for word, value in zip(words, word_values, strict=True)
        ),
        pictures=tuple(_picture(reader, post, i, k) for i in range(len(reader.pictures))),
        similarity=similarity_map(reader),
        gate=gate,
        guidance=guidance,
    )


def _picture(reader: MaskedPredictor, post: Post, number: int, k: int) -> ImageAttribution:
    """What the regions of picture `number` bring to class k."""
    file = reader.files[number]
    frame, seen = None, ""
    if reader.files.count(file) > 1:
        frame = number - reader.files.index(file) + 1
        seen = to_data_url(Image.fromarray(reader.pictures[number]))
    elif isinstance(shown := post.images[file], Attachment):
        seen = make_thumbnail(shown)
    losses = tuple(region_losses(reader, number, k).tolist())
    return ImageAttribution(str(post.images[file]), frame, seen, GRID, losses)


def _parts(reader: MaskedPredictor, shares: list[float]) -> tuple[PartAttribution, ...]:
    """Names, contributions, and what each part says alone."""
    count = len(reader.pictures)
    pictures = ["picture"] if count == 1 else [f"picture {i + 1}" for i in range(count)]
    names = ["text"] * bool(reader.text) + pictures
    rows = [
        reader.with_parts(name == "text", [name == other for other in pictures]) for name in names
    ]
    alone = reader.probabilities(rows).argmax(1).tolist()
    labels = reader.model.labels
    return tuple(
        PartAttribution(name, share, labels[best])
        for name, share, best in zip(names, shares, alone, strict=True)
    )


@torch.no_grad()
def _guidance(reader: MaskedPredictor) -> tuple[float | None, tuple[float, float] | None]:
    """P^m as the text's weight, and the entropies of P^m and P^e."""
    network = reader.model.network
    batch = reader.features([reader.whole]).batch(torch.tensor([0]), network.uses_ngrams)
    output = network(batch.to(next(iter(network.state_dict().values())).device))
    gate = (output.parts or {}).get("gate")
    guidance = output.guidance
    return (
        None if gate is None else float(gate[0]),
        None if guidance is None else (float(guidance.gate[0]), float(guidance.elements[0])),
    )
