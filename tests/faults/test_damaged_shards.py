"""A damaged feature shard is named and set aside; its posts are encoded anew in the same run."""

import random
import warnings
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recording_encoder import RecordingEncoder, equal_features
from recording_encoder import files as files
from recording_encoder import posts as posts
from sgmft.data.posts import Post
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.features import store as module
from sgmft.features.encode import Chunk, encode_posts
from sgmft.features.store import FeatureStore

CHUNK = 5  # three shards of the posts


def encode(
    posts: list[Post], folder: Path, encoder: RecordingEncoder | None = None, **options: object
) -> list[Chunk]:
    encoder = encoder or RecordingEncoder()
    store = FeatureStore(folder, encoder.info, tokens=True)
    return list(encode_posts(posts, encoder, tokens=True, store=store, chunk=CHUNK, **options))


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*/part-*.parquet")}


def alike(one: list[Chunk], other: list[Chunk]) -> bool:
    return all(
        a.posts == b.posts and a.keys == b.keys and all(map(equal_features, a.rows, b.rows))
        for a, b in zip(one, other, strict=True)
    )


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "foreign":
        pq.write_table(pa.table({"name": ["x"], "value": [1]}), path)
    elif how == "numbers for keys":
        pq.write_table(pa.table({"key": [1, 2]}), path)
    elif how == "text":
        path.write_text("not a table at all")
    else:
        share = {"empty": 0.0, "cut early": 0.01, "cut": 0.5, "cut late": 0.99}[how]
        path.write_bytes(data[: int(len(data) * share)])


HOW = ("empty", "cut early", "cut", "cut late", "foreign", "numbers for keys", "text")


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_shard_is_set_aside_and_written_anew(tmp_path, posts, how):
    clean = encode(posts, tmp_path)
    before = shards(tmp_path)
    path = sorted(tmp_path.glob("*/part-*.parquet"))[1]
    damage(path, how)
    found = path.read_bytes()
    encoder = RecordingEncoder()
    with pytest.warns(SgmftWarning) as told:
        again = encode(posts, tmp_path, encoder)
    assert [str(path) in str(one.message) for one in told] == [True]
    assert alike(again, clean) and shards(tmp_path) == before
    (aside,) = (x for x in path.parent.iterdir() if x.name.startswith("_part-"))
    assert aside.read_bytes() == found and path.name in aside.name
    own = set(pq.read_table(path, columns=["key"])["key"].to_pylist())
    texts = {x.text for c in clean for x, key in zip(good(c), c.keys, strict=True) if key in own}
    assert set(encoder.texts) <= texts  # nobody else's posts were encoded again
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert alike(encode(posts, tmp_path), clean)


def good(chunk: Chunk) -> list[Post]:
    return [chunk.posts[i] for i in chunk.good]


def test_a_flipped_bit_anywhere_changes_nothing_that_is_read(tmp_path, posts):
    """The shard is named, or a key is not found; both ways its posts are encoded anew."""
    clean = encode(posts, tmp_path)
    before = shards(tmp_path)
    name = max(before, key=lambda name: len(before[name]))
    (path,) = tmp_path.glob(f"*/{name}")
    rng = random.Random(0)
    for position in sorted(rng.sample(range(len(before[name])), 40)):
        data = bytearray(before[name])
        data[position] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with pytest.warns(SgmftWarning, match=name):
            assert alike(encode(posts, tmp_path), clean), f"byte {position}"
        assert shards(tmp_path).items() >= before.items()
        for other in path.parent.iterdir():
            if other.name not in before and other.name != "_encoder.json":
                other.unlink()


