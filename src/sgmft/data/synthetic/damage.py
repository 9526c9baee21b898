"""Rows that are broken, or merely odd, in the ways real tables are."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sgmft.data.synthetic import scenes, texts
from sgmft.data.synthetic.plan import Crowd
from sgmft.data.synthetic.posts import name, row, save

Row = dict[str, Any]

Spoil = Callable[[Row, Path], None]


def _truncate(_: Row, picture: Path) -> None:
    content = picture.read_bytes()
    picture.write_bytes(content[: len(content) // 3])


def _empty(_: Row, picture: Path) -> None:
    picture.write_bytes(b"")


def _not_a_picture(_: Row, picture: Path) -> None:
    picture.write_text("<html><body>404 Not Found</body></html>\n", encoding="utf-8")


def _missing(_: Row, picture: Path) -> None:
    picture.unlink()


def _outside(post: Row, picture: Path) -> None:
    picture.unlink()
    post["images"] = ["../secret.jpg"]


def _huge(post: Row, picture: Path) -> None:
    """Claim 40,000 x 40,000 pixels in a file of under a hundred bytes."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 16)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    _other_format(post, picture, ".png").write_bytes(content)


def _duplicate(post: Row, _: Path) -> None:
    post["id"] = name(0)


def _unknown_label(post: Row, _: Path) -> None:
    post["label"] = "Moon"


def _nothing(post: Row, picture: Path) -> None:
    picture.unlink()
    post.update(text="", images=[])


def _emoji_only(post: Row, picture: Path) -> None:
    picture.unlink()
    post.update(text="😂😂✨🎉", images=[])


def _nul(post: Row, _: Path) -> None:
    half = len(post["text"]) // 2
    post["text"] = post["text"][:half] + "\0\0" + post["text"][half:]


def _cmyk(_: Row, picture: Path) -> None:
    with Image.open(picture) as image:
        cmyk = image.convert("CMYK")
    save(cmyk, picture)


def _sixteen_bits(post: Row, picture: Path) -> None:
    with Image.open(picture) as image:
        grey = np.asarray(image.convert("L"), np.uint16) * 257
    save(Image.fromarray(grey), _other_format(post, picture, ".png"))


def _animated(post: Row, picture: Path) -> None:
    with Image.open(picture) as image:
        frames = [image.rotate(angle) for angle in (0, 4, 8)]
    path = _other_format(post, picture, ".gif")
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=200, loop=0)


def _rotated(_: Row, picture: Path) -> None:
    """Store the picture lying on its side, with the EXIF note that turns it upright."""
    with Image.open(picture) as image:
        lying = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(picture, quality=80, exif=exif)


def _other_format(post: Row, picture: Path, suffix: str) -> Path:
    """Replace the row's JPEG by a file of another format and return its path."""
    picture.unlink()
    path = picture.with_suffix(suffix)
    post["images"] = [f"images/{path.name}"]
    return path


# Kind -> how it spoils a good row, and which side still tells the place ("" for neither).
KINDS: Mapping[str, tuple[Spoil, str]] = {
    "truncated-jpeg": (_truncate, "text"),
    "zero-byte-file": (_empty, "text"),
    "text-named-jpg": (_not_a_picture, "text"),
    "missing-file": (_missing, "text"),
    "outside-folder": (_outside, "text"),
    "huge-png": (_huge, "text"),
    "duplicate-id": (_duplicate, "both"),
    "unknown-label": (_unknown_label, "both"),
    "nothing": (_nothing, ""),
    "emoji-only": (_emoji_only, ""),
    "nul-in-text": (_nul, "both"),
    "broken-json": (lambda post, picture: None, "both"),
    "cmyk-jpeg": (_cmyk, "both"),
    "16-bit-png": (_sixteen_bits, "both"),
    "animated-gif": (_animated, "both"),
    "exif-rotated": (_rotated, "both"),
}


def damaged_line(folder: Path, index: int, number: int, crowd: Crowd) -> str:
    """Write damaged post `index`, the `number`-th (from 0) of its sample, and return its line.

    The kinds take turns in the order of `KINDS`. Apart from its damage the post is a clean one,
    and belongs to the test split, so that training on the other one meets no surprise.
    """
    kind = tuple(KINDS)[number % len(KINDS)]
    plan, rng = crowd.plan(index, 0.0), crowd.make_rng("damage", index)
    picture = folder / "images" / f"{index:05d}_0.jpg"
    save(scenes.draw_scene(rng, plan.label, 0.0), picture)
    text = texts.write(rng, plan.label, plan.sign, 0.0)
    post = row(index, plan, text, [f"images/{picture.name}"])
    spoil, informative = KINDS[kind]
    spoil(post, picture)
    post.update(split="test", informative=informative, damage=kind)
    line = json.dumps(post, ensure_ascii=False)
    return line[:-2] if kind == "broken-json" else line
