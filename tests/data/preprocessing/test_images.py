import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import image_files as made
from sgmft.data.preprocessing import images
from sgmft.data.preprocessing.images import ImageError, decode_image, read_image
from sgmft.errors import SgmftError

pytestmark = pytest.mark.filterwarnings("error")
LOSSY = {"JPEG": 4, "WEBP": 6, "AVIF": 6}


def load_image(path, size: int = 224) -> np.ndarray:
    return decode_image(read_image(path), Path(path).name, size)


def middle(data: bytes, size: int = 8) -> list[int]:
    return [int(value) for value in decode_image(data, "a", size)[size // 2, size // 2]]


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    size = len(pixels)
    near, far = size // 8, size - 1 - size // 8
    points = (near, near), (near, far), (far, near), (far, far)
    return [tuple(round(v / 255) * 255 for v in pixels[point]) for point in points]


def assert_close(pixels: np.ndarray, expected: object, within: float) -> None:
    assert np.abs(pixels.astype(int) - np.asarray(expected).astype(int)).max() <= within


# --- what comes out --------------------------------------------------------------------------


@pytest.mark.parametrize("format", made.FORMATS)
def test_every_format_gives_the_same_square(tmp_path, format):
    path = made.write_picture(
        tmp_path / "any.name", made.encoded(made.plain((200, 80, 40)), format)
    )
    pixels = load_image(path)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert_close(pixels, (200, 80, 40), LOSSY.get(format, 0))


def test_the_result_can_be_written_to():
    pixels = decode_image(made.encoded(made.plain()), "a")
    pixels[0, 0, 0] = 7
    assert pixels.flags.c_contiguous


def test_format_is_detected_from_content_not_name(tmp_path):
    path = made.write_picture(tmp_path / "really_a_png.jpg", made.encoded(made.plain(), "PNG"))
    assert_close(load_image(path, 4), made.RED, 0)


def test_squashed_not_cropped():
    assert corners(decode_image(made.encoded(made.quarters((300, 40))), "a", 64)) == [
        made.RED,
        made.GREEN,
        made.BLUE,
        made.WHITE,
    ]


def test_bicubic():
    picture = made.scene((300, 200))
    expected = picture.resize((224, 224), Image.Resampling.BICUBIC)
    assert_close(decode_image(made.encoded(picture), "a"), expected, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
@pytest.mark.parametrize("format", made.FORMATS)
def test_tiny_and_thin(size, format):
    pixels = decode_image(made.encoded(made.plain(size=size), format), "a")
    assert_close(pixels, made.RED, LOSSY.get(format, 0))


@pytest.mark.parametrize("size", [0, -1])
def test_size_must_be_positive(size):
    with pytest.raises(SgmftError, match="1 pixel or more"):
        decode_image(made.encoded(made.plain()), "a", size)


# --- odd but good files ----------------------------------------------------------------------

TURNED = {1: "RGBW", 2: "GRWB", 3: "WBGR", 4: "BWRG", 5: "RBGW", 6: "BRWG", 7: "WGBR", 8: "GWRB"}
COLORS = {"R": made.RED, "G": made.GREEN, "B": made.BLUE, "W": made.WHITE}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation(orientation, format):
    data = made.turned(made.quarters((900, 600)), orientation, format)
    found = corners(decode_image(data, "a", 32))
    assert found == [COLORS[letter] for letter in TURNED[orientation]]


def test_nonsense_orientation_is_ignored():
    data = made.turned(made.quarters(), 77)
    assert corners(decode_image(data, "a", 32))[0] == made.RED


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_frame(format):
    assert_close(decode_image(made.animated(format), "a", 4), made.RED, 6)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_transparent_becomes_white(format):
    half = made.encoded(made.plain((255, 0, 0, 128), mode="RGBA"), format)
    assert_close(decode_image(half, "a", 4), (255, 127, 127), 4)


def test_hidden_colour_of_transparent_pixels_never_shows():
    picture = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    picture.paste((255, 255, 255, 255), (0, 0, 10, 20))
    assert decode_image(made.encoded(picture), "a", 7).min() >= 254


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_transparent_colour_of_a_palette_or_a_key(mode):
    picture = made.plain("black", mode="RGB").convert(mode)
    key = (0, 0, 0) if mode == "RGB" else picture.getpixel((0, 0))
    assert_close(decode_image(made.encoded(picture, transparency=key), "a", 4), 255, 0)


def test_transparent_gif():
    data = made.encoded(made.plain(3, mode="P"), "GIF", transparency=3)
    assert_close(decode_image(data, "a", 4), 255, 0)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(format):
    data = made.encoded(made.plain(mode="CMYK", color=(0, 255, 255, 0)), format)
    assert_close(decode_image(data, "a", 4), made.RED, 4)


def test_lab():
    data = made.encoded(made.plain(mode="LAB", color=(255, 128, 128)), "TIFF")
    assert_close(decode_image(data, "a", 4), 255, 3)
    red, green, blue = middle(made.encoded(made.plain(mode="LAB", color=(136, 200, 190)), "TIFF"))
    assert red > 200 > 60 > max(green, blue)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_grey(format):
    assert_close(decode_image(made.encoded(made.plain(90, mode="L"), format), "a", 4), 90, 2)


def test_grey_with_alpha():
    data = made.encoded(made.plain((0, 128), mode="LA"))
    assert_close(decode_image(data, "a", 4), 127, 1)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_one_bit(format):
    picture = Image.new("1", (20, 20), 0)
    picture.paste(1, (0, 0, 20, 10))
    pixels = decode_image(made.encoded(picture, format), "a", 20)
    assert pixels[2].min() == 255
    assert pixels[17].max() == 0


@pytest.mark.parametrize("value", [0, 128, 255, 256, 20_000, 40_000, 65_535])
def test_16_bit_grey_png_is_scaled_not_clipped(value):
    assert_close(decode_image(made.grey16(np.full((9, 9), value)), "a", 4), value // 257, 1)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_16_bit_tiff(dtype):
    values = np.tile(np.array([0, 65535], dtype=dtype).repeat(8), (8, 1))
    pixels = decode_image(made.encoded(Image.fromarray(values), "TIFF"), "a", 16)
    assert pixels[8, 1].max() == 0
    assert pixels[8, 14].min() == 255


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 25_700.0, 65_535.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 5e5, 1e6], [0, 128, 255]),
        ([float("nan"), 1.0, float("inf")], [0, 255, 0]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
        ([-5.0, -5.0, -5.0], [0, 0, 0]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_float_tiff(values, expected):
    rows = np.tile(np.array(values, dtype=np.float32).repeat(16), (48, 1))
    pixels = decode_image(made.encoded(Image.fromarray(rows), "TIFF"), "a", 48)
    assert_close(pixels[24, [4, 24, 43]], np.array(expected)[:, None], 1)


def test_32_bit_integer_tiff():
    rows = np.tile(np.array([0, 1_000_000], dtype=np.int32).repeat(16), (32, 1))
    pixels = decode_image(made.encoded(Image.fromarray(rows), "TIFF"), "a", 32)
    assert [int(pixels[16, 3, 0]), int(pixels[16, 28, 0])] == [0, 255]


def test_several_pages_give_the_first():
    pages = made.encoded(made.plain(), "TIFF", save_all=True, append_images=[made.plain("blue")])
    assert middle(pages) == list(made.RED)


# --- large pictures --------------------------------------------------------------------------


def test_draft_changes_a_large_jpeg_by_a_few_grey_levels():
    data = made.encoded(made.scene((3000, 2400)), "JPEG", quality=90)

    def full() -> np.ndarray:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC))

    assert_close(decode_image(data, "a"), full(), 4)


def test_damaged_metadata_does_not_cost_a_good_picture():
    data = made.turned(made.quarters(), 6)
    start = data.index(b"Exif\0\0") + 6
    data = data[:start] + b"\xff" * 12 + data[start + 12 :]
    assert corners(decode_image(data, "a", 32))[0] == made.RED


# --- bad files -------------------------------------------------------------------------------


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
