import io
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import image_files as made
import video_files as film
from sgmft.data.preprocessing import images
from sgmft.data.preprocessing.images import ImageError, decode_image, describe_cut, read_image
from sgmft.data.preprocessing.media import decode_media
from sgmft.errors import SgmftError

pytestmark = pytest.mark.filterwarnings("error")
LOSSY = {"JPEG": 4, "WEBP": 6, "AVIF": 6, "HEIF": 6}


def load_image(path, size: int = 224) -> np.ndarray:
    return decode_image(read_image(path), Path(path).name, size)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    size = len(pixels)
    near, far = size // 8, size - 1 - size // 8
    points = (near, near), (near, far), (far, near), (far, far)
    return [tuple(round(v / 255) * 255 for v in pixels[point]) for point in points]


def assert_close(pixels: np.ndarray, expected: object, within: float) -> None:
    assert np.abs(pixels.astype(int) - np.asarray(expected).astype(int)).max() <= within


# --- what comes out --------------------------------------------------------------------------


@pytest.mark.parametrize("format", made.FORMATS)
def test_every_format_whatever_its_name_gives_the_same_square(tmp_path, format):
    data = made.encoded(made.plain((200, 80, 40)), format)
    path = made.write_picture(tmp_path / "ä 图.jpg", data)
    assert read_image(str(path)) == data
    pixels = load_image(path)
    assert pixels.shape == (224, 224, 3) and pixels.dtype == np.uint8
    assert_close(pixels, (200, 80, 40), LOSSY.get(format, 0))
    pixels[0, 0, 0] = 7  # it can be written to
    assert pixels.flags.c_contiguous


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
@pytest.mark.parametrize("format", [x for x in made.FORMATS if x != "HEIF"])  # x265 has no such
def test_tiny_and_thin(size, format):
    pixels = decode_image(made.encoded(made.plain(size=size), format), "a")
    assert_close(pixels, made.RED, LOSSY.get(format, 0))


def test_size_must_be_positive():
    with pytest.raises(SgmftError, match="1 pixel or more"):
        decode_image(made.encoded(made.plain()), "a", 0)


# --- odd but good files ----------------------------------------------------------------------

TURNED = {1: "RGBW", 2: "GRWB", 3: "WBGR", 4: "BWRG", 5: "RBGW", 6: "BRWG", 7: "WGBR", 8: "GWRB"}
COLORS = {"R": made.RED, "G": made.GREEN, "B": made.BLUE, "W": made.WHITE}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "HEIF"])
@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation(orientation, format):
    data = made.turned(made.quarters((900, 600)), orientation, format)
    found = corners(decode_image(data, "a", 32))
    assert found == [COLORS[letter] for letter in TURNED[orientation]]


def test_nonsense_orientation_is_ignored():
    data = made.turned(made.quarters(), 77)
    assert corners(decode_image(data, "a", 32))[0] == made.RED


def encoded(color: object, mode: str, format: str = "PNG", **options: object) -> bytes:
    return made.encoded(made.plain(color, mode=mode), format, **options)


