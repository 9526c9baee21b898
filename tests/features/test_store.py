"""The feature store: exact, readable by others, damage seen, encoders apart."""

import os
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet
import pytest

import sgmft.features.store
from recording_encoder import equal_features
from sgmft.errors import SgmftError
from sgmft.features.encoders.base import EncoderInfo, PostFeatures
from sgmft.features.store import FeatureStore, StoreIndex

INFO = EncoderInfo("fake", "0123456789abcdef", 8, 6, False, None, 32, "light", word_width=5)


def row(seed: int) -> PostFeatures:
    """Features of a post; every third has no text, every third no picture, lengths vary."""
    rng = np.random.default_rng(seed)
    n, k = rng.integers(1, 5, 2)
    has_text, has_image = seed % 3 != 1, seed % 3 != 2
    return PostFeatures(
        rng.normal(size=8).astype(np.float32) if has_text else None,
        rng.normal(size=(n, 5)).astype(np.float16) if has_text else None,
        rng.normal(size=(k, 6)).astype(np.float32) if has_image else None,
        rng.normal(size=(4 * k, 6)).astype(np.float16) if has_image else None,
        rng.integers(0, 2**24, 7 * n, np.int32) if has_text else None,
    )


def rows(*seeds: int) -> dict[str, PostFeatures]:
    return {f"{seed:032x}": row(seed) for seed in seeds}


def shards(store: FeatureStore) -> list[Path]:
    return sorted(store.folder.glob("part-*.parquet"))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path / "features", INFO, tokens=True)
    store.write(rows(*range(12)))
    return store


def reopen(store: FeatureStore) -> FeatureStore:
    return FeatureStore(store.folder.parent, INFO, tokens=True)


def test_round_trip_is_exact_in_any_order(store: FeatureStore) -> None:
    store.write(rows(20, 21))
    for opened in (store, reopen(store)):
        assert len(opened) == 14 and len(shards(opened)) == 2
        wanted = rows(21, 3, 0, 20, 3, 5, 11)
        for key, found in zip(wanted, opened.read(list(wanted)), strict=True):
            assert key in opened and equal_features(found, wanted[key])
        twice = opened.read([f"{3:032x}", f"{3:032x}"])
        assert equal_features(*twice)


def test_special_numbers_come_back(tmp_path: Path) -> None:
    odd = PostFeatures(
        np.array([0.0, -0.0, 1e-45, 3.4e38, np.inf, -np.inf, np.nan, 1 / 3], np.float32),
        np.array([[-0.0, 6e-8, 65504, -np.inf, np.nan], [0.0, 1 / 3, 1, 2, np.inf]], np.float16),
        None,
        None,
        np.array([0, 2**24 - 1, 0, 0, 2**31 - 1, -(2**31)], np.int32),
    )
    store = FeatureStore(tmp_path, INFO, tokens=True)
    nothing = PostFeatures(None, None, None, None, np.zeros(0, np.int32))
    odd_key, nothing_key = "ab" * 16, "0" * 32
    store.write({odd_key: odd, nothing_key: nothing})
    assert all(
        map(equal_features, reopen_in(tmp_path).read([odd_key, nothing_key]), (odd, nothing))
    )


def reopen_in(folder: Path) -> FeatureStore:
    return FeatureStore(folder, INFO, tokens=True)


def test_what_is_read_can_be_changed_and_does_not_change_the_store(store: FeatureStore) -> None:
    key = f"{0:032x}"
    for array in store.read([key])[0][:-1]:
        array[:] = 0
    assert equal_features(store.read([key])[0], row(0))


