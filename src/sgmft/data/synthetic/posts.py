"""Synthetic posts: who writes from where, which modality tells the place, the text, the pictures.

Texts are in simplified Chinese, composed from `phrases/*.toml` and made noisy.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from sgmft.data.synthetic.scenes import draw_scene

Phrases = Mapping[str, Sequence[str]]
ALPHABET = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
PLACES = ("Home", "School", "Work", "Shopping Center", "Cinema", "Travel", "Restaurant")
BLOCK = len(PLACES)  # posts in which each label occurs once
FOLD = 5  # blocks in which each label is a test post once
NO_PICTURE = 0.285  # of the posts whose text alone tells the place
NO_TEXT = 0.136  # of the posts whose pictures alone tell it
ELSEWHERE = 0.65  # of the posts whose text alone tells it and that have pictures: another place
FORMATS = {"jpg": 0.94, "png": 0.03, "webp": 0.02, "gif": 0.01}
QUALITY = 80  # of JPEG and WebP


@dataclass(frozen=True)
class PostPlan:
    """The properties of a post that are chosen before it is written."""

    label: str
    informative: str
    split: str
    user: str
    sign: str


class Crowd:
    """The authors of one sample, and what they post.

    Args:
        seed: decides the crowd and all its posts.
        users: how many authors.
    """

    def __init__(self, seed: int, users: int) -> None:
        self.seed = seed
        generators = [self.make_rng("user", user) for user in range(users)]
        self._taste = np.stack([rng.dirichlet(np.full(BLOCK, 2.0)) for rng in generators])
        self._signs = [str(rng.choice(phrases("anywhere")["signs"])) for rng in generators]

    def make_rng(self, purpose: str, index: int) -> np.random.Generator:
        """Return the generator that serves one purpose for one post, user or block."""
        return np.random.default_rng((self.seed, *purpose.encode(), index))

    def plan(self, index: int, noise: float) -> PostPlan:
        """Settle post number `index`; any order of calls gives the same posts."""
        block, place = divmod(index, BLOCK)
        label = int(self.make_rng("labels", block).permutation(BLOCK)[place])
        fold = self.make_rng("split", block // FOLD).permutation(BLOCK)
        split = "test" if fold[label] % FOLD == block % FOLD else "train"
        rng = self.make_rng("plan", index)
        shares = np.array([max(0.0, 1 - 1.43 * noise), 0.8 * noise, 0.63 * noise])
        informative = ("both", "text", "image")[int(rng.choice(3, p=shares / shares.sum()))]
        liking = self._taste[:, label] + 1e-6
        user = int(rng.choice(len(liking), p=liking / liking.sum()))
        return PostPlan(PLACES[label], informative, split, f"user{user:03d}", self._signs[user])


def post_id(index: int) -> str:
    """Return the identifier of post number `index`."""
    return f"post-{index:05d}"


def make_row(index: int, plan: PostPlan, text: str, images: list[str]) -> dict[str, Any]:
    """Return a row of the table."""
    return {
        "id": post_id(index),
        "user": plan.user,
        "text": text,
        "images": images,
        "label": plan.label,
        "informative": plan.informative,
        "split": plan.split,
        "synthetic": True,
    }


def write_post(
    folder: Path, index: int, crowd: Crowd, noise: float, several: float
) -> dict[str, Any]:
    """Write the pictures of post number `index` and return its row."""
    plan, rng = crowd.plan(index, noise), crowd.make_rng("text", index)
    silent = plan.informative == "image" and rng.random() < NO_TEXT
    place = None if plan.informative == "image" else plan.label
    text = "" if silent else write_text(rng, place, plan.sign, noise)
    rng, images = crowd.make_rng("image", index), []
    for number, shown in enumerate(_choose_scenes(rng, plan, noise, several)):
        suffix = rng.choice([*FORMATS], p=[*FORMATS.values()])
        images.append(f"images/{index:05d}_{number}.{suffix}")
        draw_scene(rng, shown, noise).save(folder / images[-1], quality=QUALITY)
    return make_row(index, plan, text, images)


def _choose_scenes(
    rng: np.random.Generator, plan: PostPlan, noise: float, several: float
) -> list[str | None]:
    """Return what each picture of a post shows: a place, or None for something unrelated."""
    number = int(rng.integers(2, 10)) if rng.random() < several else 1
    if plan.informative == "text":
        if rng.random() < NO_PICTURE:
            return []
        other = None
        if rng.random() < ELSEWHERE:
            other = str(rng.choice([place for place in PLACES if place != plan.label]))
        return [other if rng.random() < 0.7 else None for _ in range(number)]
    shown = [None if rng.random() < noise else plan.label for _ in range(number)]
    shown[int(rng.integers(number))] = plan.label
    return shown


@cache
def phrases(place: str) -> Phrases:
    """Return the phrases of a place, or of "anywhere", by kind."""
    name = place.lower().replace(" ", "_") + ".toml"
    source = tomllib.loads(
        files("sgmft.data.synthetic").joinpath("phrases", name).read_text("utf-8")
    )
    return {
        kind: tuple(text.strip().split("\n") if "\n" in text else text.split())
        for kind, text in source.items()
    }


def write_text(rng: np.random.Generator, place: str | None, sign: str, noise: float) -> str:
    """Write one post.

    Args:
        rng: decides everything about the text.
        place: where the author is; None for chatter that tells no place.
        sign: the author's pet phrase, added now and then.
        noise: 0 (one or two plain sentences that name the place) to 1 (mostly hints, words of
            other places, links, mentions, retweets, emoticons, emoji, hashtags, English, typos).
    """
    anywhere = phrases("anywhere")
    if place is None:
        parts = [_pick(rng, anywhere["chatter"]) for _ in range(int(rng.integers(1, 3)))]
    else:
        kind = "hints" if rng.random() < 1.6 * noise else "templates"
        parts = [_fill(rng, phrases(place), kind)]
        if rng.random() < 0.3:
            parts.append(_pick(rng, anywhere["chatter"]))
        if rng.random() < 1.7 * noise:
            other = _pick(rng, [name for name in PLACES if name != place])
            parts.append(_fill(rng, phrases(other), "asides"))
    while rng.random() < 0.8 * noise and len(parts) < 5:
        parts.append(_pick(rng, anywhere["filler"]))
    if rng.random() < 0.25:
        parts.append(sign)
    if noise:
        parts = [parts[turn] for turn in rng.permutation(len(parts))]
    ends = ("，", "。", "！", "～", "…", " ")
    text = "".join(part + _pick(rng, ends) for part in parts).strip("， ")
    return _decorate(rng, _misspell(rng, text, noise), place, noise)


def _fill(rng: np.random.Generator, lists: Phrases, kind: str) -> str:
    """Return one phrase of `kind` with its slots filled."""
    phrase = _pick(rng, lists[kind])
    for slot in "abc":
        while f"{{{slot}}}" in phrase:
            phrase = phrase.replace(f"{{{slot}}}", _pick(rng, lists[slot]), 1)
    return phrase


def _misspell(rng: np.random.Generator, text: str, noise: float) -> str:
    """Swap some words for the spellings people use online; now and then lose a character."""
    for pair in phrases("anywhere")["typos"]:
        right, wrong = pair.split(">")
        if right in text and rng.random() < 0.25 * noise:
            text = text.replace(right, wrong, 1)
    if len(text) > 8 and rng.random() < 0.4 * noise:
        lost = int(rng.integers(1, len(text) - 1))
        text = text[:lost] + text[lost + 1 :]
    return text


def _decorate(rng: np.random.Generator, text: str, place: str | None, noise: float) -> str:
    """Add what surrounds the words of a real post: tags, faces, links, names, retweets."""
    anywhere = phrases("anywhere")
    if rng.random() < 1.2 * noise:
        text += f"[{_pick(rng, anywhere['emoticons'])}]" * int(rng.integers(1, 4))
    if rng.random() < 0.8 * noise:
        text += _pick(rng, anywhere["emoji"]) * int(rng.integers(1, 4))
    if rng.random() < 0.9 * noise:
        own = place is not None and rng.random() < 0.3
        topic = _pick(rng, phrases(place)["topics"] if own and place else anywhere["tags"])
        text = f"#{topic}#{text}" if rng.random() < 0.6 else f"{text} #{topic}#"
    if rng.random() < 0.5 * noise:
        text = f"{text} {_pick(rng, anywhere['english']).replace('_', ' ')}"
    if rng.random() < 0.7 * noise:
        text = f"{text} @{_pick(rng, anywhere['names'])}"
    if rng.random() < 0.6 * noise:
        link = "".join(_pick(rng, ALPHABET) for _ in range(7))
        text = f"{text} http://t.cn/{link}"
    if rng.random() < 0.5 * noise:
        text = f"{text}//@{_pick(rng, anywhere['names'])}:{_pick(rng, anywhere['chatter'])}"
    return text


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
