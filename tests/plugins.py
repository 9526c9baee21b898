"""A plugin with an encoder, which is loaded in tests and forgotten after them."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

COUNTS = '''
import numpy as np

from sgmft.features.encoders.base import Encoded, EncoderInfo
from sgmft.features.encoders.registry import ENCODERS


class Counts:
    """64 counts of characters, and 3 mean colours."""

    def __init__(self, cleaning="light", **settings):
        self.info = EncoderInfo("counts", "00000000c0047501", 64, 3, False, None, 32, cleaning)

    def encode_texts(self, texts, tokens):
        rows = [np.bincount([ord(c) % 64 for c in text], minlength=64) for text in texts]
        pooled = np.array(rows, np.float32).reshape(-1, 64)
        return Encoded(pooled, [row[None] for row in pooled] if tokens else None)

    def encode_images(self, pictures, tokens):
        pooled = pictures.mean((1, 2), dtype=np.float32) / 255
        return Encoded(pooled, [row[None] for row in pooled] if tokens else None)


ENCODERS["counts"] = Counts
'''


@pytest.fixture
def counts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin's file, loaded."""
    from sgmft.features.encoders.registry import ENCODERS, PLUGINS
    from sgmft.models import registry

    path = tmp_path_factory.mktemp("plugin") / "counts.py"
    path.write_text(COUNTS)
    loaded = list(registry.LOADED)
    with mock.patch.dict(ENCODERS), mock.patch.dict(PLUGINS):
        registry.load_plugin(path)
        yield path
    registry.LOADED[:] = loaded
