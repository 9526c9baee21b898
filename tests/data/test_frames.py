"""Posts of DataFrames, datasets, dicts, texts and pictures."""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from sgmft.data.frames import to_posts
from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import decode_image
from sgmft.data.tables import Columns
from sgmft.errors import SgmftError

COLUMNS = {
    "id": ["a", "b", "c"],
    "text": ["at home", None, "at work"],
    "image": [None, "b.png", "c.png|d.png"],
    "label": ["Home", "School", None],
}
ROWS = [dict(zip(COLUMNS, cells, strict=True)) for cells in zip(*COLUMNS.values(), strict=True)]
POSTS = [
    Post("at home", id="a", label="Home"),
    Post("", ["b.png"], id="b", label="School"),
    Post("at work", ["c.png", "d.png"], id="c"),
]
RED = Image.new("RGB", (6, 4), "red")


def library(name):
    return lambda: pytest.importorskip(name)


def pixels(post):
    """The first picture of a post, as an encoder sees it."""
    return decode_image(post.images[0].data, "picture", None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pd.DataFrame(COLUMNS, index=[7, 7, 9]),
        lambda: pd.DataFrame(COLUMNS).convert_dtypes(),
        lambda: pd.DataFrame(COLUMNS).astype({"label": "category"}),
        lambda: pa.table(COLUMNS),
        lambda: library("polars")().DataFrame(COLUMNS),
        lambda: library("datasets")().Dataset.from_dict(COLUMNS),
        lambda: COLUMNS,
        lambda: {name: np.array(cells, object) for name, cells in COLUMNS.items()},
        lambda: ROWS,
        lambda: iter(ROWS),
    ],
)
def test_tables_in_memory_are_read_as_files_are(make):
    found = to_posts(make())
    assert [(x.text, x.images, x.id, x.label, x.error) for x in found] == [
        (x.text, x.images, x.id, x.label, None) for x in POSTS
    ]
    assert [x.place.rpartition(", ")[2] for x in found] == ["row 0", "row 1", "row 2"]
    assert found[0].row["label"] == "Home"


def test_posts_stay_as_they_are_and_are_taken_one_at_a_time():
    assert to_posts(POSTS) == to_posts(iter(POSTS)) == POSTS and to_posts(POSTS[0]) == POSTS[:1]
    assert to_posts([]) == to_posts(pd.DataFrame({"text": []})) == []


@pytest.mark.parametrize("many", [list, lambda x: np.array(x, object), lambda x: pd.Series(x)])
def test_texts(many):
    found = to_posts(many(["at home", "look at a.jpg", None, float("nan")]))
    assert [x.text for x in found] == ["at home", "look at a.jpg", "", ""]
    assert [x.error is None for x in found] == [True, True, False, False]
    assert not any(x.images for x in found)


def test_pictures_are_the_same_however_they_are_given(tmp_path):
    file = io.BytesIO()
    RED.save(file, "PNG")
    path = tmp_path / "my red.png"
    path.write_bytes(file.getvalue())
    array = np.asarray(RED)
    several = [RED, array, file.getvalue(), path, RED.convert("CMYK")]
    for given in (several, [{"image": x} for x in several], {"image": several}):
        found = to_posts(given)
        assert all(x.error is None and len(x.images) == 1 and not x.text for x in found)
        assert found[3].images == (path,)
        for i in (0, 1, 2):
            assert np.array_equal(pixels(found[i]), array)
    assert to_posts(np.stack([array, array]))[1].images[0].data == to_posts(array)[0].images[0].data
    (grey,) = to_posts(np.full((4, 6, 1), 200, np.uint8))
    assert (pixels(grey) == 200).all()
    # The path of a picture that is there may have spaces; one in one word may be missing.
    found = to_posts(["my red.png", "other red.png", "gone.jpg"], root=tmp_path)
    assert [x.text for x in found] == ["", "other red.png", ""] and found[0].images == (path,)


def test_a_photo_is_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    file = io.BytesIO()
    RED.save(file, "JPEG", exif=exif)
    (post,) = to_posts(Image.open(file))
    assert pixels(post).shape == (6, 4, 3)


def test_rows_of_a_text_and_pictures():
    frame = pd.DataFrame({"text": ["a", "b"], "image": [RED, "b.png"]})
    pairs = [("a", RED), ("b", "b.png")]
    for given in (frame, frame.to_numpy(), pairs):
        first, second = to_posts(given)
        assert first.text == "a" and np.array_equal(pixels(first), np.asarray(RED))
        assert second.text == "b" and str(second.images[0]) == "b.png"
    for given in (frame.iloc[1], {"text": "b", "image": "b.png"}):
        (post,) = to_posts(given)
        assert post.text == "b" and str(post.images[0]) == "b.png"
    assert len(to_posts([["a.png", RED]])[0].images) == 2
    with pytest.raises(SgmftError, match="Post 1 has 2 texts"):
        to_posts(["a", ("b", "c")])


