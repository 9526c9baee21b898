"""What is tested, the outcome of a case, and side effects that reading may not have."""

import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

from sgmft.data.posts import Post
from sgmft.data.source import count_errors
from sgmft.errors import SgmftWarning


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
    def slug(self):
        """Return the name for files and folders."""
        return self.name.replace(".", "").replace(" ", "-")


def promise(kept, broken):
    """Raise where a promise is not kept."""
    if not kept:
        raise BrokenPromiseError(broken)


def one_line(message):
    """Check that a message is one line, which can do nothing to a terminal; return its kind."""
    promise(bool(message.strip()), "a reason is empty")
    promise(message.isprintable(), f"a message is not one printable line: {message!r}")
    (kind,) = count_errors([Post(error=message)])
    return kind.split(":")[0].split(" (")[0].split(";")[0][:60]


_CALLS = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec")
_TIMES = "/usr/share/zoneinfo"
_seen = None


@contextmanager
def watched(folder):
    """Turn warnings into exceptions, and forbid Python to open files outside `folder`.

    Warnings of ours are allowed, and so are files of the installation:
    modules are imported when they are needed.
    """
    global _seen
    _hook()
    _seen = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", SgmftWarning)  # what users are told of their table
            yield
    finally:
        seen, _seen = _seen, None
    ours = (
        _TIMES,
        sys.prefix,
        sys.base_prefix,
        *filter(None, sys.path),
        *([str(folder)] if folder else []),
    )
    others = [name for name in seen if not name.startswith(ours)]
    promise(not others, f"opened or called {others[:3]}")


@cache
def _hook():
    """Add the one audit hook; hooks cannot be removed."""

    def record(event, arguments):
        if _seen is None:
            return
        if event in _CALLS:
            _seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            _seen.append(os.path.realpath(os.fsdecode(arguments[0])))

    sys.addaudithook(record)
