"""Odd picture files, made on the spot, as bytes."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features
from pillow_heif import register_heif_opener

register_heif_opener()  # writes HEIC; the package under test does not ask for it

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
HAS_AVIF = bool(features.check("avif"))
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "HEIF", *(("AVIF",) if HAS_AVIF else ()))


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The picture as a file of that format."""
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def plain(color: Any = RED, size: tuple[int, int] = (32, 24), mode: str = "RGB") -> Image.Image:
    """A picture of one colour."""
    return Image.new(mode, size, color)


def quarters(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Red, green / blue, white: every way to turn or mirror it shows."""
    width, height = size
    picture = Image.new("RGB", size, RED)
    picture.paste(GREEN, (width // 2, 0, width, height))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    picture.paste(WHITE, (width // 2, height // 2, width, height))
    return picture


def scene(size: tuple[int, int]) -> Image.Image:
    """Smooth colours with some texture, like a photograph."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    red = 127 + 100 * np.sin(x / width * 9) * np.cos(y / height * 5)
    green = 255 * x / width
    blue = 127 + 60 * np.sin(y / 15)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def turned(picture: Image.Image, orientation: int, format: str = "JPEG") -> bytes:
    """A file whose EXIF says how to hold it; the pixels are as given."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if format == "JPEG" else {}
    if format == "HEIF":  # its own turn, made of this, and no orientation in the EXIF
        picture.info["exif"] = exif.tobytes()
        return encoded(picture, format)
    return encoded(picture, format, exif=exif, **options)


def animated(format: str = "GIF") -> bytes:
    """Red first, then blue."""
    return encoded(
        plain(RED), format, save_all=True, append_images=[plain(BLUE)], duration=100, loop=0
    )


def grey16(values: Any) -> bytes:
    """A 16-bit greyscale PNG of these values."""
    rows = np.asarray(values, dtype=">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    return png(rows.shape[1], rows.shape[0], raw, depth=16, color=0)


def png(width: int, height: int, raw: bytes, depth: int = 8, color: int = 2) -> bytes:
    """A PNG with any header; `raw` are its scan lines, which may be too few."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def bomb(width: int = 40_000, height: int = 40_000) -> bytes:
    """A PNG of a few bytes whose header claims that many pixels."""
    return png(width, height, b"\0" * 100)


def claims(data: bytes, width: int, height: int) -> bytes:
    """The HEIC or AVIF of one picture, its header changed to claim that many pixels."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def generic_brand(data: bytes) -> bytes:
    """The HEIC or AVIF with mif1 for its major brand, its own only among the compatible ones."""
    return data[:8] + b"mif1" + data[12:]


def truncated(data: bytes | None = None) -> bytes:
    """The first half of a file; of a JPEG by default."""
    data = encoded(scene((200, 150)), "JPEG") if data is None else data
    return data[: len(data) // 2]


def write_picture(path: Path, data: bytes | None = None) -> Path:
    """Write these bytes, or a small red picture in the format of the name; return the path."""
    if data is None:
        suffix = path.suffix.lstrip(".").upper()
        data = encoded(plain(), {"JPG": "JPEG", "TIF": "TIFF"}.get(suffix, suffix or "PNG"))
    path.write_bytes(data)
    return path