def test_shards_that_were_asked_for_last_are_read_once(tmp_path: Path, monkeypatch: Any) -> None:
    store = FeatureStore(tmp_path, INFO, tokens=True)
    keys = [f"{i:032x}" for i in range(4)]
    for i, key in enumerate(keys):  # a shard each
        store.write({key: row(3 * i)})
    size = max(table.nbytes for table in map(pyarrow.parquet.read_table, tmp_path.rglob("part-*")))
    monkeypatch.setattr("sgmft.features.store.OPEN_BYTES", 3 * size)
    read = []
    original = sgmft.features.store._read
    monkeypatch.setattr("sgmft.features.store._read", lambda x: read.append(x) or original(x))
    for i in (0, 1, 0, 1, 2, 0):
        assert equal_features(store.read([keys[i]])[0], row(3 * i))
    assert len(read) == 3
    store.read([keys[3]])  # the fourth takes the place of the one longest not asked for
    store.read([keys[0]])
    assert len(read) == 4
    store.read([keys[1]])
    assert len(read) == 5


def test_pooled_only(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, INFO, tokens=False)
    bare = {key: r._replace(words=None, regions=None) for key, r in rows(*range(6)).items()}
    store.write(bare)
    again = FeatureStore(tmp_path, INFO, tokens=False)
    assert all(map(equal_features, again.read(list(bare)), bare.values()))
    assert len(FeatureStore(tmp_path, INFO, tokens=True)) == 0


def test_an_unknown_key_and_an_empty_write(store: FeatureStore) -> None:
    assert f"{99:032x}" not in store
    with pytest.raises(KeyError):
        store.read([f"{99:032x}"])
    store.write({})
    assert len(shards(store)) == 1 and store.read([]) == []


def test_pandas_reads_shards_as_they_are(store: FeatureStore) -> None:
    store.write(rows(12))
    for table in (pd.concat(map(pd.read_parquet, shards(store))), pd.read_parquet(store.folder)):
        table = table.set_index("key")
        assert len(table) == 13
        for key, expected in rows(*range(13)).items():
            for name in PostFeatures._fields[:-1]:  # without a joint one
                cell, wanted = table.at[key, name], getattr(expected, name)
                if wanted is None:
                    assert cell is None
                else:
                    found = np.stack(list(cell)) if wanted.ndim == 2 else cell
                    np.testing.assert_array_equal(found, wanted)
                    assert found.dtype == wanted.dtype


def test_pyarrow_reads_the_folder_as_one_table(store: FeatureStore) -> None:
    store.write(rows(12))
    table = pyarrow.dataset.dataset(store.folder).to_table()
    assert table.num_rows == 13 and table.column_names == ["key", *PostFeatures._fields[:-1]]
    first = pyarrow.parquet.read_table(shards(store)[0])
    assert first.column_names == table.column_names


def test_duckdb_reads_shards_as_they_are(store: FeatureStore) -> None:
    store.write(rows(12))
    query = f"select * from read_parquet('{store.folder}/*.parquet') order by key"
    found = duckdb.sql(query).fetchall()
    assert len(found) == 13
    for (key, *cells), (wanted_key, expected) in zip(found, rows(*range(13)).items(), strict=True):
        assert key == wanted_key
        for cell, wanted in zip(cells, expected[:-1], strict=True):
            if wanted is None:
                assert cell is None
            else:
                np.testing.assert_array_equal(np.array(cell, wanted.dtype), wanted)
    norm = f"select list_sum([x * x for x in words[1]]) from ({query}) where key = '{0:032x}'"
    wanted = float((row(0).words[0].astype(float) ** 2).sum())
    assert duckdb.sql(norm).fetchall()[0][0] == pytest.approx(wanted, rel=1e-5)


def test_two_encoders_never_mix(store: FeatureStore) -> None:
    folder = store.folder.parent
    other = FeatureStore(folder, replace(INFO, fingerprint="f" * 16), tokens=True)
    key = f"{0:032x}"
    assert len(other) == 0 and key not in other
    other.write({key: row(3)})
    assert equal_features(other.read([key])[0], row(3)) and equal_features(
        reopen(store).read([key])[0], row(0)
    )


