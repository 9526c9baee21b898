"""Features in files that are mapped into memory: the same as in memory, whole, and gone after."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sgmft.errors import SgmftError, SgmftWarning
from sgmft.features.encoders.base import PostFeatures
from sgmft.features.features import Features, LabelledFeatures
from sgmft.features.ragged import Ragged
from sgmft.features.store import MAPPED_CHUNK, UNUSED, FeatureStore, MappedFeatures
from sgmft.training.trainer import train
from small_networks import FAST, SMALL, equal_weights, history_text, make_network, weights_of
from synthetic_features import INFO


def made(seed: int) -> PostFeatures:
    """A post of 0 to 3 words and 0 to 2 pictures; some have no text."""
    rng = np.random.default_rng(seed)
    words, pictures = seed % 5 - 1, seed % 3
    return PostFeatures(
        rng.normal(size=12).astype(np.float32) if words >= 0 else None,
        rng.normal(size=(words, 12)).astype(np.float16) if words >= 0 else None,
        rng.normal(size=(pictures, 10)).astype(np.float32) if pictures else None,
        rng.normal(size=(4 * pictures, 10)).astype(np.float16) if pictures else None,
        rng.integers(0, 99, 2 * words, np.int32) if words >= 0 else None,
    )


POSTS = {f"{i * 7919 % 10007:032x}": made(i) for i in range(MAPPED_CHUNK + 40)}


@pytest.fixture(params=[True, False], ids=["tokens", "pooled"])
def store(request, tmp_path) -> FeatureStore:
    """The posts in shards of 50, which know nothing of any order."""
    store = FeatureStore(tmp_path, INFO, tokens=request.param)
    keys = list(POSTS)
    for first in range(0, len(keys), 50):
        rows = {key: POSTS[key] for key in keys[first : first + 50]}
        if not store.tokens:
            rows = {key: row._replace(words=None, regions=None) for key, row in rows.items()}
        store.write(rows)
    return store


def chosen() -> list[str]:
    """Keys in an order of their own, one of them twice, some not at all."""
    keys = list(POSTS)
    np.random.default_rng(1).shuffle(keys)
    return [*keys[:280], keys[3]]


def equal(one: Features, other: Features) -> bool:
    """Whether every batch of both is the same to the last bit."""
    assert len(one) == len(other)
    order = np.random.default_rng(2).permutation(len(one))
    rows = [None, order[:0], *(order[i : i + 50] for i in range(0, len(one), 50))]
    for some in rows:
        for a, b in zip(one.batch(some, True), other.batch(some, True), strict=True):
            if not (a is b is None or (a.dtype == b.dtype and np.array_equal(a, b))):
                return False
    pairs = zip(one.contents(), other.contents(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs) and all(
        np.array_equal(np.concatenate([*a.split(70)]), np.concatenate([*b.split(70)]))
        for a, b in ((one.texts, other.texts), (one.images, other.images))
    )


@pytest.mark.parametrize("keys", [chosen(), sorted(POSTS), list(POSTS), list(POSTS)[:1], []])
def test_they_are_the_features_in_memory(store, keys):
    found = MappedFeatures(store, keys).features()
    expected = Features.of(store.read(keys), INFO, store.tokens)
    assert equal(found, expected)
    assert found.regions_per_image == (4 * store.tokens if len(keys) > 1 else 0)
    some = np.random.default_rng(3).permutation(len(keys))[: len(keys) // 2]
    assert equal(found.take(some), expected.take(some))
    assert equal(found.take(some).take(some.argsort()), expected.take(some[some.argsort()]))


def test_choosing_posts_copies_no_values(store):
    found = MappedFeatures(store, chosen()).features()
    taken = found.take(np.arange(200)[::-1]).take(np.arange(100))
    for field in fields(Features):
        before, after = getattr(found, field.name), getattr(taken, field.name)
        if isinstance(before, Ragged):
            before, after = before.values, after.values
        if field.name in ("text", "image", "words", "regions", "ngrams") and before is not None:
            assert after.ctypes.data == before.ctypes.data


def test_a_training_on_them_reaches_the_same_weights(store):
    if not store.tokens:
        pytest.skip("one view is enough")
    labels = np.arange(281) % 3

    def run(features: Features) -> tuple[dict[str, torch.Tensor], str]:
        data = LabelledFeatures(features, labels)
        seen, held = data.take(np.arange(250)), data.take(np.arange(250, 281))
        model = make_network(replace(SMALL, view="tokens"))
        assert seen.features.words is not None and seen.features.regions is not None
        tokens = seen.features.words, seen.features.regions
        model.prepare(seen.features.texts, seen.features.images, *tokens)
        history = train(model, seen, held, replace(FAST, epochs=2, batch_size=64))
        return weights_of(model), history_text(history)

    mapped, in_memory = (
        run(MappedFeatures(store, chosen()).features()),
        run(Features.of(store.read(chosen()), INFO, True)),
    )
    assert equal_weights(mapped[0], in_memory[0]) and mapped[1] == in_memory[1]


def test_written_once_for_the_same_posts_in_any_order(store, monkeypatch):
    first = MappedFeatures(store, chosen())
    first.features()
    calls = []
    monkeypatch.setattr(FeatureStore, "read", lambda *_: calls.append(1))
    again = MappedFeatures(store, chosen()[::-1])
    assert again.folder == first.folder
    again.features()
    assert not calls
    assert MappedFeatures(store, chosen()[:-1]).folder == first.folder, "one is there twice"
    assert MappedFeatures(store, chosen()[:-2]).folder != first.folder


@pytest.mark.parametrize("how", ["cut", "longer", "gone", "no index", "other index"])
def test_files_that_are_not_whole_are_written_again(store, how):
    files = MappedFeatures(store, chosen())
    expected = files.features().batch(None).text.copy()
    path = files.folder / "image.bin"
    if how == "cut":
        os.truncate(path, path.stat().st_size - 4)
    elif how == "longer":
        with path.open("ab") as file:
            file.write(b"0000")
    elif how == "gone":
        path.unlink()
    elif how == "no index":
        (files.folder / "index.safetensors").unlink()
    else:
        (files.folder / "index.safetensors").write_bytes(b"\x80\x04 not at all" * 50)
    assert np.array_equal(files.features().batch(None).text, expected)


def test_killed_while_writing(store, monkeypatch):
    files = MappedFeatures(store, chosen())
    read, calls = FeatureStore.read, []

    class KilledError(BaseException):
        pass

    def killed(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KilledError
        return read(*given)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "read", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # nothing is tidied after a kill
        with pytest.raises(KilledError):
            files.features()
    (half,) = files.folder.parent.iterdir()
    assert half != files.folder and any(half.iterdir())
    assert equal(files.features(), Features.of(store.read(chosen()), INFO, store.tokens))
    old = time.time() - UNUSED - 60
    os.utime(half, (old, old))
    MappedFeatures(store, chosen()[:-2]).features()
    assert not half.exists(), "what nobody has used for long is removed"
    assert files.folder.exists()


def test_removed_files_can_still_be_read_by_who_has_them(store):
    files = MappedFeatures(store, chosen())
    found = files.features()
    files.remove()
    assert not any(files.folder.parent.iterdir())
    assert equal(found, Features.of(store.read(chosen()), INFO, store.tokens))
    files.remove()  # again, for nothing


def test_another_process_that_was_faster(store, monkeypatch):
    files, other = (MappedFeatures(store, chosen()) for _ in range(2))
    rmtree = shutil.rmtree

    def late(folder, **options):  # the other's files appear after any damaged ones were removed
        rmtree(folder, **options)
        if folder == files.folder:
            monkeypatch.setattr(shutil, "rmtree", rmtree)
            other.features()

    monkeypatch.setattr(shutil, "rmtree", late)
    assert equal(files.features(), Features.of(store.read(chosen()), INFO, store.tokens))
    assert [*files.folder.parent.iterdir()] == [files.folder]


def test_a_full_disk_is_told(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sgmft.features.store.os.fsync", full)
    files = MappedFeatures(store, chosen())
    with pytest.raises(SgmftError, match=r"cannot be laid out in .*No space left.*--features"):
        files.features()
    assert not any(files.folder.parent.iterdir())


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.store import MappedFeatures
from sgmft.features.features import Features
from sgmft.utils.runtime import keep_freed_memory
from sgmft.models.network import Normalizer
from sgmft.features.encoders.base import PostFeatures
from sgmft.features.store import FeatureStore

keep_freed_memory()  # so that what was needed once is counted
info, rng = EncoderInfo("x", "0" * 16, 8, 128, False, None, 8, "light"), np.random.default_rng(0)
store = FeatureStore(sys.argv[1], info, True)
regions = rng.standard_normal((100, 128), np.float32).astype(np.float16)
keys = [f"{i:032x}" for i in range(6144)]  # 157 MB of regions
for first in range(0, 6144, 256):
    row = PostFeatures(None, None, regions[:1].astype(np.float32), regions, None)
    store.write({key: row for key in keys[first : first + 256]})

def read(keys):
    features = MappedFeatures(store, keys).features()
    scale = Normalizer(128, "standard")
    scale.fit(features.take(np.arange(len(keys))[::-1]).regions)
    for rows in rng.permutation(len(keys)).reshape(-1, 64):
        assert features.batch(rows).image_mask.all()

read(keys[:512])
status = Path("/proc/self/status").read_text().split()
limit = 1024 * int(status[status.index("VmData:") + 1]) + 100_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
read(keys)
try:
    Features.of(store.read(keys), info, True)
except MemoryError:
    print("cannot be held")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_more_features_than_memory_may_hold(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path],
        env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"},  # others reserve what they like
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "cannot be held\n"


# --- of a training


def kept(folder: Path) -> list[Path]:
    return [*folder.glob("*/_mapped/*")]


@pytest.mark.parametrize("preset", ["tokens", "elements", "default"])
def test_a_training_with_a_store_is_the_same_as_without(tiny, small_posts, tmp_path, preset):
    settings = {} if preset == "default" else {"dropout": 0.2}
    plain = tiny(settings, preset).fit(small_posts)
    stored = tiny(settings, preset, features=tmp_path).fit(small_posts)
    again = tiny(settings, preset, features=tmp_path).fit(small_posts[::-1])
    assert repr(plain.training.to_config()) == repr(stored.training.to_config())
    assert equal_weights(plain.network.state_dict(), stored.network.state_dict())
    assert (
        again.training.to_config()["data"]["fingerprint"]
        == plain.training.to_config()["data"]["fingerprint"]
    )
    assert not kept(tmp_path), "the files are gone"


def test_an_interrupted_training_finds_its_files_again(tiny, small_posts, tmp_path, monkeypatch):
    class StopHereError(Exception):
        pass

    def stop(epoch):
        raise StopHereError

    with pytest.raises(StopHereError):
        tiny(preset="tokens", features=tmp_path).fit(small_posts, on_epoch=stop)
    assert kept(tmp_path)
    monkeypatch.setattr(MappedFeatures, "_write", lambda self: pytest.fail("they are there"))
    tiny(preset="tokens", features=tmp_path).fit(small_posts)
    assert not kept(tmp_path)


def test_a_store_that_cannot_be_written_to_is_read_into_memory(
    tiny, small_posts, tmp_path, monkeypatch
):
    expected = tiny(preset="tokens", features=tmp_path).fit(small_posts)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    monkeypatch.setattr(MappedFeatures, "_write", lambda self: pytest.fail("it cannot be"))
    with pytest.warns(SgmftWarning, match="cannot be written to"):
        found = tiny(preset="tokens", features=tmp_path).fit(small_posts)
    assert equal_weights(found.network.state_dict(), expected.network.state_dict())
