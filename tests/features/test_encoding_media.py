"""Posts with videos, animations and live photos, from the table to features and report pages."""

import base64
import csv
import hashlib
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import image_files as made
import video_files as film
from recording_encoder import IMAGE, SIZE, RecordingEncoder, by_id
from sgmft import read_posts
from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import ImageError, decode_image
from sgmft.data.preprocessing.media import MAX_FRAMES, SIDE, decode_media, make_thumbnail
from sgmft.data.source import count_errors
from sgmft.features.encode import MAX_IMAGES, encode_posts
from sgmft.features.encoders.base import PostFeatures
from sgmft.features.store import FeatureStore


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    contents = {
        "still.jpg": made.encoded(made.scene((60, 40)), "JPEG"),
        "red.png": made.encoded(made.plain()),
        "film.mp4": film.video(film.coloured(16, (64, 48))),
        "wrong_name.jpg": film.video(film.coloured(16), "webm"),
        "live.jpg": made.encoded(made.quarters(), "JPEG"),
        "live.mov": film.rotated(film.video(film.coloured(9, (64, 48)), "mov", "libx264"), 1),
        "motion.jpg": film.motion_photo(),
        "moving.gif": film.moving("GIF", 6),
        "cut.mp4": made.truncated(film.video(film.coloured(16))),
        "sound.mp4": film.sound(),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in contents}


def encode(posts: list[Post], **options) -> dict[str, PostFeatures]:
    return by_id(list(encode_posts(posts, RecordingEncoder(), **options)))


def key_of(post: Post) -> str:
    ((key,),) = [chunk.keys for chunk in encode_posts([post], RecordingEncoder())]
    return key


def old_key(post: Post) -> str:
    """As it was before frames were taken."""
    digest = hashlib.sha256(hashlib.sha256(post.text.encode()).digest())
    for path in post.images:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()[:32]


def test_a_post_has_the_frames_of_its_files_in_order(files):
    names = ["still.jpg", "film.mp4", "red.png", "moving.gif", "wrong_name.jpg", "motion.jpg"]
    found = encode([Post("在家", [files[name] for name in names], id="mixed")], tokens=True)
    encoder = RecordingEncoder()
    pictures = [p for name in names for p in decode_media(files[name].read_bytes(), name, SIZE)]
    assert len(pictures) == 1 + 4 + 1 + 4 + 4 + 4
    expected = encoder.encode_images(np.stack(pictures), True)
    np.testing.assert_array_equal(found["mixed"].images, expected.pooled)
    regions = np.concatenate(expected.tokens).astype(np.float16)
    np.testing.assert_array_equal(found["mixed"].regions, regions)


def test_a_live_photo_is_its_still_and_its_film(files):
    """Both files are named by the table; what lies beside a picture is not read."""
    both = Post("在家", [files["live.jpg"], files["live.mov"]], id="both")
    found = encode([both, Post("在家", [files["live.jpg"]], id="still")])
    assert found["both"].images.shape == (1 + MAX_FRAMES, IMAGE)
    assert found["still"].images.shape == (1, IMAGE)
    np.testing.assert_array_equal(found["both"].images[0], found["still"].images[0])


@pytest.mark.parametrize(("count", "each"), [(8, 4), (9, 3), (16, 2), (17, 1), (32, 1)])
def test_no_post_has_more_pictures_than_are_read(files, count, each):
    for name in ("film.mp4", "moving.gif", "motion.jpg"):
        found = encode([Post("在家", [files[name]] * count, id="many")])
        assert found["many"].images.shape == (count * each, IMAGE)
        assert count * each <= MAX_IMAGES
    (chunk,) = encode_posts([Post("", [files["film.mp4"]] * 33)], RecordingEncoder())
    assert chunk.posts[0].warnings == ("has 33 pictures; at most 32 of one post are read",)
    assert chunk.rows[0].images.shape == (32, IMAGE)


def test_keys_of_stills_are_as_they_were_and_others_are_not(files, tmp_path):
    for names in (["still.jpg"], ["still.jpg", "red.png", "live.jpg"], []):
        post = Post("在家", [files[name] for name in names])
        assert key_of(post) == old_key(post)
    for name in ("film.mp4", "moving.gif", "motion.jpg"):
        post = Post("在家", [files[name]])
        assert key_of(post) != old_key(post)
        assert key_of(post) == key_of(Post("在家", [files[name]]))
    few, many = (Post("", [files["film.mp4"]] + [files["red.png"]] * n) for n in (7, 8))
    assert key_of(few) == old_key_with_frames(few, 4)
    assert key_of(many) == old_key_with_frames(many, 3)


def old_key_with_frames(post: Post, most: int) -> str:
    digest = hashlib.sha256(hashlib.sha256(post.text.encode()).digest())
    for path in post.images:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        if path.suffix == ".mp4":
            digest.update(f"{most} frames".encode())
    return digest.hexdigest()[:32]


def test_a_store_made_before_does_not_answer_with_a_first_frame(files, tmp_path):
    post = Post("在家", [files["moving.gif"]], id="moving")
    encoder = RecordingEncoder()
    store = FeatureStore(tmp_path / "f", encoder.info, False)
    first = decode_image(files["moving.gif"].read_bytes(), "a", SIZE)
    row = encoder.encode_images(first[None], False).pooled
    store.write({old_key(post): PostFeatures(None, None, row, None)})
    found = encode([post], store=store)
    assert found["moving"].images.shape == (MAX_FRAMES, IMAGE)
    assert (
        encode([post], store=store)["moving"].images.tobytes() == found["moving"].images.tobytes()
    )


