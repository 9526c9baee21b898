"""The pieces of a job done by a pool of actors on a Ray cluster, through Ray Data.

Tables are read by a few tasks that stream pieces into the object store, no faster than the actors
take them. A piece that was lost with its node is read again and done again; as one done twice is
there once, nothing is lost or repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

from sgmft.errors import SgmftError
from sgmft.jobs import Told
from sgmft.scale.attempts import Attempts
from sgmft.scale.pieces import Piece, Task

# Half a processor is reserved for each worker, and there are as many workers as processors: when
# nodes are lost, those left have room for the lost workers too.
RESERVED = 0.5


class OnRay:
    """An engine: does the pieces of a task on a Ray cluster.

    Args:
        address: of the cluster, "auto" for the one this machine belongs to; None begins one on
            this machine for the time of the job.
        workers: how many pieces are done at a time; by default one for each processor.
        gpu: whether each worker is given a GPU.

    Raises:
        SgmftError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, gpu: bool = False
    ) -> None:
        self._ray = _connect(address)
        resources = self._ray.cluster_resources()
        self.workers = workers or max(1, int(resources.get("GPU" if gpu else "CPU", 1)))
        self._gpu = gpu

    def __call__(self, task: Task) -> Iterator[Told]:
        """What is told of each piece, as they end.

        Raises:
            SgmftError: a piece raised it, or its worker died too often.
        """
        from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy, from_items

        Attempts(task.folder).forget()
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # a block is a piece
        tables = from_items(
            [{"table": i} for i in range(task.tables)], override_num_blocks=task.tables
        )
        pieces = tables.map_batches(
            _reader(task),
            batch_size=1,
            num_cpus=0,
            compute=TaskPoolStrategy(size=1 + self.workers // 8),
        )
        done = pieces.map_batches(
            _Worker,
            fn_constructor_args=(task, version("sgmft")),
            batch_size=1,
            num_cpus=0 if self._gpu else RESERVED,
            num_gpus=1 if self._gpu else 0,
            compute=ActorPoolStrategy(
                min_size=1, max_size=self.workers, max_tasks_in_flight_per_actor=2
            ),
        )
        try:
            for row in done.iter_rows():
                yield row["told"]
        except Exception as error:
            raise _told(error) from error

    def close(self) -> None:
        """Leave the cluster; one that was begun for the job ends."""
        self._ray.shutdown()


def _connect(address: str | None) -> Any:
    try:
        import ray
    except ImportError as error:
        raise SgmftError("--engine ray needs Ray: pip install 'sgmft[scale]'.") from error
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SgmftError(f"There is no Ray cluster at {address}: {error}") from error
    return ray


def _reader(task: Task) -> Any:
    def read(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for table in batch["table"]:
            for piece in task.pieces(int(table)):
                yield {"piece": _cell(piece)}

    return read


class _Worker:
    """An actor: what a task's work needs is loaded once."""

    def __init__(self, task: Task, wanted: str) -> None:
        if version("sgmft") != wanted:
            raise SgmftError(
                f"A worker has sgmft {version('sgmft')}, the machine that began the job {wanted}: "
                "install the same on all nodes."
            )
        self._attempts = Attempts(task.folder)
        self._work = task.start()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        piece = Piece(*batch["piece"][0])
        with self._attempts.begun(piece):
            return {"told": _cell(self._work(piece))}


def _cell(value: Any) -> Any:
    """A column of one cell that holds any object."""
    cell = np.empty(1, object)
    cell[0] = value
    return cell


def _told(error: BaseException) -> SgmftError:
    """Our own error, wherever in the chain of causes it is, or the first line of another."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, SgmftError):
            return SgmftError(str(seen))
        seen = getattr(seen, "cause", None) or seen.__cause__
    return SgmftError(
        f"The job stopped: {str(error).strip().splitlines()[0] if str(error) else error!r} "
        "What is done is kept; the same command continues."
    )
