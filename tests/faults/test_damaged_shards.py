"""A damaged feature shard is named and set aside; its posts are encoded anew in the same run."""

import random
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faults import shards_of
from recording_encoder import RecordingEncoder, equal_features
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.features.encode import encode_posts
from sgmft.features.store import FeatureStore

CHUNK = 5  # three shards of the posts


def opened(folder):
    return FeatureStore(folder, RecordingEncoder().info, tokens=True)


def chunks_of(posts, store, encoder=None, **options):
    encoder = encoder or RecordingEncoder()
    return encode_posts(posts, encoder, tokens=True, store=store, chunk=CHUNK, **options)


def encode(posts, folder, **options):
    return list(chunks_of(posts, opened(folder), **options))


def files_of(folder):
    return sorted(folder.glob("*/part-*.parquet"))


def alike(one, other):
    return all(
        a.posts == b.posts and a.keys == b.keys and all(map(equal_features, a.rows, b.rows))
        for a, b in zip(one, other, strict=True)
    )


def damage(path, how):
    if how == "foreign":
        pq.write_table(pa.table({"name": ["x"], "value": [1]}), path)
    elif how == "numbers for keys":
        pq.write_table(pa.table({"key": [1, 2]}), path)
    elif how == "text":
        path.write_text("not a table at all")
    else:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * how)])


@pytest.mark.parametrize("how", [0.0, 0.01, 0.5, 0.99, "foreign", "numbers for keys", "text"])
def test_a_damaged_shard_is_set_aside_and_written_anew(tmp_path, posts, how):
    clean = encode(posts, tmp_path)
    before = shards_of(tmp_path)
    path = files_of(tmp_path)[1]
    damage(path, how)
    found = path.read_bytes()
    encoder = RecordingEncoder()
    with pytest.warns(SgmftWarning) as warned:
        again = encode(posts, tmp_path, encoder=encoder)
    assert [str(path) in str(one.message) for one in warned] == [True]
    assert alike(again, clean) and shards_of(tmp_path) == before
    (aside,) = (x for x in path.parent.iterdir() if x.name.startswith("_part-"))
    assert aside.read_bytes() == found and path.name in aside.name
    own = set(pq.read_table(path, columns=["key"])["key"].to_pylist())
    good = ((c.posts[i], key) for c in clean for i, key in zip(c.good, c.keys, strict=True))
    texts = {post.text for post, key in good if key in own}
    assert set(encoder.texts) <= texts  # nobody else's posts were encoded again
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert alike(encode(posts, tmp_path), clean)


def test_a_flipped_bit_anywhere_changes_nothing_that_is_read(tmp_path, posts):
    """The shard is named, or a key is not found; both ways its posts are encoded anew."""
    clean = encode(posts, tmp_path)
    before = shards_of(tmp_path)
    name = max(before, key=lambda name: len(before[name]))
    (path,) = tmp_path.glob(f"*/{name}")
    rng = random.Random(0)
    for position in sorted(rng.sample(range(len(before[name])), 40)):
        data = bytearray(before[name])
        data[position] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with pytest.warns(SgmftWarning, match=name):
            assert alike(encode(posts, tmp_path), clean), f"byte {position}"
        assert shards_of(tmp_path).items() >= before.items()
        for other in path.parent.iterdir():
            if other.name not in before and other.name != "_encoder.json":
                other.unlink()


def test_damage_that_is_found_while_a_chunk_is_read(tmp_path, posts):
    """Its posts were prepared without their pictures: the store had them a moment ago."""
    clean = encode(posts, tmp_path)
    before = shards_of(tmp_path)
    chunks = chunks_of(posts, opened(tmp_path))
    again = [next(chunks)]
    for path in files_of(tmp_path):
        data = path.read_bytes()
        path.write_bytes(data[:100] + b"x" + data[101:])
    with pytest.warns(SgmftWarning):
        again += chunks
    assert alike(again, clean)
    with warnings.catch_warnings(record=True):
        encode(posts, tmp_path)
    assert shards_of(tmp_path).keys() == before.keys()


def test_a_picture_that_changed_meanwhile_is_what_is_encoded(tmp_path, posts, files):
    clean = encode(posts[:1], tmp_path)
    store = opened(tmp_path)
    damage(*files_of(tmp_path), 0.0)
    find = FeatureStore.find

    def change(self, keys):  # between the look into the store and the second look at the file
        files["red.png"].write_bytes(files["quarters.png"].read_bytes())
        return find(self, keys)

    with pytest.MonkeyPatch.context() as patch, pytest.warns(SgmftWarning):
        patch.setattr(FeatureStore, "find", change)
        (again,) = chunks_of(posts[:1], store)
    assert again.keys != clean[0].keys and again.keys[0] in store


def test_damage_in_the_store_that_pictures_are_taken_from(tmp_path, posts):
    clean = encode(posts, tmp_path / "own")
    other = RecordingEncoder(fingerprint="d" * 16)
    pictures = FeatureStore(tmp_path / "pictures", other.info, tokens=True)
    list(chunks_of(posts, pictures, other))
    pictures = FeatureStore(tmp_path / "pictures", other.info, tokens=True)
    path = files_of(tmp_path / "pictures")[0]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(SgmftWarning, match=path.name):
        again = encode(posts, tmp_path / "new", image_store=pictures)
    assert alike(again, clean) and shards_of(tmp_path / "new") == shards_of(tmp_path / "own")


def test_a_shard_that_another_process_has_set_aside(tmp_path, posts):
    clean = encode(posts, tmp_path)
    encoder, store = RecordingEncoder(), opened(tmp_path)
    for path in files_of(tmp_path):
        path.rename(path.with_name(f"_{path.name}.damaged1"))
    assert alike(list(chunks_of(posts, store, encoder)), clean) and encoder.texts


def test_what_only_reads_is_told_to_run_again(tmp_path, posts):
    chunks = encode(posts, tmp_path)
    store = opened(tmp_path)
    for path in files_of(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    again = rf"{store.folder}.*run the same command again"
    with pytest.warns(SgmftWarning), pytest.raises(SgmftError, match=again):
        store.read(chunks[0].keys)
    with pytest.raises(KeyError):
        store.read(chunks[0].keys)


def test_where_nothing_can_be_renamed_the_shard_is_named_and_stays(tmp_path, posts, monkeypatch):
    chunks = encode(posts, tmp_path)
    store = opened(tmp_path)
    path = files_of(tmp_path)[0]
    path.write_bytes(b"")

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    for read in (lambda: store.read([k for c in chunks for k in c.keys]), lambda: opened(tmp_path)):
        with pytest.raises(SgmftError, match=rf"{path} is damaged.*Read-only.*delete it"):
            read()
    assert path.exists()