def test_a_bad_video_in_a_table_is_left_out_with_a_reason(files, tmp_path):
    with (tmp_path / "posts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "images"])
        writer.writerow(["good", "在家", "film.mp4|still.jpg"])
        for name in ("cut.mp4", "sound.mp4", "missing.mp4"):
            writer.writerow([name, "在家", f"still.jpg|{name}"])
    posts = read_posts(tmp_path / "posts.csv")
    (chunk,) = encode_posts(posts, RecordingEncoder())
    assert [post.warnings for post in chunk.posts] == [
        (),
        ("cut.mp4 is cut off or damaged",),
        ("sound.mp4 has no video in it, only sound or data",),
        ("there is no file missing.mp4",),
    ]
    assert [len(row.images) for row in chunk.rows] == [5, 1, 1, 1]
    posts = [Post(error=f"{name} is no picture (MP4 is read)") for name in ("a.mp4", "b.mp4")]
    assert count_errors(posts) == {"… is no picture (MP4 is read)": 2}


def test_without_pyav_a_post_says_what_it_lacks(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    posts = [Post("", [files["film.mp4"]]), Post("", [files["motion.jpg"], files["red.png"]])]
    (chunk,) = encode_posts(posts, RecordingEncoder())
    assert "film.mp4 cannot be encoded: A video needs packages" in str(chunk.posts[0].error)
    assert "motion.jpg" in chunk.posts[1].warnings[0] and chunk.posts[1].error is None


def test_files_that_are_too_large_together(files, monkeypatch):
    size = files["still.jpg"].stat().st_size
    monkeypatch.setattr("sgmft.features.encode.MAX_POST_BYTES", 2 * size)
    posts = [Post("", [files["still.jpg"]] * count) for count in (2, 3)]
    (chunk,) = encode_posts(posts, RecordingEncoder())
    assert chunk.posts[0].warnings == ()
    assert "has files of more than 0 MiB together" in chunk.posts[1].warnings[0]
    assert [len(row.images) for row in chunk.rows] == [2, 2]


def test_a_model_predicts_posts_with_videos(small_model, tmp_path):
    """A video of one colour is to a model what a still of that colour is."""
    for colour in ("red", "green", "blue"):
        still = Image.new("RGB", (32, 32), colour)
        (tmp_path / "a.webm").write_bytes(film.video([still] * 12, "webm"))
        still.save(tmp_path / "a.png")
        posts = [Post(images=tmp_path / name) for name in ("a.webm", "a.png", "nothing.webm")]
        moving, expected, missing = small_model.predictions(posts)
        assert moving.error is None and moving.label == expected.label
        np.testing.assert_allclose(moving.probabilities, expected.probabilities, atol=0.05)
        assert missing.label is None and missing.error == "there is no file nothing.webm"


def test_thumbnails(files):
    def shown(name: str) -> Image.Image:
        data = make_thumbnail(files[name]).removeprefix("data:image/jpeg;base64,")
        return Image.open(BytesIO(base64.b64decode(data)))

    assert shown("film.mp4").size == (SIDE, SIDE * 3 // 4)
    assert shown("live.mov").size == (SIDE * 3 // 4, SIDE)
    assert film.number_of(np.asarray(shown("film.mp4"))) == 2  # the first that is taken
    assert film.number_of(np.asarray(shown("moving.gif"))) == 0
    assert shown("motion.jpg").size == (SIDE, SIDE * 3 // 4)
    with pytest.raises(ImageError, match=r"cut\.mp4 is cut off"):
        make_thumbnail(files["cut.mp4"])


def test_thumbnails_are_upright_and_in_proportion(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lying
    for size, options, expected in (
        ((600, 300), {}, (SIDE, SIDE // 2)),
        ((600, 300), {"exif": exif}, (SIDE // 2, SIDE)),
        ((2000, 1), {}, (SIDE, 1)),
    ):
        Image.new("RGB", size).save(tmp_path / "a.png", **options)
        data = make_thumbnail(tmp_path / "a.png").removeprefix("data:image/jpeg;base64,")
        assert Image.open(BytesIO(base64.b64decode(data))).size == expected
    with pytest.raises(ImageError):
        make_thumbnail(tmp_path)


def test_a_picture_without_its_end_is_used_with_a_warning_also_from_a_store(tmp_path):
    data = made.encoded(made.scene((640, 480)), "JPEG")
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    whole.write_bytes(data)
    cut.write_bytes(data[:-2])
    store = FeatureStore(tmp_path / "f", RecordingEncoder().info, False)
    for _ in range(2):  # the second time nothing is decoded
        posts = [Post("在家", [whole]), Post("在家", [cut])]
        (chunk,) = encode_posts(posts, RecordingEncoder(), store=store)
        warning = "cut.jpg is cut off; what there is of it is used"
        assert [post.warnings for post in chunk.posts] == [(), (warning,)]
        assert chunk.rows[0].images.tobytes() == chunk.rows[1].images.tobytes()
