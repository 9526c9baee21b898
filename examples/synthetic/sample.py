"""A seeded set of synthetic posts, for trying the package and testing it; never a benchmark."""

import json
import os
import re
import struct
import tomllib
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import cache
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sgmft.errors import SgmftError
from sgmft.utils.files import check_output, write_whole, writing
from synthetic.scenes import PLACES, draw_scene

Row = dict[str, Any]
Phrases = Mapping[str, Sequence[str]]
BLOCK = len(PLACES)  # posts in which each label occurs once
FOLD = 5  # blocks in which each label is a test post once
NO_PICTURE = 0.285  # of the posts whose text alone tells the place
NO_TEXT = 0.136  # of the posts whose pictures alone tell it
ELSEWHERE = 0.65  # of the posts whose text alone tells it and that have pictures: another place
# Where posts are written when: the share of them on Monday to Friday, the mean hour, its deviation.
_TIMES = ((0.6, 22, 3), (0.95, 11, 3), (0.95, 13, 3), (0.4, 16, 3), (0.5, 20, 2), (0.3, 13, 4))
TIMES = dict(zip(PLACES, (*_TIMES, (0.6, 18, 4)), strict=True))
FORMATS = {"jpg": 0.94, "png": 0.03, "webp": 0.02, "gif": 0.01}
QUALITY = 80  # of JPEG and WebP
HERE = Path(__file__).parent


def write_sample(
    folder: str | Path,
    posts: int = 1400,
    seed: int = 0,
    damaged: int = 0,
    noise: float = 0.35,
    users: int = 60,
    on_written: Callable[[int], object] = lambda written: None,
    several: float = 0.12,
) -> Path:
    """Write `posts.jsonl`, its pictures under `images/`, and a README; return the table's path.

    The same arguments give the same table and the same pixels, and the first posts of a larger set.

    Args:
        folder: new, empty, or with an earlier sample, which is replaced.
        posts: the seven labels are balanced, 80 % are for training.
        damaged: rows that follow; their column `damage` names the kind.
        noise: 0 to 1. Scales the share of posts whose place only the text (0.8 x noise) or only
            the pictures (0.63 x noise) tell, that have no picture (0.23 x noise) or no text
            (0.086 x noise), and how disturbed texts and pictures are.
        users: authors; each has a favourite place and a pet phrase.
        several: 0 to 1. The share of posts with 2 to 9 pictures, if they have any.
    """
    options: dict[str, float] = {"posts": posts, "seed": seed, "damaged": damaged, "users": users}
    for (name, value), least in zip(options.items(), (7, 0, 0, 1), strict=True):
        if value < least:
            raise SgmftError(f"{name} is {value}; give at least {least}.")
    for name, share in {"noise": noise, "several": several}.items():
        if not 0 <= share <= 1:
            raise SgmftError(f"{name} is {share}; give a number from 0 to 1.")
    folder, options = Path(folder), options | {"noise": noise, "several": several}
    table, unfinished = folder / "posts.jsonl", folder / "posts.jsonl.part"
    with writing(folder):
        _prepare(folder, ", ".join(f"{name} = {value}" for name, value in options.items()))
        with unfinished.open("w", encoding="utf-8", newline="\n") as out:
            rows = (plan_post(seed, index, users, noise) for index in range(posts))
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                lines = pool.map(lambda row: _write_post(folder, row, seed, noise, several), rows)
                for index, line in enumerate(lines):
                    out.write(line)
                    on_written(index + 1)
            for index, kind in zip(range(posts, posts + damaged), cycle(KINDS)):
                out.write(_damaged_line(folder, plan_post(seed, index, users, 0.0), seed, kind))
        unfinished.replace(table)
    return table


def _prepare(folder: Path, options: str) -> None:
    text = HERE.joinpath("sample.md").read_text("utf-8").format(options=options)
    readme, table, images = folder / "README.md", folder / "posts.jsonl", folder / "images"
    ours = _first_line(readme) == text.partition("\n")[0]
    ours &= not table.exists() or '"synthetic": true' in _first_line(table)
    check_output(folder, ours, "sample")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(readme, text.encode())  # first: it marks the folder as ours if the rest is stopped
    images.mkdir(exist_ok=True)
    table.unlink(missing_ok=True)
    for path in images.iterdir():  # what else is there stays
        if re.fullmatch(r"\d{5,}_\d\.(jpg|png|webp|gif)", path.name):
            path.unlink()


def _first_line(path: Path) -> str:
    return path.read_text("utf-8", "replace").partition("\n")[0] if path.is_file() else ""


