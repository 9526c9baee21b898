"""How often a piece has been begun, so that one whose post kills its worker is not tried for ever.

A file for each attempt, in a folder that all workers share.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sgmft.errors import SgmftError
from sgmft.scale.pieces import Piece

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