@pytest.mark.parametrize("kind", ["tokens", "tokens-2"])
def test_a_store_of_an_earlier_format_is_not_read(tmp_path: Path, kind: str) -> None:
    """The first had no n-grams; in the second, posts may have been cleaned wrongly."""
    new = FeatureStore(tmp_path, INFO, tokens=True)
    old = tmp_path / f"{INFO.fingerprint}-{kind}"
    assert new.folder != old
    new.write(rows(0))
    new.folder.rename(old)
    again = FeatureStore(tmp_path, INFO, tokens=True)
    assert len(again) == 0 and again.folder != old and list(old.glob("part-*.parquet"))


def test_leftovers_of_killed_processes_are_no_shards(store: FeatureStore) -> None:
    (shard,) = shards(store)
    fresh, stale = (store.folder / f".{shard.name}.{pid}.tmp" for pid in (111, 222))
    for leftover in (fresh, stale):
        leftover.write_bytes(shard.read_bytes()[:500])
    days_ago = time.time() - 3 * 86_400
    os.utime(stale, (days_ago, days_ago))
    wanted = rows(*range(12))
    assert all(map(equal_features, reopen(store).read(list(wanted)), wanted.values()))
    assert len(pd.read_parquet(store.folder)) == 12
    assert fresh.exists(), "another process may be writing it"
    assert not stale.exists()


def test_nothing_is_left_behind(store: FeatureStore) -> None:
    assert {path.name for path in store.folder.iterdir()} == {
        "_encoder.json",
        *(shard.name for shard in shards(store)),
    }


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SgmftError, match=r"file.*--features"):
        FeatureStore(tmp_path / "file", INFO, tokens=True)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_a_read_only_folder() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = FeatureStore(folder, INFO, tokens=True)
        user = os.geteuid()
        for path in (store.folder, folder):
            path.chmod(0o555)
        try:
            if user == 0:
                os.seteuid(65534)  # permissions do not bind root
            assert len(FeatureStore(folder, INFO, tokens=True)) == 0  # what is there can be read
            with pytest.raises(SgmftError, match=r"cannot be written.*--features"):
                FeatureStore(folder, INFO, tokens=False)
            with pytest.raises(SgmftError, match=r"part-\w+\.parquet cannot be written"):
                store.write(rows(0))
        finally:
            os.seteuid(user)
            for path in (folder, store.folder):
                path.chmod(0o755)
        assert not shards(store)


# --- its index, against a dictionary


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
    assert index.find(drawn) == known
    assert [key in index for key in drawn] == [key in known for key in drawn]


def test_a_shard_that_is_forgotten_can_come_back():
    index = StoreIndex()
    a, b, c, d = (letter * 32 for letter in "abcd")
    index.add([a, b], 0)
    index.add([c], 1)
    index.forget(0)
    assert len(index) == 1 and a not in index and c in index
    index.add([b, a], 2)
    assert index.find([a, b, c, d]) == {a: (2, 1), b: (2, 0), c: (1, 0)}
    index.forget(1)
    index.forget(2)
    assert len(index) == 0 and a not in index and index.find([]) == {}


@pytest.mark.parametrize("key", ["ab" * 8, "ab" * 17, "xy" * 16, "ab " * 16, "", "\ud800" * 32])
def test_what_is_no_key_is_refused(key):
    index = StoreIndex()
    with pytest.raises(ValueError):
        index.add(["ab" * 16, key], 0)
    assert len(index) == 0


def test_what_does_not_fit_into_memory_is_on_disk(monkeypatch):
    monkeypatch.setattr("sgmft.features.store.INDEX_BYTES", 64 << 10)
    index, rng = StoreIndex(), np.random.default_rng(0)
    keys = [rng.bytes(16).hex() for _ in range(20_000)]  # about a megabyte
    before = len(list(Path("/proc/self/fd").iterdir()))
    index.add(keys, 0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    assert index.find(keys[::99]) == {key: (0, row * 99) for row, key in enumerate(keys[::99])}
