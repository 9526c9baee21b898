"""A job on tables as pieces that can be done anywhere, in any order, and more than once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sgmft.data.posts import Post
from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.data.tables.formats import list_tables
from sgmft.errors import SgmftError

ROWS = 1024  # of a piece; a multiple of `sgmft.features.encode.CHUNK`
PieceId = tuple[int, int]  # index of the table in the job, index of the piece in the table


class Piece(NamedTuple):
    """Consecutive posts of one table."""

    id: PieceId
    posts: Iterable[Post]  # a list, but for a table that is not cut


# Does a piece and yields summaries of its posts; done twice, it leaves what it leaves done once.
Work = Callable[[Piece], Iterator[JobSummary]]


@dataclass(frozen=True, kw_only=True)
class PieceTask(ABC):
    """A job as engines see it; it can be sent to other machines."""

    sources: list[Source]  # tables
    folder: Path  # where results go; a shared one, where several machines work
    rows: int  # of a piece; 0 leaves the tables whole
    finished: frozenset[PieceId] = frozenset()  # pieces that are done
    loaded: Any = None  # what the work needs, in this process; others load it

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"loaded": None}

    def pieces(self, table: int) -> Iterator[Piece]:
        """Yield the pieces of one table that are still to be done, in order."""
        posts = self.sources[table].iter_posts()
        if not self.rows:
            yield Piece((table, 0), posts)
            return
        number = 0
        while part := list(islice(posts, self.rows)):
            if (table, number) not in self.finished:
                yield Piece((table, number), part)
            number += 1

    @abstractmethod
    def start(self) -> Work:
        """Load what the work needs: called once in each process that works."""


Engine = Callable[[PieceTask], Iterator[JobSummary]]  # does all pieces


def run_here(task: PieceTask) -> Iterator[JobSummary]:
    """Do all pieces in this process, in order: the engine by default."""
    work: Work | None = None
    for table in range(len(task.sources)):
        for piece in task.pieces(table):
            work = work or task.start()
            yield from work(piece)


def add_up(
    summaries: Iterable[JobSummary], on_done: Callable[[int], None] | None = None
) -> JobSummary:
    """Return the sum of summaries; `on_done` is called with the number of posts so far."""
    total = JobSummary()
    for summary in summaries:
        total += summary
        if on_done:
            on_done(total.posts)
    return total


def single_tables(source: Source) -> list[Source]:
    """Return the tables of a source by absolute paths; SgmftError where it is a stream."""
    if source.table == "-":
        raise SgmftError(
            "Standard input can be read once only, and so not in pieces: save it as a file."
        )
    return [replace(source, table=str(Path(x).absolute())) for x in list_tables(source.table)]
