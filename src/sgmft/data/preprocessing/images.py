"""Image preprocessing: any picture file to RGB pixels, squared (paper, section 4.2) or not."""

import io
import re
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, ImageOps, JpegImagePlugin

from sgmft.errors import TEXTS, Message, SgmftError, make_printable
from sgmft.utils.runtime import silence_libraries

MAX_PIXELS = 89_478_485  # larger pictures are refused from their header; Pillow warns above it
MILLIONS = MAX_PIXELS // 10**6
MAX_BYTES = 64 * 1024 * 1024  # larger files are refused unread (64 MiB)
Pixels = npt.NDArray[np.uint8]
Opened = ImageFile.ImageFile
LARGEST = 4096  # pixels of the longer side of a picture that is not squared, and how many times it
LONGEST = 32  # may be the shorter: what a model prepares them by can need gigabytes for more

# By first bytes: Image.open would warn of large pictures first, and try forty formats on others.
_KINDS = tomllib.loads(Path(__file__).with_name("kinds.toml").read_text("utf-8"))
_MARKS = ({k: mark.encode("latin-1") for k, mark in _KINDS[x].items()} for x in ("read", "other"))
_READ, _OTHER = ({k: re.compile(mark, re.DOTALL) for k, mark in x.items()} for x in _MARKS)
_NAMES = "JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF, HEIC"
_AVIF, _HEIF = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"heif", b"mif1", b"msf1"}
_MARKUP = re.compile(rb"<(?:!doctype\s+|\w+:)?(svg|html|head|body|script|div)\b", re.I)
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # of a JPEG, but what its pixels may hold


class ImageError(SgmftError):
    """A picture that cannot be used: one sentence with the file's name; the caller adds where."""


def read_image(path: str | Path, most: int = MAX_BYTES) -> bytes:
    """Return the bytes of a regular file, never a pipe or device; ImageError for over `most`."""
    path = Path(path)
    name = make_printable(path.name or str(path))
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a device or pipe"
            raise ImageError("{name} is {kind}, not a file", name=name, kind=kind)
        check_size(about.st_size, name, most)
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("there is no file {name}", name=name) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise ImageError("{name} cannot be read: {why}", name=name, why=why) from None
    except ValueError:  # a NUL, or a character the file system cannot hold
        raise ImageError("{name} is not a possible file name", name=name) from None
    check_size(len(data), name, most)  # it may have grown
    return data


def check_size(count: int, name: str, most: int) -> None:
    """Raise ImageError unless there are from 1 to `most` bytes."""
    name = make_printable(name)
    if not count:
        raise ImageError("{name} is empty (0 bytes)", name=name)
    if count > most:
        raise ImageError(TEXTS["many bytes"], name=name, count=count, most=most >> 20)


def decode_image(data: bytes, name: str, size: int | None = 224) -> Pixels:
    """Decode the bytes of a picture to (size, size, 3) or, as it is, (height, width, 3) RGB, uint8.

    It is turned upright by its EXIF orientation and squashed, not cropped, by bicubic interpolation
    as in Chinese-CLIP; without a `size` within `LARGEST` and `LONGEST` only. Of an animation the
    first frame is read; transparent parts become white. ImageError where it is none, or too large.
    """
    if size is not None and size < 1:
        raise SgmftError(f"the size of a picture is {size}; give 1 pixel or more")
    with open_image(data, name) as picture:
        return square(picture, size)


@contextmanager
def open_image(data: bytes, name: str, file: io.BytesIO | None = None) -> Iterator[Opened]:
    """Open a picture for `square`, from `file` if given; all that fails raises ImageError."""
    name = make_printable(name)
    check_size(len(data), name, MAX_BYTES)
    if (plugin := _plugin(data)) is None:
        why = TEXTS["other format" if (kind := _identify(data)) else "no format"]
        raise ImageError(why, name=name, kind=kind, kinds=_NAMES)
    try:
        with silence_libraries(), plugin(file or io.BytesIO(data)) as picture:
            if (width := picture.width) * (height := picture.height) > MAX_PIXELS:
                size = {"width": width, "height": height}
                raise ImageError(TEXTS["large picture"], name=name, **size, most=MILLIONS)
            yield picture
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(TEXTS["many pixels"], name=name, most=MILLIONS) from None
    except MemoryError:
        raise ImageError(TEXTS["no memory"], name=name) from None
    except Exception:  # hostile bytes make the plugins raise nearly every exception there is
        raise ImageError(TEXTS["cut off"], name=name) from None


def count_pixels(data: bytes, name: str) -> int | None:
    """Return the pixel count in a picture's header, however large; None for what is no picture."""
    if (plugin := _plugin(data)) is not None and len(data) <= MAX_BYTES:
        with suppress(Exception), silence_libraries(), plugin(io.BytesIO(data)) as picture:
            return picture.width * picture.height
    return None


def _plugin(data: bytes) -> type[Opened] | None:
    if data[4:8] != b"ftyp":
        kind = next((kind for kind, mark in _READ.items() if mark.match(data)), None)
        name = f"PIL.{kind}ImagePlugin"
        return None if kind is None else getattr(import_module(name), f"{kind}ImageFile")
    others = range(16, min(int.from_bytes(data[:4]), 256), 4)  # behind the major one's version
    brands = [data[i : i + 4] for i in (8, *others)]
    if brands[0] not in _AVIF | _HEIF:
        return None
    if _AVIF & {*brands} and not brands[0].startswith(b"hei"):  # mif1 is of either
        with suppress(ImportError):  # Pillow reads AVIF since 11.3, where it was built with it
            from PIL import AvifImagePlugin as Avif

            return Avif.AvifImageFile if Avif.SUPPORTED else None
        return None
    from pillow_heif import HeifImageFile

    return HeifImageFile


