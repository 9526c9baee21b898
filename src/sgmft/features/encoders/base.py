"""The protocol of encoders, so that a model never knows which one it has, and what they compute."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Images = NDArray[np.uint8]
TABLE = "table:"  # begins the name of a table of vectors, whose path follows
PreparedImage = dict[str, NDArray[Any]]  # a batch of one, by the names that its network knows
IMAGE_OUTPUTS = ("pooled", "regions")  # of an image graph: (N, D), (N, r, D)


class Encoded(NamedTuple):
    """N encoded texts or images."""

    pooled: FloatArray  # (N, D)
    tokens: list[FloatArray] | None  # N arrays (n_i, Dw) of words or regions, if asked for


class PostFeatures(NamedTuple):
    """Features of one post, None where it has none; of tokens float16, finer than their noise."""

    text: FloatArray | None  # (Dt,)
    words: NDArray[np.float16] | None  # (n, Dw)
    images: FloatArray | None  # (k, Dv), one row an image
    regions: NDArray[np.float16] | None  # (k r, Dv), r regions an image, image after image
    ngrams: NDArray[np.int32] | None = None  # (g,), see `sgmft.data.preprocessing.text`
    joint: FloatArray | None = None  # (Dj,), of text and images together; None where one is missing


@dataclass(frozen=True)
class EncoderInfo:
    """Widths, settings and identity of an encoder."""

    name: str  # or folder, by which it was asked for
    fingerprint: str  # 16 hex digits, others whenever its features are; keys the store
    text_width: int  # of pooled features, as the next
    image_width: int
    shared_space: bool = False  # whether a text and an image of the same thing lie close together
    logit_scale: float | None = None  # contrastive temperature of its training; None without one
    image_size: int = 0  # edge in pixels of the square images it takes; 0: takes them as they are
    cleaning: str = "light"  # of the texts (`sgmft.data.preprocessing.text.CLEANINGS`)
    # the same where image features are, so that one may take another's; "" if that is not known
    image_key: str = ""
    # of one word; 0 for `text_width`. A wider text's begins with as many in the words' space
    word_width: int = 0
    texts_apart: bool = False  # whether texts and images can be encoded at the same time
    # digest, the same in every precision; "" where they come inside packages
    weights: str = ""
    has_tokens: bool = True  # whether it has features of words and regions beside the pooled ones
    pinned: str = ""  # name by which exactly this revision is found again; "" for `name`
    remote_code: bool = False  # whether Python files that came with it were run
    joint_width: int = 0  # of the feature of a text and images together; 0 for none

    def __post_init__(self) -> None:
        object.__setattr__(self, "word_width", self.word_width or self.text_width)


class Encoder(Protocol):
    """Turns cleaned texts and images into features; it never sees a label.

    With a `joint_width` it also has `encode_joint(texts, images)`, which encodes N cleaned texts,
    each with its images as `encode_images` takes them, to (N, Dj); zeros count as no feature.
    """

    info: EncoderInfo  # widths, settings and fingerprint

    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode cleaned, non-empty texts; the result is in the order given."""

    def encode_images(self, images: Any, tokens: bool) -> Encoded:
        """Encode RGB images (N, size, size, 3), or N as its `prepare_image` may have made them."""


class TextEncoder(Protocol):
    """The text half of an encoder whose halves are independent of each other; it needs no torch."""

    width: int  # of a text's pooled feature
    word_width: int  # of one word's
    packages: tuple[str, ...]  # whose versions decide the features
    cleaning: str  # name of the text cleaning, which decides which words are segmented
    max_words: int  # bounds a text's tokens

    def encode(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode cleaned, non-empty texts; the result is in the order given."""


class ClassifierHeads(NamedTuple):
    """Heads of G networks side by side, which `class_heads()` of some encoders returns."""

    weight: FloatArray  # (G, C, W); G W is the encoder's `image_width`
    bias: FloatArray  # (G, C)
    names: list[str]  # of the C classes
