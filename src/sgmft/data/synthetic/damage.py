"""Rows that are broken, or merely odd, in the ways real tables are."""

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sgmft.data.synthetic.posts import QUALITY, Crowd, make_row, post_id
from sgmft.data.synthetic.scenes import draw_scene
from sgmft.data.synthetic.texts import write_text

Row = dict[str, Any]
Damage = Callable[[Row, Path], object]


def damaged_line(folder: Path, index: int, number: int, crowd: Crowd) -> str:
    """Write damaged post `index`, the `number`-th (from 0) of its sample, and return its line.

    The kinds take turns in the order of `KINDS`. Apart from its damage the post is a clean one,
    and belongs to the test split, so that training on the other one meets no surprise.
    """
    kind = tuple(KINDS)[number % len(KINDS)]
    plan, rng = crowd.plan(index, 0.0), crowd.make_rng("damage", index)
    picture = folder / "images" / f"{index:05d}_0.jpg"
    draw_scene(rng, plan.label, 0.0).save(picture, quality=QUALITY)
    text = write_text(rng, plan.label, plan.sign, 0.0)
    row = make_row(index, plan, text, [f"images/{picture.name}"])
    damage, informative = KINDS[kind]
    damage(row, picture)
    row.update(split="test", informative=informative, damage=kind)
    line = json.dumps(row, ensure_ascii=False)
    return line[:-2] if kind == "broken-json" else line


def _change_bytes(change: Callable[[bytes], bytes]) -> Damage:
    return lambda _, picture: picture.write_bytes(change(picture.read_bytes()))


def _remove_picture(**cells: Any) -> Damage:
    """Delete the file, and change some cells of the row."""

    def damage(row: Row, picture: Path) -> None:
        picture.unlink()
        row.update(cells)

    return damage


def _huge(row: Row, picture: Path) -> None:
    """Claim 40,000 x 40,000 pixels in a file of under a hundred bytes."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 16)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    _other_format(row, picture, ".png").write_bytes(content)


def _nul(row: Row, _: Path) -> None:
    half = len(row["text"]) // 2
    row["text"] = row["text"][:half] + "\0\0" + row["text"][half:]


def _cmyk(_: Row, picture: Path) -> None:
    _load(picture).convert("CMYK").save(picture, quality=QUALITY)


def _sixteen_bits(row: Row, picture: Path) -> None:
    grey = np.asarray(_load(picture).convert("L"), np.uint16) * 257
    Image.fromarray(grey).save(_other_format(row, picture, ".png"))


def _animated(row: Row, picture: Path) -> None:
    first, *others = [_load(picture).rotate(angle) for angle in (0, 4, 8)]
    path = _other_format(row, picture, ".gif")
    first.save(path, save_all=True, append_images=others, duration=200, loop=0)


def _rotated(_: Row, picture: Path) -> None:
    """Store the picture lying on its side, with the EXIF note that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = _load(picture).transpose(Image.Transpose.ROTATE_90)
    lying.save(picture, quality=QUALITY, exif=exif)


def _load(picture: Path) -> Image.Image:
    with Image.open(picture) as image:
        return image.copy()


def _other_format(row: Row, picture: Path, suffix: str) -> Path:
    """Replace the row's JPEG by a file of another format and return its path."""
    picture.unlink()
    path = picture.with_suffix(suffix)
    row["images"] = [f"images/{path.name}"]
    return path


KINDS: Mapping[str, tuple[Damage, str]] = {
    "truncated-jpeg": (_change_bytes(lambda data: data[: len(data) // 3]), "text"),
    "zero-byte-file": (_change_bytes(lambda _: b""), "text"),
    "text-named-jpg": (_change_bytes(lambda _: b"<html>404 Not Found</html>"), "text"),
    "missing-file": (_remove_picture(), "text"),
    "outside-folder": (_remove_picture(images=["../secret.jpg"]), "text"),
    "huge-png": (_huge, "text"),
    "duplicate-id": (lambda row, _: row.update(id=post_id(0)), "both"),
    "unknown-label": (lambda row, _: row.update(label="Moon"), "both"),
    "nothing": (_remove_picture(text="", images=[]), ""),
    "emoji-only": (_remove_picture(text="😂😂✨🎉", images=[]), ""),
    "nul-in-text": (_nul, "both"),
    "broken-json": (lambda *_: None, "both"),
    "cmyk-jpeg": (_cmyk, "both"),
    "16-bit-png": (_sixteen_bits, "both"),
    "animated-gif": (_animated, "both"),
    "exif-rotated": (_rotated, "both"),
}
"""How each kind damages a good row, and the modality that still tells the place ("": none)."""
