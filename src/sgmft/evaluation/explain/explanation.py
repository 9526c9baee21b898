"""Why a model gives one post a label, as numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sgmft.data.posts import Post
from sgmft.utils.files import nan_to_none


@dataclass(frozen=True)
class PartAttribution:
    """The text or a picture."""

    name: str  # "text", "picture", or "picture 1", "picture 2", ... where there are several.
    contribution: float  # to the label's probability; a Shapley value
    alone: str  # the label that the model gives to this part on its own


@dataclass(frozen=True)
class WordAttribution:
    """A word, or words in a row where a text is long."""

    text: str  # as the encoder reads it
    start: int  # where it stands in the text as its author wrote it
    end: int  # equal to `start` where it is not found
    contribution: float  # what the label's probability loses when the word is deleted


@dataclass(frozen=True)
class ImageAttribution:
    """The regions of one picture."""

    file: str  # its path as the post has it, or its name where it is in memory
    frame: int | None  # which picture of a video or animation it is, from 1; None for a still
    # a frame as the model sees it, or a still that is in memory, as a `data:` address; "" for a
    # still that `file` shows; not in `to_dict`
    seen: str = field(repr=False)
    grid: int  # g; the picture is cut into g by g regions
    # (g²,) what the label's probability loses with a region in the picture's mean colour, by rows
    contributions: tuple[float, ...]


@dataclass(frozen=True)
class SimilarityMap:
    """How similar the model finds words and picture regions.

    P^e is the network's own guidance (equations 2, 4 and 5; each guided element's values sum to
    1); cosines are of features in the encoder's shared space.
    """

    kind: Literal["P^e", "cosine"]
    words: tuple[str, ...]  # n of them
    grid: int  # each picture has grid² regions
    values: tuple[tuple[float, ...], ...]  # n rows of m numbers, picture after picture


@dataclass(frozen=True)
class Explanation:
    """Why the model gives `label` its probability."""

    post: Post  # what was explained
    label: str  # the label explained
    predicted: str  # the most probable label
    probabilities: Mapping[str, float]  # by label, as `SemanticLocator.predict_proba` gives them
    # the label's probability for a post with neither text nor picture; for the default method its
    # frequency among the training posts, to the power of 1/T of the calibration
    base: float
    parts: tuple[PartAttribution, ...]  # contributions sum to the label's probability less `base`
    exact: bool  # whether the contributions of the parts are exact, or sampled (over ten parts)
    words: tuple[WordAttribution, ...]  # at most 64; in a longer text, some in a row are together
    pictures: tuple[ImageAttribution, ...]  # one for each picture
    similarity: SimilarityMap | None  # None where the model has none between words and regions
    gate: float | None  # P^m, the text's weight against the picture's; None where there is none
    # entropies of P^m and P^e relative to their largest values, 1 meaning that they are uniform;
    # NaN or None where there is no such guidance
    guidance: tuple[float, float] | None

    @property
    def probability(self) -> float:
        """Probability of the explained label."""
        return self.probabilities[self.label]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, the same after a round trip; None in place of NaN."""
        found = asdict(self)
        post = {name: getattr(self.post, name) for name in ("id", "place", "text")}
        post |= {"images": list(map(str, self.post.images)), "warnings": list(self.post.warnings)}
        found |= {"post": post, "probabilities": dict(self.probabilities)}
        for picture in found["pictures"]:
            del picture["seen"]
        return dict(nan_to_none(found))
