"""The posts of a comparison, split once, and their features, as every worker finds them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Features
from sgmft.features.store import FeatureStore
from sgmft.utils.checksums import short_digest
from sgmft.utils.files import write_json


@dataclass(frozen=True)
class EncodedSetting:
    """Where the features of one encoder setting are.

    Attributes:
        info: the encoder's `EncoderInfo`, as a mapping.
        tokens: whether the store holds word and region features.
        prompts: method -> label -> (Dt,) its encoded prompts, for methods that ask for them.
    """

    info: dict[str, Any]
    tokens: bool
    prompts: dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class ComparisonData:
    """The posts of a comparison, as workers read them from `data.json`.

    Attributes:
        labels: K names.
        keys: content key of each of N posts.
        classes: class of each.
        test: whether each is a test post.
        held_out: positions of the validation posts among all posts; none is a test post.
        places: where each post stands in its table, and its id.
        groups: column -> value of each post.
        store: folder of the feature store.
        encoded: by `sgmft.evaluation.compare.prepare.EncoderSetting.key`.
        read: how many posts the table has.
        left_out: why posts could not be used, and how many.
    """

    labels: list[str]
    keys: list[str]
    classes: list[int]
    test: list[bool]
    held_out: list[int]
    places: list[tuple[str, str]]
    groups: dict[str, list[str]]
    store: str
    encoded: dict[str, EncodedSetting]
    read: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any post, label, or side of the split, and with their order.

        Predictions are kept without the posts that they are of, one after the other.
        """
        rows = [self.labels, self.keys, self.classes, self.test, self.held_out]
        return short_digest(json.dumps(rows).encode())

    def features(self, key: str) -> Features:
        """All posts' features under one encoder setting."""
        encoded = self.encoded[key]
        info = EncoderInfo(**encoded.info)
        rows = FeatureStore(self.store, info, encoded.tokens).read(self.keys)
        return Features.of(rows, info, encoded.tokens)

    def save(self, path: Path) -> None:
        """Write `data.json`, whole or not at all."""
        write_json(path, asdict(self))


@lru_cache(maxsize=1)
def load_data(path: Path) -> ComparisonData:
    """What `Data.save` wrote."""
    values = json.loads(path.read_text("utf-8"))
    encoded = {key: EncodedSetting(**value) for key, value in values.pop("encoded").items()}
    places = [(place, name) for place, name in values.pop("places")]
    return ComparisonData(**values, encoded=encoded, places=places)


@lru_cache(maxsize=2)
def load_features(path: Path, key: str) -> Features:
    """Features under one encoder setting, kept in memory for the next cell."""
    return load_data(path).features(key)