def test_columns_by_other_names(tmp_path):
    frame = pd.DataFrame({"正文": ["在家"], "图片": ["1.jpg"], "標籤": ["家"]})
    (post,) = to_posts(frame, root=tmp_path)
    assert post.text == "在家" and post.images == (tmp_path / "1.jpg",) and post.label == "家"
    frame = pd.DataFrame({"a": ["x"], "b": ["y"]})
    for columns in (Columns(text="b", label="a"), {"text": "b", "label": "a"}):
        (post,) = to_posts(frame, columns=columns)
        assert post.text == "y" and post.label == "x"


@pytest.mark.parametrize(
    ("given", "columns", "message"),
    [
        (
            pd.DataFrame({"txt": ["a"], "y": [1]}),
            None,
            r"None of the columns txt, y is known .* as in columns=\{'text': 'txt'\}",
        ),
        ([{"imgae": "a"}], None, r"columns imgae is .* as in columns=\{'image': 'imgae'\}"),
        ([{"words": "a"}], None, r"columns words is .* as in columns=\{'text': 'NAME'\}"),
        (ROWS, {"text": "txt"}, r"no column 'txt'.* Did you mean 'text'\?"),
        (ROWS, {"txt": "text"}, r"a post has no 'txt'.* Did you mean 'text'\?"),
        (np.zeros((3, 4)), None, "Post 0 cannot be made of the array of float64"),
        (5, None, "Post 0 cannot be made of the int that was given: give texts"),
        (["a", 5], None, "Post 1 cannot be made of the int"),
    ],
)
def test_what_is_no_post_is_refused_with_the_fix(given, columns, message):
    with pytest.raises(SgmftError, match=message):
        to_posts(given, columns=columns)


def test_a_column_of_pictures_that_is_not_read_is_pointed_out():
    frame = pd.DataFrame({"text": ["a"], "cover_2x": [RED]})
    with pytest.warns(UserWarning, match=r"'cover_2x' seems to hold pictures and is not read"):
        to_posts(frame)


def test_a_dataset_keeps_pictures_as_files_and_labels_as_names(tmp_path):
    datasets = library("datasets")()
    RED.save(tmp_path / "red.png")
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["Home", "Work"])}
    cells = {"image": [RED, str(tmp_path / "red.png")], "label": [1, -1]}
    one, other = to_posts(datasets.Dataset.from_dict(cells, datasets.Features(kinds)))
    assert np.array_equal(pixels(one), np.asarray(RED)) and one.label == "Work"
    assert other.images == (tmp_path / "red.png",) and other.label is None


@pytest.mark.parametrize(
    "some", [[None, "a"], [None, {"text": "a"}], np.array([None, "a"], object)]
)
def test_what_is_missing_first_keeps_its_place(some):
    missing, post = to_posts(some)
    assert missing.error is not None and (post.text, post.error) == ("a", None)


def test_a_missing_post_among_posts_keeps_its_place():
    assert to_posts([None, POSTS[0], None]) == [Post(), POSTS[0], Post()]
    with pytest.raises(SgmftError, match="Post 1 cannot be made of the int"):
        to_posts([POSTS[0], 5])


@pytest.mark.parametrize(
    ("values", "format"),
    [
        (np.arange(0, 60_000, 100, np.uint16).reshape(20, 30), "PNG"),
        (np.arange(0, 60_000, 100, np.int32).reshape(20, 30), "TIFF"),
        (np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30), "TIFF"),
    ],
)
def test_greys_of_more_than_8_bits_are_those_of_the_file(tmp_path, values, format):
    path = tmp_path / "grey"
    Image.fromarray(values).save(path, format)
    with Image.open(path) as picture:
        (opened,) = to_posts([picture])
    expected = decode_image(path.read_bytes(), "grey", None)
    assert np.array_equal(pixels(opened), expected) and expected.std() > 50


def test_a_picture_in_a_file_or_a_buffer_is_one_post(tmp_path):
    RED.save(tmp_path / "red.png")
    data = (tmp_path / "red.png").read_bytes()
    with (tmp_path / "red.png").open("rb") as file:
        for given in (file, io.BytesIO(data), bytearray(data), memoryview(data)):
            (post,) = to_posts(given)
            assert post.images[0].data == data


def test_what_is_no_picture_or_no_table_is_refused_in_a_sentence():
    with pytest.raises(SgmftError, match=r"shape \(3, 9, 8\) has its channels first"):
        to_posts(np.zeros((3, 9, 8), np.uint8))
    with pytest.raises(SgmftError, match="different lengths are no table: 2 of text, 1 of image"):
        to_posts({"text": ["a", "b"], "image": [None]})
    good, empty = to_posts([np.zeros((9, 8, 3), np.uint8), np.zeros((0, 0, 3), np.uint8)])
    assert good.error is None and empty.images[0].data == b""