ODD = {
    **{f"first frame, {x}": (made.animated(x), made.RED, 6) for x in ("GIF", "PNG", "WEBP")},
    "first page": (
        encoded(made.RED, "RGB", "TIFF", save_all=True, append_images=[made.plain("blue")]),
        made.RED,
        0,
    ),
    **{
        f"half clear, {x}": (encoded((255, 0, 0, 128), "RGBA", x), (255, 127, 127), 4)
        for x in ("PNG", "WEBP", "TIFF")
    },
    **{f"clear {x}": (encoded(0, x, transparency=0), 255, 0) for x in ("P", "L", "1")},
    "clear RGB": (encoded("black", "RGB", transparency=(0, 0, 0)), 255, 0),
    "clear GIF": (encoded(3, "P", "GIF", transparency=3), 255, 0),
    **{f"CMYK {x}": (encoded((0, 255, 255, 0), "CMYK", x), made.RED, 4) for x in ("JPEG", "TIFF")},
    "white in Lab": (encoded((255, 128, 128), "LAB", "TIFF"), 255, 3),
    "red in Lab": (encoded((136, 200, 190), "LAB", "TIFF"), (230, 30, 30), 30),
    **{f"grey {x}": (encoded(90, "L", x), 90, 2) for x in ("JPEG", "PNG", "WEBP", "TIFF")},
    "grey with alpha": (encoded((0, 128), "LA"), 127, 1),
    **{
        f"16 bits, {x}": (made.grey16(np.full((9, 9), x)), x // 257, 1)  # scaled, not clipped
        for x in (0, 128, 255, 256, 20_000, 40_000, 65_535)
    },
}


@pytest.mark.parametrize(("data", "expected", "within"), ODD.values(), ids=ODD)
def test_odd_files(data, expected, within):
    assert_close(decode_image(data, "a", 4), expected, within)


def test_hidden_colour_of_transparent_pixels_never_shows():
    picture = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    picture.paste((255, 255, 255, 255), (0, 0, 10, 20))
    assert decode_image(made.encoded(picture), "a", 7).min() >= 254


SOON = {"enc_params": {"preset": "ultrafast"}}  # HEIC is written in a fifth of the time
CONTAINERS = ["HEIF", *(["AVIF"] if made.HAS_AVIF else [])]


@pytest.mark.parametrize("format", CONTAINERS)
def test_the_codec_may_stand_among_the_compatible_brands(format):
    data = made.encoded(made.quarters(), format)
    assert_close(decode_image(made.generic_brand(data), "a"), decode_image(data, "a"), 0)


def test_the_thumbnail_of_a_heic_is_not_taken():
    clear = made.encoded(made.scene((640, 480)), "HEIF", quality=90, **SOON)
    both = made.encoded(made.scene((640, 480)), "HEIF", quality=90, thumbnails=[480], **SOON)
    assert_close(decode_image(both, "a"), decode_image(clear, "a"), 0)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_one_bit(format):
    picture = Image.new("1", (20, 20), 0)
    picture.paste(1, (0, 0, 20, 10))
    pixels = decode_image(made.encoded(picture, format), "a", 20)
    assert pixels[2].min() == 255
    assert pixels[17].max() == 0


@pytest.mark.parametrize(
    ("values", "expected", "kind"),
    [
        ([0, 25_700, 65_535], [0, 100, 255], "<u2"),
        ([0, 25_700, 65_535], [0, 100, 255], ">u2"),
        ([0, 500_000, 1_000_000], [0, 128, 255], "i4"),
        ([0.0, 0.5, 1.0], [0, 128, 255], "f4"),
        ([0.0, 100.0, 255.0], [0, 100, 255], "f4"),
        ([0.0, 25_700.0, 65_535.0], [0, 100, 255], "f4"),
        ([-1.0, 0.0, 1.0], [0, 128, 255], "f4"),
        ([0.0, 5e5, 1e6], [0, 128, 255], "f4"),
        ([float("nan"), 1.0, float("inf")], [0, 255, 0], "f4"),
        ([-3e38, 0.0, 3e38], [0, 128, 255], "f4"),
        ([-5.0, -5.0, -5.0], [0, 0, 0], "f4"),
        ([0.0, 0.0, 0.0], [0, 0, 0], "f4"),
    ],
)
def test_tiff_of_many_bits(values, expected, kind):
    rows = np.tile(np.array(values, kind).repeat(16), (48, 1))
    pixels = decode_image(made.encoded(Image.fromarray(rows), "TIFF"), "a", 48)
    assert_close(pixels[24, [4, 24, 43]], np.array(expected)[:, None], 1)


# --- large pictures --------------------------------------------------------------------------


def test_draft_changes_a_large_jpeg_by_a_few_grey_levels():
    data = made.encoded(made.scene((3000, 2400)), "JPEG", quality=90)

    with Image.open(io.BytesIO(data)) as picture:
        full = picture.resize((224, 224), Image.Resampling.BICUBIC)
    assert_close(decode_image(data, "a"), full, 4)


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


@pytest.mark.parametrize("format", CONTAINERS)
def test_pixels_of_containers(format):
    data = made.encoded(made.plain(size=(64, 64)), format)
    with pytest.raises(ImageError, match="has 12000 x 10000 pixels; at most 89 million"):
        decode_image(made.claims(data, 12_000, 10_000), "a")


def test_a_heic_that_claims_fewer_pixels_than_it_holds_costs_little_memory(tmp_path):
    large = made.encoded(made.plain(size=(4000, 4000)), "HEIF", **SOON)
    path = made.write_picture(tmp_path / "a", made.claims(large, 64, 64))
    code = (
        "import resource, sys, pathlib\n"
        "from sgmft.data.preprocessing.images import ImageError, decode_image\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "decode_image(pathlib.Path(sys.argv[2]).read_bytes(), 'b')\n"
        "before = peak()\n"
        "try: decode_image(data, 'a')\n"
        "except ImageError as error: print(peak() - before, error)\n"
    )
    small = made.write_picture(tmp_path / "b", made.encoded(made.plain(), "HEIF"))
    command = [sys.executable, "-c", code, path, small]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    spent, why = ended.stdout.strip().split(" ", 1)
    assert why == "a is cut off or damaged" and int(spent) < 100, ended.stdout


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
    assert reason(write(b"<html>404</html>")).startswith(
        "a.jpg holds HTML, which is not read (JPEG, P"
    )
    assert reason(write(b"\xff")).startswith("a.jpg is not a picture")
    assert reason(write(made.truncated())) == "a.jpg is cut off or damaged"
    assert reason(write(b"\xff\xd8\xff\xe0")) == "a.jpg is cut off or damaged"
    assert reason(tmp_path) == f"{tmp_path.name} is a folder, not a file"
    os.mkfifo(tmp_path / "pipe.jpg")  # it is not opened, nor is a device
    assert reason(tmp_path / "pipe.jpg") == "pipe.jpg is a device or pipe, not a file"
    assert reason("/dev/zero") == "zero is a device or pipe, not a file"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "HEIF"])
