"""The index of a feature store against a dictionary."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sgmft.features.store import StoreIndex


def test_it_finds_what_a_dictionary_finds():
    rng = random.Random(0)
    index, known = StoreIndex(), {}
    drawn = [f"{rng.getrandbits(128):032x}" for _ in range(3000)]
    drawn += ["0" * 32, "0" * 30 + "01", "01" + "0" * 30, "f" * 32]  # numpy drops final zeros
    for shard in range(40):
        keys = rng.choices(drawn, k=rng.randrange(60))  # some twice, some of earlier shards
        index.add(keys, shard)
        for row, key in enumerate(keys):
            known.setdefault(key, (shard, row))
    assert len(index) == len(known)
    shards, rows = index.find(drawn)
    found = list(zip(shards.tolist(), rows.tolist(), strict=True))
    assert found == [known.get(key, (-1, -1)) for key in drawn]
    assert [key in index for key in drawn] == [key in known for key in drawn]


def test_a_shard_that_is_forgotten_can_come_back():
    index = StoreIndex()
    a, b, c, d = (letter * 32 for letter in "abcd")
    index.add([a, b], 0)
    index.add([c], 1)
    index.forget(0)
    assert len(index) == 1 and a not in index and c in index
    index.add([b, a], 2)
    assert [x.tolist() for x in index.find([a, b, c, d])] == [[2, 2, 1, -1], [1, 0, 0, -1]]
    index.forget(1)
    index.forget(2)
    assert len(index) == 0 and a not in index and index.find([])[0].shape == (0,)


@pytest.mark.parametrize("key", ["ab" * 8, "ab" * 17, "xy" * 16, "ab " * 16, "", "\ud800" * 32])
def test_what_is_no_key_is_refused(key):
    index = StoreIndex()
    with pytest.raises(ValueError):
        index.add(["ab" * 16, key], 0)
    assert len(index) == 0


def test_it_takes_little_memory():
    rng = np.random.default_rng(0)
    index = StoreIndex()
    for shard in range(16):
        index.add([rng.bytes(16).hex() for _ in range(256)], shard)
    runs = index._runs
    assert sum(column.nbytes for run in runs for column in run) == 24 * 16 * 256
    assert len(runs) < 6
