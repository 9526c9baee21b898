"""A feature of text and pictures together: made, kept, read by models that know it, explained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from recording_encoder import equal_features
from sgmft import Post, SemanticLocator
from sgmft.data.preprocessing.text import get_cleaning, split_windows
from sgmft.data.source import Source
from sgmft.evaluation.explain.attribution import ExplainedModel, MaskedPredictor
from sgmft.features.encode import encode_all, encode_posts, encode_windows
from sgmft.features.encoder_handle import EncoderHandle
from sgmft.features.encoders.registry import ENCODERS, load_encoder
from sgmft.features.encoders.tuned import Maps, ProjectedEncoder
from sgmft.features.store import FeatureStore, MappedFeatures
from sgmft.jobs.encode import encode_table
from tiny_encoder import JointTinyEncoder, TinyEncoder

WORDS, COLOURS = ("sofa", "desk"), ("red", "blue")


@pytest.fixture(scope="module", autouse=True)
def _encoders():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "apart", TinyEncoder)
        patch.setitem(ENCODERS, "joint", JointTinyEncoder)
        yield


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    for colour in COLOURS:
        Image.new("RGB", (16, 16), colour).save(folder / f"{colour}.png")
    return folder


@pytest.fixture(scope="module")
def posts(colours):
    """64 posts whose label neither the word tells nor the colour, but both; 16 lack one of them."""
    found = []
    for i in range(80):
        word, colour = i % 2, i // 2 % 2
        label = ("Home", "Work")[word ^ colour]
        text, image = f"{WORDS[word]} " * 6 + str(i), [colours / f"{COLOURS[colour]}.png"]
        text, image = ("" if i % 10 == 3 else text), ([] if i % 10 == 6 else image)
        found.append(Post(text, image, id=str(i), label=label))
    return found


def rows_of(posts, encoder, **options):
    (chunk,) = encode_posts(posts, encoder, **options)
    return chunk.rows


def test_a_post_with_both_has_one_of_all_its_pictures(colours):
    encoder = load_encoder("joint")
    red, blue = (colours / f"{name}.png" for name in COLOURS)
    posts = [Post("sofa", [red, blue]), Post("sofa"), Post("", [red]), Post("desk", [red])]
    rows = rows_of(posts, encoder)
    assert [row.joint is None for row in rows] == [False, True, True, False]
    both, alone = rows[0], rows_of([Post("sofa", [red])], encoder)[0]
    np.testing.assert_allclose(both.joint, np.outer(both.text, both.images.mean(0)).ravel())
    assert np.abs(both.joint - alone.joint).max() > 0.1


@pytest.mark.parametrize("tokens", [True, False])
def test_a_store_and_files_keep_it_to_the_last_bit(posts, tokens, tmp_path):
    encoder = load_encoder("joint")
    store = FeatureStore(tmp_path, encoder.info, tokens)
    direct = encode_all(posts, encoder, tokens=tokens)
    stored = encode_all(posts, encoder, tokens=tokens, store=store, on_disk=True)
    (shard,) = store.folder.glob("part-*.parquet")
    assert pq.read_schema(shard).names[-1] == "joint"
    opened = FeatureStore(tmp_path, encoder.info, tokens)
    rows = rows_of(posts, encoder, tokens=tokens)
    assert all(map(equal_features, opened.read(direct.keys), rows))
    assert isinstance(stored.files, MappedFeatures)
    some = np.array([5, 3, 41, 5])
    for features in (stored.features, stored.features.take(some)):
        expected = direct.features if len(features) > 4 else direct.features.take(some)
        for one, other in zip(features.batch(None, True), expected.batch(None, True), strict=True):
            np.testing.assert_array_equal(one, other)
        assert len(list(features.contents())) == len(list(expected.contents())) == 4
    batch, has = direct.features.batch(), direct.features.parts == 3
    assert batch.has_joint.tolist() == batch.to("cpu").has_joint.tolist() == has.tolist()
    for parts in (0, 1, 2):
        assert not direct.features.with_parts(parts).batch().has_joint.any()
    dropped = batch.drop_modalities(1.0, np.random.default_rng(0).random((2, len(posts))))
    assert (
        not dropped.has_joint.any()
        and not encode_all(posts, load_encoder("apart")).features.batch().has_joint.any()
    )


def test_another_stores_pictures_do_not_stand_in_for_it(posts, tmp_path):
    light, raw = (load_encoder("joint", cleaning=x) for x in ("light", "none"))
    store = FeatureStore(tmp_path, light.info, False)
    list(encode_posts(posts, light, store=store))
    found = rows_of(posts, raw, image_store=store)
    assert all(map(equal_features, found, rows_of(posts, raw)))


def test_windows_of_a_long_text_share_it(colours):
    encoder, image = load_encoder("joint"), colours / "red.png"
    text = " ".join(f"word{i % 40}." for i in range(120))
    count = len(split_windows(text, get_cleaning("light"), 32))
    (chunk,) = encode_windows([Post(text, [image]), Post(text)], encoder, 32)
    whole = rows_of([Post(text, [image])], encoder)[0].joint
    rows = [row.joint for row in chunk.rows]
    assert count > 1 and all(np.array_equal(row, whole) for row in rows[:count])
    assert rows[count:] == [None] * (len(rows) - count)


def test_two_towers_have_none_and_an_aligned_encoder_keeps_it():
    joint = load_encoder("joint")
    assert load_encoder("joint+compact").info.joint_width == 0
    rng = np.random.default_rng(0)
    maps = Maps(*(rng.random(x).astype(np.float32) for x in ((16,), (4, 16), (12,), (4, 12))))
    aligned = ProjectedEncoder(joint, maps, "aligned", 1.0)
    given = ["sofa"], [np.ones((1, 8, 8, 3), np.uint8)]
    np.testing.assert_array_equal(aligned.encode_joint(*given), joint.encode_joint(*given))
    assert aligned.info.joint_width == 192


@pytest.mark.parametrize(
    ("options", "reads"),
    [
        ({}, True),
        ({"method": "linear-probe"}, True),
        ({"settings": {"joint": False}}, False),
        ({"method": "late-average"}, False),
    ],
    ids=str,
)
def test_what_both_tell_only_together_is_learned(posts, options, reads, tmp_path):
    train, test = posts[:60], [x for x in posts[60:] if x.text and x.images]
    labels = [post.label for post in test]
    locator = SemanticLocator("joint", **options).fit(train)
    right = np.mean([a == b for a, b in zip(locator.predict(test), labels, strict=True)])
    assert right == 1 if reads else right < 0.8
    if not reads:  # and what does not read it is as it is without
        without = SemanticLocator("apart", **options).fit(train)
        np.testing.assert_array_equal(without.predict_proba(posts), locator.predict_proba(posts))
    locator.save_pretrained(tmp_path)
    again = SemanticLocator.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(posts), locator.predict_proba(posts))


def test_what_encode_wrote_predicts_as_encoding_does(posts, tmp_path):
    table = {"id": [x.id for x in posts], "text": [x.text for x in posts]}
    table["image"] = ["".join(map(str, x.images)) for x in posts]
    pq.write_table(pa.table(table), tmp_path / "posts.parquet")
    source = Source(str(tmp_path / "posts.parquet"), allow_outside=True)
    encode_table(source, EncoderHandle("joint", features=tmp_path / "features"))
    bare = [Post(id=x.id, label=x.label) for x in posts]
    looked_up = SemanticLocator(f"table:{tmp_path / 'features'}").fit(bare)
    direct = SemanticLocator("joint").fit(posts)
    np.testing.assert_array_equal(looked_up.predict_proba(bare), direct.predict_proba(posts))


def test_the_tokens_preset_learns_it(posts):
    test = [x for x in posts[60:] if x.text and x.images]
    settings = {"epochs": 40, "width": 16, "heads": 2, "classifier_widths": (8,), "dropout": 0.0}
    settings |= {"learning_rate": 3e-3, "patience": 0}
    locator = SemanticLocator("joint", preset="tokens", settings=settings, val_size=0.0)
    locator.fit(posts[:60])
    assert locator.network.joint is not None
    assert locator.predict(test) == [post.label for post in test]


def test_explaining_encodes_each_changed_post_anew(posts, colours):
    locator = SemanticLocator("joint").fit(posts)
    red, blue = (colours / f"{name}.png" for name in COLOURS)
    post = Post("sofa today", [red, blue])
    model = ExplainedModel(
        locator.encoder, locator.network, False, locator.labels, locator.temperatures
    )
    predictor = MaskedPredictor(post, model)
    changed = predictor.replace_text(["sofa", ""])
    changed += predictor.replace_image(1, [predictor.images[0]])
    kept = [(True, [True, True]), (True, [False, True]), (False, [True, True]), (True, [False] * 2)]
    changed += [predictor.keep_parts(*parts) for parts in kept]
    expected = [
        replace(post, text="sofa"),
        replace(post, text=""),
        replace(post, images=[red, red]),
        post,
        replace(post, images=[blue]),
        replace(post, text=""),
        replace(post, images=[]),
    ]
    for found, wanted in zip(changed, rows_of(expected, locator.encoder), strict=True):
        assert (found.joint is None) is (wanted.joint is None)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6) if one is not None else None
    found = locator.explain(Post("sofa today", [red]))
    total = found.base + sum(part.contribution for part in found.parts)
    assert total == pytest.approx(found.probability, abs=1e-6)
    assert found.words[0].contribution > 5 * abs(found.words[1].contribution)
