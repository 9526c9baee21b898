"""A job on tables as pieces that can be done anywhere, in any order, and more than once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from sgmft.data.posts import Post
from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.data.tables.reading import list_tables
from sgmft.errors import SgmftError

ROWS = 1024  # of a piece; a multiple of `sgmft.features.encode.CHUNK`


class Piece(NamedTuple):
    """Consecutive posts of one table."""

    table: int  # place among the job's tables
    number: int  # place among the table's pieces
    posts: list[Post]


Work = Callable[
    [Piece], JobSummary
]  # does a piece; a piece done twice leaves what it leaves done once


class PieceTask(Protocol):
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
    return [replace(source, table=str(Path(x).absolute())) for x in list_tables(source.table)]


def cut(source: Source, table: int, rows: int) -> Iterator[Piece]:
    """The posts of one table in pieces of so many rows; the last may be shorter."""
    posts = source.iter_posts()
    number = 0
    while part := list(islice(posts, rows)):
        yield Piece(table, number, part)
        number += 1


def run_here(task: PieceTask) -> Iterator[JobSummary]:
    """Do all pieces in this process, in order; yields what is told of each."""
    work: Work | None = None
    for table in range(task.tables):
        for piece in task.pieces(table):
            work = work or task.start()
            yield work(piece)


MOST = 3  # nodes are lost now and then, but not so often under one piece


class Attempts:
    """The attempts of one job in a folder.

    Args:
        folder: made by `forget`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def forget(self) -> None:
        """Begin a job: attempts of an earlier one do not count."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for file in self._folder.glob(".attempt-*"):
            file.unlink(missing_ok=True)

    @contextmanager
    def begun(self, piece: Piece) -> Iterator[None]:
        """Hold for the time of an attempt.

        Raises:
            SgmftError: the piece's workers have died too often.
        """
        name = f".attempt-{piece.table}-{piece.number}-"
        if len(list(self._folder.glob(f"{name}*"))) >= MOST:
            first, last = piece.posts[0].place, piece.posts[-1].place
            raise SgmftError(
                f"{MOST} workers have died at the posts from {first} to {last}: one of them may "
                "take more memory than a worker has, or crash a decoder; find it by predicting "
                "these rows alone, and leave it out."
            )
        file = self._folder / f"{name}{uuid.uuid4().hex}"
        file.touch()
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
