"""Zero-shot use: labels that are described in words, and standardisation by unlabelled posts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sgmft.data.preprocessing.text import clean_text, get_cleaning
from sgmft.errors import TEXTS, SgmftError
from sgmft.features.encoders.base import ClassifierHeads, Encoder, FloatArray
from sgmft.features.encoders.image_encoder import imagenet_names
from sgmft.models.arrays import normalize
from sgmft.models.baselines.zero_shot import Described, DescribedConfig


def parse_descriptions(words: str, flag: str = "--zero-shot") -> dict[str, list[str]]:
    """Parse labels and their descriptions from `LABEL=DESCRIPTION|DESCRIPTION;LABEL=...`.

    A label without "=" describes itself. The wide forms ；＝｜ of the marks serve as well.
    """
    found: dict[str, list[str]] = {}
    for part in words.translate(str.maketrans("；＝｜", ";=|")).split(";"):
        if not part.strip():
            continue
        label, equals, rest = (piece.strip() for piece in part.partition("="))
        descriptions = [text for piece in rest.split("|") if (text := piece.strip())]
        if not label or (equals and not descriptions):
            raise SgmftError(TEXTS["bad description"], flag=flag, part=part.strip())
        if label in found:
            raise SgmftError(f"{flag} names {label!r} twice: put | between its descriptions.")
        found[label] = descriptions or [label]
    return found


def describe(encoder: Encoder, descriptions: Mapping[str, Sequence[str]]) -> Described:
    """Return the network that knows labels by their descriptions alone, two or more, in order."""
    if len(descriptions) < 2:
        raise SgmftError(TEXTS["few descriptions"], count=len(descriptions))
    info = encoder.info
    widths = info.text_width, info.image_width, info.shared_space, info.word_width
    config = DescribedConfig(len(descriptions), *widths)
    heads: ClassifierHeads | None = getattr(encoder, "class_heads", lambda: None)()
    if heads is not None:
        config = replace(config, heads=len(heads.weight), picture_classes=len(heads.names))
    network = Described(config)
    network.prompts = np.stack([_prompt(encoder, *pair) for pair in descriptions.items()])
    vectors = _encode(encoder, imagenet_names() if heads is None else heads.names)
    if heads is not None:
        network.names, network.weight, network.bias = vectors, heads.weight, heads.bias
    network.refer(vectors)
    return network


def _prompt(encoder: Encoder, label: str, texts: Sequence[str]) -> FloatArray:
    """Return the mean direction of a label's descriptions, a unit vector (Dw)."""
    cleaning = get_cleaning(encoder.info.cleaning)
    cleaned = [words for text in texts if (words := clean_text(text, cleaning))]
    if isinstance(texts, str) or not cleaned:
        raise SgmftError(TEXTS["no description"], label=label)
    return np.asarray(normalize(_encode(encoder, cleaned).mean(0)))


def _encode(encoder: Encoder, texts: Sequence[str]) -> FloatArray:
    """Encode texts as unit vectors (N, Dw)."""
    pooled = encoder.encode_texts(texts, False).pooled
    return np.asarray(normalize(pooled[:, : encoder.info.word_width]))