def test_damage_that_is_found_while_a_chunk_is_read(tmp_path, posts):
    """Its posts were prepared without their pictures: the store had them a moment ago."""
    clean = encode(posts, tmp_path)
    before = shards(tmp_path)
    encoder = RecordingEncoder()
    store = FeatureStore(tmp_path, encoder.info, tokens=True)
    chunks = encode_posts(posts, encoder, tokens=True, store=store, chunk=CHUNK)
    again = [next(chunks)]
    for path in tmp_path.glob("*/part-*.parquet"):
        data = path.read_bytes()
        path.write_bytes(data[:100] + b"x" + data[101:])
    with pytest.warns(SgmftWarning):
        again += chunks
    assert alike(again, clean)
    with warnings.catch_warnings(record=True):
        encode(posts, tmp_path)
    assert shards(tmp_path).keys() == before.keys()


def test_a_picture_that_changed_meanwhile_is_what_is_encoded(tmp_path, posts, files):
    clean = encode(posts[:1], tmp_path)
    encoder = RecordingEncoder()
    store = FeatureStore(tmp_path, encoder.info, tokens=True)
    (path,) = tmp_path.glob("*/part-*.parquet")
    path.write_bytes(b"")
    prepared = module.FeatureStore.find

    def change(self, keys):  # between the look into the store and the second look at the file
        files["red.png"].write_bytes(files["quarters.png"].read_bytes())
        return prepared(self, keys)

    with pytest.MonkeyPatch.context() as patch, pytest.warns(SgmftWarning):
        patch.setattr(module.FeatureStore, "find", change)
        (again,) = encode_posts(posts[:1], encoder, tokens=True, store=store)
    assert again.keys != clean[0].keys and again.keys[0] in store


def test_damage_in_the_store_that_pictures_are_taken_from(tmp_path, posts):
    clean = encode(posts, tmp_path / "own")
    other = RecordingEncoder(fingerprint="d" * 16)
    encode(posts, tmp_path / "pictures", other)
    pictures = FeatureStore(tmp_path / "pictures", other.info, tokens=True)
    path = sorted((tmp_path / "pictures").glob("*/part-*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(SgmftWarning, match=path.name):
        again = encode(posts, tmp_path / "new", image_store=pictures)
    assert alike(again, clean) and shards(tmp_path / "new") == shards(tmp_path / "own")


def test_a_shard_that_another_process_has_set_aside(tmp_path, posts):
    clean = encode(posts, tmp_path)
    encoder = RecordingEncoder()
    store = FeatureStore(tmp_path, encoder.info, tokens=True)
    for path in tmp_path.glob("*/part-*.parquet"):
        path.rename(path.with_name(f"_{path.name}.damaged1"))
    again = list(encode_posts(posts, encoder, tokens=True, store=store, chunk=CHUNK))
    assert alike(again, clean) and encoder.texts


def test_what_only_reads_is_told_to_run_again(tmp_path, posts):
    chunks = encode(posts, tmp_path)
    store = FeatureStore(tmp_path, RecordingEncoder().info, tokens=True)
    for path in tmp_path.glob("*/part-*.parquet"):
        path.write_bytes(path.read_bytes()[:-1])
    with (
        pytest.warns(SgmftWarning),
        pytest.raises(SgmftError, match=f"{store.folder}.*run the same command again"),
    ):
        store.read(chunks[0].keys)
    with pytest.raises(KeyError):
        store.read(chunks[0].keys)


def test_where_nothing_can_be_renamed_the_shard_is_named_and_stays(tmp_path, posts, monkeypatch):
    chunks = encode(posts, tmp_path)
    store = FeatureStore(tmp_path, RecordingEncoder().info, tokens=True)
    (path, *_) = sorted(tmp_path.glob("*/part-*.parquet"))
    path.write_bytes(b"")

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    for read in (lambda: store.read([k for c in chunks for k in c.keys]), lambda: reopen(store)):
        with pytest.raises(SgmftError, match=rf"{path} is damaged.*Read-only.*delete it"):
            read()
    assert path.exists()


def reopen(store: FeatureStore) -> FeatureStore:
    return FeatureStore(store.folder.parent, replace(store.info), tokens=True)