def _rng(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng((seed, *purpose.encode()))


def plan_post(seed: int, index: int, users: int, noise: float) -> Row:
    """Return the row of post number `index`, still without text and pictures."""
    block, place = divmod(index, BLOCK)
    label = int(_rng(seed, f"labels {block}").permutation(BLOCK)[place])
    fold = _rng(seed, f"split {block // FOLD}").permutation(BLOCK)
    rng = _rng(seed, f"plan {index}")
    shares = np.array([max(0.0, 1 - 1.43 * noise), 0.8 * noise, 0.63 * noise])
    informative = ("both", "text", "image")[rng.choice(3, p=shares / shares.sum())]
    fans = range(label, users, BLOCK)  # whose favourite place it is: they write half of its posts
    user = int(rng.choice(fans) if fans and rng.random() < 0.5 else rng.integers(users))
    weekdays, hour, deviation = TIMES[PLACES[label]]
    rng, own = _rng(seed, f"time {index}"), _rng(seed, f"author {user}")
    day = rng.integers(5) if rng.random() < weekdays else rng.integers(5, 7)
    minutes = rng.normal(hour, deviation) * 60 % 1440 + 1440 * float(day + 7 * rng.integers(52))
    time = datetime(2024, 1, 1) + timedelta(minutes=minutes)  # a Monday
    return {
        "id": f"post-{index:05d}",
        "user": f"user{user:03d}",
        "text": "",
        "images": [],
        "label": PLACES[label],
        "informative": informative,
        "split": "test" if fold[label] % FOLD == block % FOLD else "train",
        "synthetic": True,
        "time": f"{time:%Y-%m-%d %H:%M}",  # which the place decides in part
        "gender": ("f", "m")[own.integers(2)],  # of the author: it tells nothing, as the next
        "followers": int(own.lognormal(5, 2)),
    }


def _write_post(folder: Path, row: Row, seed: int, noise: float, several: float) -> str:
    rng, place = _rng(seed, row["id"]), None if row["informative"] == "image" else row["label"]
    if place or rng.random() >= NO_TEXT:
        row["text"] = write_text(rng, place, row["user"], noise)
    for number, shown in enumerate(_choose_scenes(rng, row, noise, several)):
        suffix = rng.choice([*FORMATS], p=[*FORMATS.values()])
        row["images"].append(f"images/{row['id'][5:]}_{number}.{suffix}")
        draw_scene(rng, shown, noise).save(folder / row["images"][-1], quality=QUALITY)
    return json.dumps(row, ensure_ascii=False) + "\n"


def _choose_scenes(rng: np.random.Generator, row: Row, noise: float, several: float) -> list[Any]:
    """Return what each picture of a post shows: a place, or None for something unrelated."""
    number, label = int(rng.integers(2, 10)) if rng.random() < several else 1, row["label"]
    if row["informative"] == "text":
        if rng.random() < NO_PICTURE:
            return []
        other = _pick(rng, [x for x in PLACES if x != label]) if rng.random() < ELSEWHERE else None
        return [other if rng.random() < 0.7 else None for _ in range(number)]
    shown = [None if rng.random() < noise else label for _ in range(number)]
    shown[rng.integers(number)] = label
    return shown


# --- texts, in simplified Chinese, composed from `phrases/*.toml` and made noisy


def write_text(rng: np.random.Generator, place: str | None, user: str, noise: float) -> str:
    """Write one post of a user who has a pet phrase; without a `place`, chatter that tells none.

    `noise` is 0 (one or two plain sentences that name the place) to 1 (mostly hints, words of
    other places, links, mentions, retweets, emoticons, emoji, hashtags, English, typos).
    """
    lists = dict(_phrases("anywhere"))
    if place is None:
        parts = [_fill(rng, lists, "chatter") for _ in range(rng.integers(1, 3))]
    else:
        kind = "hints" if rng.random() < 1.6 * noise else "templates"
        parts = [_fill(rng, _phrases(place), kind)]
        if rng.random() < 0.3:
            parts.append(_fill(rng, lists, "chatter"))
        if rng.random() < 1.7 * noise:
            other = _pick(rng, [name for name in PLACES if name != place])
            parts.append(_fill(rng, _phrases(other), "asides"))
        if rng.random() < 0.3:
            lists["tags"] = _phrases(place)["topics"]
    while rng.random() < 0.8 * noise and len(parts) < 5:
        parts.append(_fill(rng, lists, "filler"))
    if rng.random() < 0.25:
        parts.append(lists["signs"][zlib.crc32(user.encode()) % len(lists["signs"])])
    if noise:
        rng.shuffle(parts)
    text = "".join(part + _pick(rng, "，。！～… ") for part in parts).strip("， ")
    for right, wrong in (pair.split(">") for pair in lists["typos"]):
        if rng.random() < 0.25 * noise:
            text = text.replace(right, wrong, 1)
    if len(text) > 8 and rng.random() < 0.4 * noise:
        lost = int(rng.integers(1, len(text) - 1))
        text = text[:lost] + text[lost + 1 :]
    for share, form in (line.split(" ", 1) for line in lists["decorations"]):
        if rng.random() < float(share) * noise:
            text = _fill(rng, {**lists, "text": [text], "form": [form]}, "form")
    return text


@cache
def _phrases(place: str) -> Phrases:
    name = place.lower().replace(" ", "_") + ".toml"
    source = tomllib.loads(HERE.joinpath("phrases", name).read_text("utf-8"))
    return {key: text.strip().split("\n" if "\n" in text else " ") for key, text in source.items()}


def _fill(rng: np.random.Generator, lists: Phrases, kind: str) -> str:
    """Return one phrase of `kind`, each {slot} filled from the list of that name."""
    return re.sub(r"\{(\w+)\}", lambda slot: _pick(rng, lists[slot[1]]), _pick(rng, lists[kind]))


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


# --- rows that are broken, or merely odd, in the ways real tables are


def _damaged_line(folder: Path, row: Row, seed: int, kind: str) -> str:
    """Write a clean post, damage it, and return its line; training on the train split is safe."""
    rng, (informative, damage, cells) = _rng(seed, row["id"]), KINDS[kind]
    suffix = kind[-3:] if kind.endswith(("png", "gif")) else "jpg"
    row["images"] = [f"images/{row['id'][5:]}_0.{suffix}"]
    data = damage(draw_scene(rng, row["label"], 0.0))
    if data is not None:
        (folder / row["images"][0]).write_bytes(data)
    row["text"] = write_text(rng, row["label"], row["user"], 0.0)
    if kind == "nul-in-text":
        row["text"] = row["text"][:4] + "\0\0" + row["text"][4:]
    row |= cells | {"split": "test", "informative": informative, "damage": kind}
    line = json.dumps(row, ensure_ascii=False)
    return (line[:-2] if kind == "broken-json" else line) + "\n"


def _encode(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, quality=QUALITY, **options)
    return file.getvalue()


def _huge(image: Image.Image) -> bytes:
    """Claim 40,000 x 40,000 pixels in a file of under a hundred bytes."""
    data = _encode(image.resize((1, 1)), "PNG")
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def _sixteen_bits(image: Image.Image) -> bytes:
    return _encode(Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257), "PNG")


