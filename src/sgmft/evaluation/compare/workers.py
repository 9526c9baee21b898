"""Work spread over processes; a process that dies takes down one piece of work, not the rest."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import resource_tracker
from queue import SimpleQueue
from typing import Any

from sgmft.evaluation.compare.cells import Work, perform
from sgmft.utils.signals import SIGNALS

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

    An exception, and so a signal to this process, ends the workers, and their temporary files go.
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
    resource_tracker.ensure_running()  # by the first process it would be, with signals let through
    processes = _Workers(max(1, (os.cpu_count() or 1) // workers))
    done: SimpleQueue[tuple[Work, Record] | BaseException] = SimpleQueue()
    with ThreadPoolExecutor(workers) as pool:
        working = [pool.submit(_hand, waiting, done, processes) for _ in range(workers)]
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
        except BaseException:
            processes.stop()
            raise
        finally:
            for _ in working:
                waiting.put(None)
    for hand in working:
        hand.result()


class _Workers:
    """The processes at work."""

    def __init__(self, threads: int) -> None:
        self._stopped = threading.Event()
        self._threads = threads
        self._processes: set[int] = set()
        self._lock = threading.Lock()

    def start(self) -> tuple[ProcessPoolExecutor, int]:
        """One fresh process, and its number; a fork would inherit torch's threads as they stand.

        Raises:
            BrokenProcessPool: it has died already.
        """
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(1, context, initializer=_start, initargs=(self._threads,))
        # Signals wait until the process knows what to do with them; it inherits the mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        number = executor.submit(os.getpid).result()
        with self._lock:
            self._processes.add(number)
        return executor, number

    def ended(self, number: int) -> None:
        """A process is no more."""
        with self._lock:
            self._processes.discard(number)

    def stop(self) -> None:
        """End all of them, and start none."""
        with self._lock:
            self._stopped.set()
            for number in self._processes:
                with suppress(ProcessLookupError):  # it has died meanwhile
                    os.kill(number, signal.SIGTERM)

    def are_wanted(self) -> bool:
        """Whether nobody has stopped them."""
        return not self._stopped.is_set()


def _hand(
    waiting: SimpleQueue[Work | None],
    done: SimpleQueue[tuple[Work, Record] | BaseException],
    workers: _Workers,
) -> None:
    """One process's share of the work, taken piece by piece until None."""
    executor: ProcessPoolExecutor | None = None
    number = 0
    try:
        while (work := waiting.get()) is not None and workers.are_wanted():
            try:
                if executor is None:
                    executor, number = workers.start()
                if not workers.are_wanted():
                    break
                record = executor.submit(perform, work).result()
            except (BrokenProcessPool, SystemExit):
                record = {"failed": "the process died, perhaps for want of memory"}
                workers.ended(number)
                executor = None
            done.put((work, record))
    except BaseException as error:  # told to the one who waits, or he would wait for ever
        done.put(error)
    finally:
        if executor is not None:
            executor.shutdown(cancel_futures=True)
            workers.ended(number)


def _start(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    for number in SIGNALS:
        signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_follow, daemon=True).start()


def _end(number: int, frame: object) -> None:
    """End a worker, without a traceback and after it has cleaned up."""
    sys.exit(128 + number)


def _follow() -> None:
    """End with the process that started this one, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
