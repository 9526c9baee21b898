"""Videos and animations, made on the spot, as bytes; every frame's colour tells its number."""

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from image_files import encoded, quarters

CODECS = {"mp4": "libx264", "mov": "mpeg4", "webm": "libvpx"}
COLOURS = 64  # told apart: 4 levels of red, green and blue each


def colour(number: int) -> tuple[int, int, int]:
    """The colour of a frame: its number in base 4."""
    return number // 16 % 4 * 85, number // 4 % 4 * 85, number % 4 * 85


def number_of(pixels: np.ndarray) -> int:
    """The number of the frame that these pixels show."""
    red, green, blue = (round(float(value) / 85) for value in pixels.reshape(-1, 3).mean(0))
    return 16 * red + 4 * green + blue


def coloured(count: int, size: tuple[int, int] = (32, 24)) -> list[Image.Image]:
    return [Image.new("RGB", size, colour(number)) for number in range(count)]


def video(
    frames: Sequence[Image.Image],
    format: str = "mp4",
    codec: str = "",
    times: Sequence[int] | None = None,
    **options: str,
) -> bytes:
    """A video of these frames, ten a second, or shown at these tenths of a second."""
    buffer, own = io.BytesIO(), ("movflags", "live", "fflags")  # the container's, not the codec's
    container = {name: options.pop(name) for name in own if name in options}
    with av.open(buffer, "w", format=format, options=container) as film:
        stream = film.add_stream(codec or CODECS[format], rate=10, options=options)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_image(picture)
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, 10)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return buffer.getvalue()


def sound() -> bytes:
    """An MP4 of a tenth of a second of silence."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as film:
        stream = film.add_stream("aac", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return buffer.getvalue()


def rotated(data: bytes, quarter: int) -> bytes:
    """An MP4 or MOV to be shown turned clockwise by so many quarters, as a phone writes it."""
    one = 1 << 16
    a, b, c, d = [(one, 0, 0, one), (0, one, -one, 0), (-one, 0, 0, -one), (0, -one, one, 0)][
        quarter
    ]
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    at = data.index(plain, data.index(b"tkhd"))
    return data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]


def moving(format: str, count: int, **options: Any) -> bytes:
    """An animation of so many frames."""
    first, *rest = coloured(count)
    return encoded(first, format, save_all=True, append_images=rest, duration=100, **options)


def motion_photo(film: bytes | None = None, between: bytes = b"") -> bytes:
    """A JPEG of four quarters, and behind it an MP4."""
    film = video(coloured(16)) if film is None else film
    return encoded(quarters(), "JPEG", quality=95) + between + film
