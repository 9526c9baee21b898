"""Side effects that reading may not have: warnings, other files, network, processes."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from bad_input.target import promise

from sgmft.errors import SgmftWarning

_CALLS = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec")
_TIMES = "/usr/share/zoneinfo"
_seen: list[str] | None = None


@contextmanager
def watched(folder: Path | None) -> Iterator[None]:
    """Turn warnings into exceptions, and forbid Python to open files outside `folder`.

    The warning of the encoding of a table is allowed, and so are files of the installation:
    modules are imported when they are needed.
    """
    global _seen
    _hook()
    _seen = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings(
                "ignore", r"(?s).* is not UTF-8 and is read as GB18030\.", SgmftWarning
            )
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
def _hook() -> None:
    """Add the one audit hook; hooks cannot be removed."""

    def record(event: str, arguments: tuple[Any, ...]) -> None:
        if _seen is None:
            return
        if event in _CALLS:
            _seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            _seen.append(os.path.realpath(os.fsdecode(arguments[0])))

    sys.addaudithook(record)
