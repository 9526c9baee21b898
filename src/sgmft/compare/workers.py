"""Work spread over processes; a process that dies takes down one piece of work, not the rest."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from queue import SimpleQueue
from typing import Any

from sgmft.compare.cells import Work, perform

Record = dict[str, Any]


def run_works(
    works: Sequence[Work], workers: int, on_done: Callable[[Work, Record], Iterable[Work]]
) -> None:
    """Do every piece of work, and what follows from it.

    Args:
        works: to begin with, independent of each other.
        workers: processes; 1 works in this one.
        on_done: called in this process with each piece of work and what was found; returns the
            pieces that could not be begun before.
    """
    if workers <= 1:
        left = deque(works)
        while left:
            work = left.popleft()
            left.extend(on_done(work, perform(work)))
        return
    waiting: SimpleQueue[Work | None] = SimpleQueue()
    for work in works:
        waiting.put(work)
    threads = max(1, (os.cpu_count() or 1) // workers)
    stop = threading.Event()
    done: SimpleQueue[tuple[Work, Record] | BaseException] = SimpleQueue()
    with ThreadPoolExecutor(workers) as pool:
        hands = [pool.submit(_hand, waiting, done, threads, stop) for _ in range(workers)]
        try:
            under_way = len(works)
            while under_way:
                item = done.get()
                if isinstance(item, BaseException):
                    raise item
                following = list(on_done(*item))
                for work in following:
                    waiting.put(work)
                under_way += len(following) - 1
        finally:
            stop.set()
            for _ in hands:
                waiting.put(None)
    for hand in hands:
        hand.result()


def _hand(
    waiting: SimpleQueue[Work | None],
    done: SimpleQueue[tuple[Work, Record] | BaseException],
    threads: int,
    stop: threading.Event,
) -> None:
    """One process's share of the work, taken piece by piece until None."""
    executor: ProcessPoolExecutor | None = None
    try:
        while (work := waiting.get()) is not None and not stop.is_set():
            executor = executor or _executor(threads)
            try:
                record = executor.submit(perform, work).result()
            except BrokenProcessPool:
                record = {"failed": "the process died, perhaps for want of memory"}
                executor = None
            done.put((work, record))
    except BaseException as error:  # told to the one who waits, or he would wait for ever
        done.put(error)
    finally:
        if executor is not None:
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
