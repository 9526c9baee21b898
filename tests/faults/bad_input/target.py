"""What is tested, and the outcome of a case."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sgmft.data.posts import Post
from sgmft.data.summary import count_errors


class BrokenPromiseError(AssertionError):
    """Bad input had an effect that it must not have."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one case: how much was accepted, and how much refused for what reason."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Target:
    """A part of the package and what it promises of any bytes.

    Attributes:
        name: for the table of outcomes.
        check: takes any bytes; raises `BrokenPromiseError`, or whatever the part lets through.
        seeds: good input, to be mutated.
        words: tokens of the format, to be inserted.
        seconds: of processor time that a case may take.
        writes_stderr: whether libraries below it may write to standard error, as libtiff does.
    """

    name: str
    check: Callable[[bytes], Outcome]
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()
    seconds: float = 10.0
    writes_stderr: bool = False

    @property
    def slug(self) -> str:
        """Return the name for files and folders."""
        return self.name.replace(".", "").replace(" ", "-")


def promise(kept: bool, broken: str) -> None:
    """Raise where a promise is not kept."""
    if not kept:
        raise BrokenPromiseError(broken)


def one_line(message: str) -> str:
    """Check that a message is one line, which can do nothing to a terminal; return its kind."""
    promise(bool(message.strip()), "a reason is empty")
    promise(message.isprintable(), f"a message is not one printable line: {message!r}")
    (kind,) = count_errors([Post(error=message)])
    return kind.split(":")[0].split(" (")[0].split(";")[0][:60]
