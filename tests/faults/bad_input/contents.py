"""Texts, images, videos and whole posts, as bytes that anybody may have made.

Whatever is written, cleaning gives text, and twice gives the same as once. Any bytes of a file are
squares of pixels, or one sentence. A post is a text and up to three files.
"""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
from bad_input.collected import COLLECTED
from bad_input.tables import TABLES
from bad_input.target import Outcome, Target, one_line, promise, watched

import image_files as made
import video_files as film
from sgmft.data.posts import Attachment, Post
from sgmft.data.preprocessing.images import ImageError
from sgmft.data.preprocessing.media import MAX_FRAMES, MAX_SECONDS, decode_media, is_multi_image
from sgmft.data.preprocessing.text import (
    CLEANINGS,
    MAX_CHARACTERS,
    Cleaning,
    clean_text,
    split_words,
)
from sgmft.features.encode import MAX_IMAGES, encode_prepared, prepare_post
from tiny_encoder import TinyEncoder

_STEPS = list(Cleaning.__dataclass_fields__)


def text_of(data):
    """Decode bytes to any text: UTF-8, with lone surrogates, or else three bytes a character."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return "".join(
            chr(int.from_bytes(data[at : at + 3], "little") % 0x110000)
            for at in range(0, min(len(data), 3 * MAX_CHARACTERS), 3)
        )


def cleaning_of(data):
    """Return the cleaning of a case: one of those with a name, or any steps."""
    which = data[0] if data else 0
    if which < 128:
        return list(CLEANINGS.values())[which % len(CLEANINGS)]
    steps = int.from_bytes(data[:2].ljust(2, b"\0"), "big")
    return Cleaning(*(bool(steps >> bit & 1) for bit in range(len(_STEPS))))


def check_text(data):
    """Clean the text of all bytes but the first two, which choose the cleaning."""
    text, cleaning = text_of(data[2:]), cleaning_of(data)
    with watched(None):
        cleaned = clean_text(text, cleaning)
        whole = replace(cleaning, stop_words=False)
        once = clean_text(text, whole)
        again = clean_text(once, whole)
        found = split_words(text, cleaning, 50)
    for part in (cleaned, *found):
        part.encode()
    promise(once == again, f"cleaning twice: {once!r:.200} became {again!r:.200}")
    promise(cleaned == " ".join(cleaned.split()), f"spaces: {cleaned!r:.200}")
    promise(len(once) <= MAX_CHARACTERS, f"{len(once)} characters are left")
    promise(len(cleaned) <= 36 * max(len(text), 1), f"{len(text)} became {len(cleaned)}")
    promise(
        all(word and not any(map(str.isspace, word)) for word in found), f"words: {found!r:.200}"
    )
    if cleaning.stop_words and len(found) < 50:
        promise(
            "".join(found) == cleaned.replace(" ", ""),
            f"{found!r:.200} are not the words of {cleaned!r:.200}",
        )
    return Outcome(1) if cleaned else Outcome(refused=Counter(["nothing is left"]))


_TEXTS = (
    "转发微博//@小明:电影院[二哈]//@user_2：学校 http://t.cn/A6abc回家 #北京美食#好吃 回复@a:b",
    "We're at the cinema 😂👨‍👩‍👧 www.example.com/x RT @name: so good!!! a@b.com",
    "ﷺ ½ ｆｕｌｌ　ｗｉｄｔｈ é e\u0301 한국어 ありがとう हिन्दी ไทย Привет",
    "[doge] 😂 http://t.cn/A 的",
    "家" * 300 + "[doge]" * 40 + "@" * 200 + "/" * 200 + "t.cn/" * 50,
)
_TEXT_WORDS = (
    *"@:：[]#.-/，()'?! \0a1家",
    *("//", "转发微博", "Repost", "回复", "http://", "https://", "t.cn/", "RT ", "www.", ".com/"),
    *("🏽", "🇨", "🇳", "ﷺ", "👨\u200d", "\u200d", "\ufe0f", "\u20e3", "\u0301", "\u3164", "\u034f"),
    *("\u2028", "\u202e", "\ufeff", "\U000e0067", "\U000e0001", "\ud800", "\udc00"),
    *("a." * 300, "www." * 200, "@a." * 200, "[a" * 300, "//@" * 300, "http://" * 200),
    "\u0301" * 800,
)
TEXTS = [
    Target(
        "texts",
        check_text,
        lambda: [
            bytes([way, 0]) + text.encode() for way in (0, 1, 2, 255, 129, 170) for text in _TEXTS
        ],
        [word.encode("utf-8", "surrogatepass") for word in _TEXT_WORDS],
    )
]

SIZE = 16


def check_file(data):
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
def still_seeds():
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
def tiff_seeds():
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
def moving_seeds():
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

BETWEEN = b"\n--next--\n"


def check_post(data):
    """Prepare and encode the post whose text and files stand `BETWEEN` each other in `data`."""
    written, *files = data.split(BETWEEN)[:4]
    post = Post(text_of(written), [Attachment(file, "a.jpg") for file in files])
    encoder = _encoder()
    with watched(None):
        content = prepare_post(post, encoder.info)
        if isinstance(content, str):
            return Outcome(refused=Counter([one_line(content)]))
        again = prepare_post(post, encoder.info)
        rows = encode_prepared([content], encoder, True, {})
    promise(not isinstance(again, str) and again.key == content.key, "another key, the second time")
    promise(len(content.images) == len(content.files) <= MAX_IMAGES, "pictures without a file")
    promise(bool(content.text or content.images), "nothing to encode")
    row = rows[content.key]
    for values in (row.text, row.images):
        promise(values is None or bool(np.isfinite(values).all()), "features that are no numbers")
    return Outcome(1)


@cache
def _encoder():
    return TinyEncoder()


def _seeds():
    stills, moving = still_seeds(), moving_seeds()
    texts = ["在电影院看电影 [二哈] http://t.cn/a", "Good food 😂", ""]
    posts = [[text.encode()] for text in texts[:2]]
    posts += [[texts[i % 3].encode(), still] for i, still in enumerate(stills[:8])]
    posts += [[texts[0].encode(), stills[0], stills[1], moving[0]], [b"", moving[-1]]]
    return [BETWEEN.join(post) for post in posts]


PREPARED = [
    Target(
        "whole posts",
        check_post,
        _seeds,
        [BETWEEN, b"\xff\xd8\xff\xe0", b"[doge]", b"//@a:", b"\xed\xa0\x80", b"ftypisom", b"\0"],
        4 * MAX_SECONDS,
    )
]
TARGETS = {x.name: x for x in (*TABLES, *COLLECTED, *TEXTS, *PICTURES, *PREPARED)}
