"""The index of a feature store against a dictionary."""

from __future__ import annotations

import random

import numpy as np

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
    index.add(["a", "b"], 0)
    index.add(["c"], 1)
    index.forget(0)
    assert len(index) == 1 and "a" not in index and "c" in index
    index.add(["b", "a"], 2)
    assert [x.tolist() for x in index.find(["a", "b", "c", "d"])] == [[2, 2, 1, -1], [1, 0, 0, -1]]
    index.forget(1)
    index.forget(2)
    assert len(index) == 0 and "a" not in index and index.find([])[0].shape == (0,)


def test_keys_of_any_kind_are_apart():
    keys = ["ab" * 16, "AB" * 16, "ab" * 8, "a b" * 16, "ab " * 16, "", "é", "\ud800", "0" * 32]
    index = StoreIndex()
    index.add(keys, 7)
    assert len(index) == len(keys)
    assert index.find(keys)[1].tolist() == list(range(len(keys)))


def test_it_takes_little_memory():
    rng = np.random.default_rng(0)
    index = StoreIndex()
    for shard in range(16):
        index.add([rng.bytes(16).hex() for _ in range(256)], shard)
    parts = index._parts
    assert sum(column.nbytes for part in parts for column in part) == 24 * 16 * 256
    assert len(parts) < 6
