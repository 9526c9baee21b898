"""Pillow's warnings, silenced while pictures are read in several threads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_threads = 0
_filters = warnings.catch_warnings()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings about odd metadata.

    The filters belong to the whole process: the first thread in changes them and the last one
    out restores them, so that threads do not undo each other's.
    """
    global _threads, _filters
    with _lock:
        _threads += 1
        if _threads == 1:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _lock:
            _threads -= 1
            if _threads == 0:
                _filters.__exit__(None, None, None)
