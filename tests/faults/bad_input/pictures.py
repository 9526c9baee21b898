"""Pictures and videos: any bytes are squares of pixels, or one sentence."""

from collections import Counter
from functools import cache

import numpy as np
from bad_input.target import Outcome, Target, one_line, promise
from bad_input.watch import watched

import image_files as made
import video_files as film
from sgmft.data.preprocessing.images import ImageError
from sgmft.data.preprocessing.media import MAX_FRAMES, decode_media, is_multi_image
from sgmft.data.preprocessing.videos import MAX_SECONDS

SIZE = 16


def check_file(data: bytes) -> Outcome:
    """Decode the pictures of a file."""
    with watched(None):
        several = is_multi_image(data)
        try:
            pictures = decode_media(data, "a.jpg", SIZE)
        except ImageError as error:
            promise("a.jpg" in str(error), f"a reason names no file: {error}")
            return Outcome(refused=Counter([one_line(str(error))]))
    promise(1 <= len(pictures) <= MAX_FRAMES, f"{len(pictures)} pictures")
    promise(several or len(pictures) == 1, "several pictures where one is expected")
    for pixels in pictures:
        promise(pixels.shape == (SIZE, SIZE, 3), f"pixels of shape {pixels.shape}")
        promise(pixels.dtype == np.uint8, f"pixels of type {pixels.dtype}")
    return Outcome(len(pictures))


@cache
def still_seeds() -> list[bytes]:
    """Return pictures of every format that is read, and of the odd kinds of each."""
    scene = made.scene((20, 15))
    return [
        *(made.encoded(scene, format) for format in made.FORMATS if format != "TIFF"),
        made.encoded(scene, "JPEG", progressive=True),
        made.encoded(scene.convert("CMYK"), "JPEG"),
        made.encoded(scene.convert("P"), "PNG", transparency=3),
        made.encoded(scene.convert("LA"), "PNG"),
        made.encoded(scene.convert("P"), "BMP"),
        made.encoded(scene, "WEBP", lossless=True),
        made.turned(made.quarters(), 6),
        made.grey16(np.arange(100).reshape(10, 10) * 600),
        made.bomb(),
        made.bomb(9000, 9000),
    ]


@cache
def tiff_seeds() -> list[bytes]:
    """Return TIFF files; libtiff, which decodes the compressed ones, writes to standard error."""
    scene = made.scene((20, 15))
    return [
        made.encoded(scene, "TIFF"),
        *(made.encoded(scene, "TIFF", compression=f"tiff_{x}") for x in ("lzw", "jpeg", "deflate")),
        made.encoded(scene.convert("F"), "TIFF"),
        made.encoded(scene.convert("1"), "TIFF", compression="group4"),
        made.turned(made.quarters(), 6, "TIFF"),
    ]


@cache
def moving_seeds() -> list[bytes]:
    """Return animations, videos and motion photos."""
    exact = {"fflags": "bitexact"}
    mp4 = film.video(film.coloured(6), **exact)
    return [
        mp4,
        film.video(film.coloured(6), "mov", **exact),
        film.video(film.coloured(6), "webm", **exact),
        film.video(film.coloured(6), "webm", "libvpx-vp9", **exact),
        film.video(film.coloured(9), movflags="frag_keyframe+empty_moov", g="4", **exact),
        film.rotated(mp4, 1),
        film.motion_photo(mp4),
        *(film.moving(format, 6) for format in ("GIF", "PNG", "WEBP")),
        *([film.moving("AVIF", 6)] if made.HAS_AVIF else []),
    ]


_WORDS = (
    *(b"\xff\xd8\xff\xe0", b"\xff\xd9", b"\xff\xda", b"\xff\xc0", b"\xff\xc4", b"Exif\0\0II*\0"),
    *(b"\x89PNG\r\n\x1a\n", b"IHDR", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"zTXt"),
    *(b"GIF89a", b"!\xf9\x04", b"!\xff\x0bNETSCAPE2.0", b",", b";", b"BM"),
    *(b"RIFF", b"WEBP", b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"ICCP"),
    *(b"ftypisom", b"ftypavif", b"ftypavis", b"moov", b"trak", b"mdat", b"stsd", b"stts", b"ctts"),
    *(b"stsz", b"stco", b"co64", b"elst", b"moof", b"traf", b"trun", b"avc1", b"avcC", b"dref"),
    *(b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\x1fC\xb6u", b"\xa3", b"\x01\xff\xff\xff\xff\xff\xff\xff"),
)
PICTURES = [
    Target("stills", check_file, still_seeds, _WORDS, 2 * MAX_SECONDS),
    Target(
        "TIFF", check_file, tiff_seeds, [b"II*\0", b"MM\0*"], 2 * MAX_SECONDS, writes_stderr=True
    ),
    Target("videos and animations", check_file, moving_seeds, _WORDS, 2 * MAX_SECONDS),
]