def test_truncated(format):
    data = made.truncated(made.encoded(made.scene((80, 60)), format))
    with pytest.raises(ImageError, match="cut off or damaged"):
        decode_image(data, "a")


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_without_its_last_bytes_is_as_the_whole(options, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = made.encoded(made.scene((640, 480)), "JPEG", exif=exif, **options)
    for short in (data[:-2], data[:-1]):
        assert_close(decode_image(short, "a"), decode_image(data, "a"), 0)
        assert describe_cut(short, "a") == "a is cut off; what there is of it is used"
    assert describe_cut(data, "a") is None and describe_cut(data + b"behind", "a") is None


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize(("share", "used"), [(0.9, True), (0.75, True), (0.4, False), (0.1, False)])
def test_most_of_a_picture_is_enough(format, share, used):
    noise = np.random.default_rng(0).integers(60, 200, (480, 640, 3), np.uint8)
    data = made.encoded(Image.fromarray(noise), format)  # as many bytes in every row
    short = data[: int(len(data) * share)]
    if used:
        pixels = decode_image(short, "a")
        end = int(224 * (share - 0.1))
        assert_close(pixels[:end], decode_image(data, "a")[:end], 0)
        assert pixels.min() > 20  # no black was put in
        assert describe_cut(short, "a")
    else:
        with pytest.raises(ImageError, match="a is cut off or damaged"):
            decode_image(short, "a")


def test_a_png_without_its_last_chunk_is_as_the_whole():
    data = made.encoded(made.scene((64, 48)))
    assert_close(decode_image(data[:-12], "a"), decode_image(data, "a"), 0)
    assert describe_cut(data[:-12], "a") and describe_cut(data, "a") is None


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "I;16"])
def test_a_cut_png_of_any_mode(mode):
    grey = np.random.default_rng(0).integers(60, 200, (480, 640), np.uint8)
    picture = Image.fromarray(grey.astype(np.uint16) * 257 if mode == "I;16" else grey)
    data = made.encoded(picture if mode == "I;16" else picture.convert(mode))
    pixels = decode_image(data[: len(data) * 8 // 10], "a")
    assert_close(pixels[:150], decode_image(data, "a")[:150], 0)
    assert pixels.min() > 20


def test_of_a_progressive_jpeg_the_first_scans_are_not_enough():
    data = made.encoded(made.scene((640, 480)), "JPEG", progressive=True)
    starts = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    with pytest.raises(ImageError, match="a is cut off or damaged"):
        decode_image(data[: starts[2] + 20], "a")
    decode_image(data[: starts[-1] + 20], "a")


def test_other_formats_are_not_tried():
    for format in ("PPM", "ICO", "EPS", "PCX", "TGA"):
        why = (
            "is not a picture" if format not in ("PPM", "ICO") else f"holds {format}, which is not"
        )
        with pytest.raises(ImageError, match=why):
            decode_image(made.encoded(made.plain(), format), "a")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("SVG", b"<?xml version='1.0'?>\n<!-- html --><svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("SVG", b"\xef\xbb\xbf  <svg viewBox='0 0 1 1'><script>1</script></svg>"),
        ("HTML", b"\r\n<!DOCTYPE html><p>a</p><svg></svg>"),
        ("HTML", "<HTML>没有".encode("utf-16")),
        ("JPEG 2000", made.encoded(made.plain(), "JPEG2000")),
        ("JPEG XL", b"\xff\x0a" + b"\0" * 30),
        ("AVI", film.video(film.coloured(4), "avi", "mpeg4")),
        ("FLV", film.video(film.coloured(4), "flv", "flv")),
        ("WMV", film.video(film.coloured(4), "asf", "wmv2")),
        ("MPEG-TS", film.video(film.coloured(4), "mpegts", "libx264")),
        ("MPEG", film.video(film.coloured(4), "mpeg", "mpeg2video")),
        ("PDF", made.encoded(made.plain(), "PDF")),
    ],
)
def test_the_true_kind_is_named_whatever_the_suffix(kind, data):
    with pytest.raises(ImageError, match=rf"^a\.jpg holds {kind}, which is not read \(JPEG, PNG"):
        decode_media(data, "a.jpg")


@pytest.mark.parametrize(
    "data", [b"", b"<", b"G" * 3, b"<p>no svg here", b"\0" * 600, b"Good morning", b"RIFF1234"]
)
def test_no_kind_is_made_up(data):
    assert images._identify(data) is None


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