def _animated(image: Image.Image) -> bytes:
    others = [image.rotate(angle) for angle in (4, 8)]
    return _encode(image, "GIF", save_all=True, append_images=others, duration=200, loop=0)


def _rotated(image: Image.Image) -> bytes:
    """Store the picture lying on its side, with the EXIF note that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encode(image.transpose(Image.Transpose.ROTATE_90), exif=exif)


KINDS: Mapping[str, tuple[str, Callable[[Image.Image], bytes | None], Row]] = {
    "truncated-jpeg": ("text", lambda image: _encode(image)[:2500], {}),
    "zero-byte-file": ("text", lambda _: b"", {}),
    "text-named-jpg": ("text", lambda _: b"<html>404 Not Found</html>", {}),
    "missing-file": ("text", lambda _: None, {}),
    "outside-folder": ("text", lambda _: None, {"images": ["../secret.jpg"]}),
    "huge-png": ("text", _huge, {}),
    "duplicate-id": ("both", _encode, {"id": "post-00000"}),
    "unknown-label": ("both", _encode, {"label": "Moon"}),
    "nothing": ("", lambda _: None, {"text": "", "images": []}),
    "emoji-only": ("", lambda _: None, {"text": "😂😂✨🎉", "images": []}),
    "nul-in-text": ("both", _encode, {}),
    "broken-json": ("both", _encode, {}),
    "cmyk-jpeg": ("both", lambda image: _encode(image.convert("CMYK")), {}),
    "16-bit-png": ("both", _sixteen_bits, {}),
    "animated-gif": ("both", _animated, {}),
    "exif-rotated": ("both", _rotated, {}),
}
"""The modality that still tells the place ("": none), the file if any, and changed cells."""
