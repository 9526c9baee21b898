"""What is thrown at, and what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sgmft.data.posts import Post
from sgmft.data.summary import count_errors


class BrokenPromiseError(AssertionError):
    """Bad input did something that it must not; the message says what."""


@dataclass(frozen=True)
class Outcome:
    """What came of one case: how much was accepted, and how much refused for what reason."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Target:
    """A part of the package and what it promises of any bytes.

    Attributes:
        name: for the table of outcomes.
        check: takes any bytes; raises `BrokenPromiseError`, or whatever the part lets through.
        seeds: good input, to be spoilt.
        words: what matters to the part, to be put in.
        seconds: of one processor, which a case may take.
        talks: whether libraries below it may write to standard error, as libtiff does.
    """

    name: str
    check: Callable[[bytes], Outcome]
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()
    seconds: float = 10.0
    talks: bool = False

    @property
    def slug(self) -> str:
        """The name for files and folders."""
        return self.name.replace(".", "").replace(" ", "-")


def promise(kept: bool, broken: str) -> None:
    """Raise where a promise is not kept."""
    if not kept:
        raise BrokenPromiseError(broken)


def one_line(message: str) -> str:
    """Check that a message is one line, which can do nothing to a terminal; return its kind."""
    promise(bool(message.strip()), "a reason says nothing")
    promise(message.isprintable(), f"a message is not one printable line: {message!r}")
    (kind,) = count_errors([Post(error=message)])
    return kind.split(":")[0].split(" (")[0].split(";")[0][:60]
