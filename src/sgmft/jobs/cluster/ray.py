"""The pieces of a job done by a pool of actors on a Ray cluster, through Ray Data.

Tables are read by a few tasks that stream pieces into the object store, no faster than the actors
take them. A piece that was lost with its node is read again and done again; as one done twice is
there once, nothing is lost or repeated.
"""

import logging
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sgmft.data.source import JobSummary
from sgmft.errors import TEXTS, SgmftError, needs_extra, raising
from sgmft.jobs.cluster.pieces import Piece, PieceTask, Work
from sgmft.models.registry import load_plugin

ATTEMPTS = ".attempts"  # folder beside the results: these are many, and looked up for each piece
MAX_ATTEMPTS = 3  # nodes are lost now and then, but not so often under one piece
PATIENCE = 10.0  # seconds until a cluster must have answered


class RayEngine:
    """An engine that does a task on a Ray cluster; without an address, on one started for it."""

    def __init__(
        self, address: str | None = None, workers: int | None = None, gpu: bool = False
    ) -> None:
        with needs_extra("scale", "--engine ray"):
            import ray
        nowhere = f"There is no Ray cluster at {address}: {{error}}."
        with raising(nowhere, OSError, ValueError, RuntimeError):
            host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
            if colon:  # Ray itself would try for minutes
                socket.create_connection((host, int(port)), timeout=PATIENCE).close()
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR)
        self.close = ray.shutdown  # leaves the cluster; one that was started for the job ends
        resources: dict[str, float] = ray.cluster_resources()
        self.workers = workers or max(1, int(resources.get("GPU" if gpu else "CPU", 1)))
        self._gpu = gpu

    def __call__(self, task: PieceTask) -> Iterator[JobSummary]:
        """Yield a summary of each piece, as they end; SgmftError where a worker died too often."""
        import ray
        from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy, from_items

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what matters is raised below
        clear_attempts(task.folder / ATTEMPTS)

        def read(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
            for table in batch["table"]:
                try:
                    for piece in task.pieces(int(table)):
                        yield {"piece": _cell(piece)}
                except SgmftError as error:  # a row like another, for Ray would hide it in its own
                    yield {"piece": _cell(error)}

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # a block is a piece
        count = len(task.sources)
        tables = from_items([{"table": i} for i in range(count)], override_num_blocks=count)
        readers = TaskPoolStrategy(size=1 + self.workers // 8)
        pool = ActorPoolStrategy(min_size=1, max_size=self.workers, max_tasks_in_flight_per_actor=2)
        pieces = tables.map_batches(read, batch_size=1, num_cpus=0, compute=readers)
        # As many workers as processors: the nodes that are left have room for those of lost ones.
        each = {"num_cpus": 0, "num_gpus": 1} if self._gpu else {"num_cpus": 0.5, "num_gpus": 0}
        given: Any = {"fn_constructor_args": (task, version("sgmft")), "batch_size": 1, **each}
        try:
            for row in pieces.map_batches(_Worker, **given, compute=pool).iter_rows():
                if isinstance(row["summary"], SgmftError):
                    raise row["summary"]
                yield row["summary"]
        except ray.exceptions.RayError as error:
            raise SgmftError(TEXTS["job stopped"], reason=str(error).splitlines()[0]) from error


class _Worker:
    def __init__(self, task: PieceTask, version_: str) -> None:
        self._task, self._version = task, version_
        self._work: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        piece = batch["piece"][0]
        try:
            if isinstance(piece, SgmftError):
                raise piece
            if (own := version("sgmft")) != self._version:
                raise SgmftError(TEXTS["other version"], own=own, other=self._version)
            for plugin in self._task.plugins:
                load_plugin(plugin)
            self._work = self._work or self._task.start()
            piece = Piece(*piece)
            with attempt(self._task.folder / ATTEMPTS, piece):
                return {"summary": _cell(sum(self._work(piece), JobSummary()))}
        except SgmftError as error:
            return {"summary": _cell(error)}


def clear_attempts(folder: Path) -> None:
    """Start a job: attempts of an earlier one do not count."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob(".attempt-*"):
        file.unlink(missing_ok=True)


@contextmanager
def attempt(folder: Path, piece: Piece) -> Iterator[None]:
    """Log an attempt at a piece while it lasts; SgmftError where too many workers died at it."""
    name = ".attempt-{}-{}-".format(*piece.id)
    if len(list(folder.glob(f"{name}*"))) >= MAX_ATTEMPTS:
        rows = [post.place for post in piece.posts]
        raise SgmftError(TEXTS["deadly posts"], count=MAX_ATTEMPTS, first=rows[0], last=rows[-1])
    file = folder / f"{name}{uuid.uuid4().hex}"
    file.touch()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _cell(value: Any) -> Any:
    cell = np.empty(1, object)
    cell[0] = value
    return cell
