"""A job on tables as pieces that can be done anywhere, in any order, and more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from sgmft.errors import SgmftError
from sgmft.jobs import Source, Told
from sgmft.posts import Post
from sgmft.tables.folder import tables_in

ROWS = 1024  # of a piece; a multiple of `sgmft.encoding.CHUNK`


class Piece(NamedTuple):
    """Consecutive posts of one table."""

    table: int  # place among the job's tables
    number: int  # place among the table's pieces
    posts: list[Post]


Work = Callable[[Piece], Told]  # does a piece; a piece done twice leaves what it leaves done once


class Task(Protocol):
    """What an engine must know of a job; it can be sent to other machines."""

    @property
    def tables(self) -> int:
        """How many there are."""

    @property
    def folder(self) -> Path:
        """Where results go; all that work see the same."""

    def pieces(self, table: int) -> Iterator[Piece]:
        """The pieces of one table that are still to be done, in order."""

    def start(self) -> Work:
        """Load what the work needs: called once in each process that works."""


def single_tables(source: Source) -> list[Source]:
    """The tables of a source one by one, by absolute paths.

    Raises:
        SgmftError: the source is a stream.
    """
    if source.table == "-":
        raise SgmftError(
            "Standard input can be read once only, and so not in pieces: save it as a file."
        )
    return [replace(source, table=str(Path(x).absolute())) for x in tables_in(source.table)]


def cut(source: Source, table: int, rows: int) -> Iterator[Piece]:
    """The posts of one table in pieces of so many rows; the last may be shorter."""
    posts = source.posts()
    number = 0
    while part := list(islice(posts, rows)):
        yield Piece(table, number, part)
        number += 1


def run_here(task: Task) -> Iterator[Told]:
    """Do all pieces in this process, in order; yields what is told of each."""
    work: Work | None = None
    for table in range(task.tables):
        for piece in task.pieces(table):
            work = work or task.start()
            yield work(piece)