def _identify(data: bytes) -> str | None:
    """Return the kind of a file that is not read, by its first bytes; None where it is unknown."""
    head = data[:4096].replace(b"\0", b"")  # also of UTF-16
    if head.lstrip(b"\xef\xbb\xbf\xfe\xff \t\r\n").startswith(b"<"):
        found = _MARKUP.search(head)
        return None if found is None else "SVG" if found[1].lower() == b"svg" else "HTML"
    return next((kind for kind, mark in _OTHER.items() if mark.match(data)), None)


def square(picture: Opened, size: int | None) -> Pixels:
    """Decode an opened picture, or the frame it stands at: squashed, and then turned upright."""
    # A JPEG can decode straight to a smaller picture; the margin of 2 keeps bicubic honest.
    if picture.format == "JPEG" and size:  # of a HEIC it would be the thumbnail, of what it shows
        picture.draft(None, (2 * size, 2 * size))
    loaded = _load(picture, size)
    whole = to_8_bits(loaded, loaded.format)  # in the order that keeps colours right
    small = squash(whole.convert("RGBA" if whole.has_transparency_data else "RGB"), size)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
    # TIFF turns itself while loading and then forgets its orientation, so this comes after.
    with suppress(Exception):  # damaged metadata must not cost a good picture
        key = ExifTags.Base.Orientation
        orientation = picture.getexif().get(key, 1)
        small.info.clear()  # the rest is of no use here
        small.getexif()[key] = orientation
        small = ImageOps.exif_transpose(small)
    return np.array(small, dtype=np.uint8)


def describe_cut(data: bytes, name: str) -> str | None:
    """Return a warning against a JPEG or PNG without its end, of which `square` uses the rest."""
    why = Message("{name} is cut off; what there is of it is used", name=make_printable(name))
    return why if _lacks_end(data) else None


def _lacks_end(data: bytes) -> bool:
    if data.startswith(b"\xff\xd8\xff"):
        return not data.endswith(b"\xff\xd9") and jpeg_end(data) == len(data)
    return data.startswith(b"\x89PNG") and b"IEND\xaeB`\x82" not in data


def jpeg_end(data: bytes) -> int:
    """Return where the first JPEG ends, going from marker to marker; else the file's end."""
    at = 2
    while found := _MARKER.search(data, at):
        at, kind = found.end(), found[0][1]
        if kind == 0xD9:
            return at
        if kind not in (0x01, 0xD8):
            at += int.from_bytes(data[at : at + 2])
    return len(data)


def _load(picture: Opened, size: int | None) -> Image.Image:
    """Decode a picture; of a JPEG or PNG without its end, what there is, if that is most of it."""
    try:
        picture.load()
    except OSError:
        file = picture.fp
        if not isinstance(file, io.BytesIO) or not _lacks_end(file.getvalue()):
            raise
        picture.tile = []  # what was decoded stands there, and rows of zeros follow
        rows = np.asarray(picture).reshape(picture.height, -1).any(axis=1)
        seen = int(np.flatnonzero(rows).max(initial=-1)) + 1
        # A progressive JPEG holds the whole picture in its first scans, if coarsely.
        scans = file.getvalue().count(b"\xff\xda") if "progressive" in picture.info else 0
        if picture.info.get("interlace") or (seen < 0.6 * picture.height and scans < 4):
            raise
        if picture.format == "PNG":  # the last row stands for those that are missing
            last = picture.crop((0, seen - 1, picture.width, seen))
            picture.paste(last.resize((picture.width, picture.height - seen + 1), 0), (0, seen - 1))
            return picture
        file.seek(0, io.SEEK_END)
        file.write(b"\xff\xd9")  # with an end, the decoder gives its last rows, too
        file.seek(0)
        picture = JpegImagePlugin.JpegImageFile(file)
        if size:
            picture.draft(None, (2 * size, 2 * size))
        picture.load()
    return picture


def squash(picture: Image.Image, size: int | None) -> Image.Image:
    """Bring a picture to (size, size), whatever its proportions, or within the limits."""
    sides = [min(side, LONGEST * min(picture.size)) for side in picture.size]
    width, height = (size or round(side * min(1, LARGEST / max(sides))) for side in sides)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def to_8_bits(picture: Image.Image, format: str | None) -> Image.Image:
    """Return a picture of a file of that format; grey values of more than 8 bits are scaled.

    Unsigned 16-bit ones are of the full range. Others do not say what white is: 1, 255 or 65535 for
    values from 0 up to there (1 for floats only), else the largest, the smallest being black.
    """
    if picture.mode != "F" and not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture)
    if format == "PNG":  # 16 bits, whichever mode this version of Pillow gives them
        values = values.astype(np.uint16)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return Image.fromarray((values // np.asarray(257, values.dtype)).astype(np.uint8))
    with np.errstate(all="ignore"):
        grey = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
        low, high = float(grey.min()), float(grey.max())
        whites = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
        white = next((white for white in whites if high <= white), 0.0)
        if low < 0 or not white:
            grey, white = grey - low, max(high - low, 1e-30)
        return Image.fromarray(np.clip(grey * (255 / white) + 0.5, 0, 255).astype(np.uint8))
