"""Work spread over processes; a process that dies takes down one piece of work, not the rest."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from queue import Empty, SimpleQueue
from typing import Any

from sgmft.compare.cells import Work, perform

Record = dict[str, Any]


def run_works(works: Sequence[Work], workers: int, on_done: Callable[[int, Record], None]) -> None:
    """Do every piece of work.

    Args:
        works: independent of each other.
        workers: processes; 1 works in this one.
        on_done: called in this process with the place in `works` and what was found.
    """
    if workers <= 1 or len(works) < 2:
        for i, work in enumerate(works):
            on_done(i, perform(work))
        return
    waiting: SimpleQueue[int] = SimpleQueue()
    for i in range(len(works)):
        waiting.put(i)
    threads = max(1, (os.cpu_count() or 1) // workers)
    count = min(workers, len(works))
    stop = threading.Event()
    done: SimpleQueue[tuple[int, Record] | BaseException] = SimpleQueue()
    with ThreadPoolExecutor(count) as pool:
        hands = [pool.submit(_hand, works, waiting, done, threads, stop) for _ in range(count)]
        try:
            for _ in works:
                item = done.get()
                if isinstance(item, BaseException):
                    raise item
                on_done(*item)
        finally:
            stop.set()
    for hand in hands:
        hand.result()


def _hand(
    works: Sequence[Work],
    waiting: SimpleQueue[int],
    done: SimpleQueue[tuple[int, Record] | BaseException],
    threads: int,
    stop: threading.Event,
) -> None:
    """One process's share of the work, taken piece by piece."""
    executor = _executor(threads)
    try:
        while not stop.is_set():
            try:
                i = waiting.get_nowait()
            except Empty:
                return
            try:
                record = executor.submit(perform, works[i]).result()
            except BrokenProcessPool:
                record = {"failed": "the process died, perhaps for want of memory"}
                executor = _executor(threads)
            done.put((i, record))
    except BaseException as error:  # told to the one who waits, or he would wait for ever
        done.put(error)
    finally:
        executor.shutdown(cancel_futures=True)


def _executor(threads: int) -> ProcessPoolExecutor:
    """One fresh process; a fork would inherit torch's threads in an unknown state."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=_start, initargs=(threads,))


def _start(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """End with the process that started this one, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
