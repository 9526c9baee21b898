"""Texts of posts in simplified Chinese, composed from `phrases/*.toml` and made noisy."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import numpy as np

Phrases = Mapping[str, Sequence[str]]
ALPHABET = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
PLACES = ("Home", "School", "Work", "Shopping Center", "Cinema", "Travel", "Restaurant")


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
