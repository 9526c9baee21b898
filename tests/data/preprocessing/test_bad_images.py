from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import image_files as made
from sgmft.data.preprocessing import images
from sgmft.data.preprocessing.images import ImageError, decode_image, load_image, read_image

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(
    "data",
    [
        made.bomb(),
        made.bomb(2**31 - 1, 2**31 - 1),
        made.bomb(images.MAX_PIXELS + 1, 1),
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00," + b"\0" * 30,
        b"BM" + b"\0" * 12 + b"\x28\0\0\0" + b"\x40\x9c\0\0" * 2 + b"\x01\0\x18\0" + b"\0" * 24,
    ],
)
def test_too_many_pixels_are_refused_from_the_header(data):
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with pytest.raises(ImageError, match=r"^a\.png has .* pixels; at most 89 million are read$"):
        decode_image(data, "a.png")
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_the_message_tells_the_size():
    with pytest.raises(ImageError, match=r"a\.jpg has 40000 x 40000 pixels; at most 89 million"):
        decode_image(made.bomb(), "a.jpg")


# --- bad files -------------------------------------------------------------------------------


def reason(path) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reasons(tmp_path):
    def write(data: bytes):
        return made.write_picture(tmp_path / "a.jpg", data)

    assert reason(tmp_path / "a.jpg") == "there is no file a.jpg"
    assert reason(write(b"") / "b.jpg") == "there is no file b.jpg"
    assert reason(write(b"")) == "a.jpg is empty (0 bytes)"
    assert reason(write(b"<html>404</html>")).startswith("a.jpg is not a picture (JPEG, P")
    assert reason(write(b"\xff")).startswith("a.jpg is not a picture")
    assert reason(write(made.truncated())) == "a.jpg is cut off or damaged"
    assert reason(write(b"\xff\xd8\xff\xe0")) == "a.jpg is cut off or damaged"
    assert reason(tmp_path) == f"{tmp_path.name} is a folder, not a file"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_truncated(format):
    data = made.truncated(made.encoded(made.scene((80, 60)), format))
    with pytest.raises(ImageError, match="cut off or damaged"):
        decode_image(data, "a")


def test_other_formats_are_not_tried():
    for format in ("PPM", "ICO", "PCX", "TGA", "EPS"):
        with pytest.raises(ImageError, match="is not a picture"):
            decode_image(made.encoded(made.plain(), format), "a")


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "pipe.jpg is a device or pipe, not a file"
    assert reason("/dev/zero") == "zero is a device or pipe, not a file"


def test_too_large_a_file_is_not_read(tmp_path):
    with (tmp_path / "big.jpg").open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    assert "at most 64 MiB are read" in reason(tmp_path / "big.jpg")
    with pytest.raises(ImageError, match="at most 64 MiB"):
        decode_image(bytes(images.MAX_BYTES + 1), "big.jpg")


def test_impossible_names(tmp_path):
    assert reason(tmp_path / "a\0b.jpg") == "a?b.jpg is not a possible file name"
    assert "cannot be read" in reason(tmp_path / ("a" * 300))
    reason(tmp_path / "line\nbreak\udcff.jpg").encode()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert "loop.jpg cannot be read" in reason(tmp_path / "loop.jpg")


def test_read_picture_returns_the_bytes(tmp_path):
    data = made.encoded(made.plain())
    assert read_image(str(made.write_picture(tmp_path / "ä 图.png", data))) == data


VALID = [
    *(made.encoded(made.scene((20, 15)), format) for format in made.FORMATS),
    made.encoded(made.scene((20, 15)).convert("P"), "PNG", transparency=3),
    made.encoded(made.scene((20, 15)), "TIFF", compression="tiff_lzw"),
    made.turned(made.quarters(), 6),
    made.turned(made.quarters(), 6, "TIFF"),
    made.animated("GIF"),
    made.animated("PNG"),
    made.animated("WEBP"),
    made.grey16(np.arange(100).reshape(10, 10) * 600),
]


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    data=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    cut=st.one_of(st.none(), st.integers(1, 2000)),
    tail=st.binary(max_size=8),
)
def test_hostile_bytes_give_a_picture_or_a_reason(data, changes, cut, tail):
    hostile = bytearray(data)
    for position, value in changes:
        hostile[position % len(hostile)] = value
    try:
        pixels = decode_image(bytes(hostile[:cut]) + tail, "a", 16)
    except ImageError as error:
        assert str(error).startswith("a ")
    else:
        assert pixels.shape == (16, 16, 3)
        assert pixels.dtype == np.uint8


def test_threads_leave_the_warning_filters_as_they_were():
    data = made.turned(made.quarters(), 6)
    start = data.index(b"Exif\0\0") + 6
    noisy = data[:start] + data[start : start + 8] + b"\x40" + data[start + 9 :]
    good = made.encoded(made.plain())
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda data: decode_image(data, "a", 8), [noisy, good] * 100))
    assert all(result.shape == (8, 8, 3) for result in results)
    assert list(warnings.filters) == before
