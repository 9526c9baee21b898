"""A piece under which workers die is tried again, but not for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgmft.data.posts import Post
from sgmft.errors import SgmftError
from sgmft.jobs.cluster.pieces import MAX_ATTEMPTS, AttemptLog, Piece

POSTS = [Post("a", place="0.jsonl, row 41"), Post("b", place="0.jsonl, row 42")]


def die(log: AttemptLog, piece: Piece, held: list[object] = []) -> None:  # noqa: B006
    """Leave what a worker leaves that is killed under a piece: an attempt that never ends."""
    attempt = log.attempt(piece)
    held.append(attempt)
    attempt.__enter__()


def test_the_piece_is_named_when_its_workers_have_died_too_often(tmp_path: Path) -> None:
    piece, other = Piece((0, 4), POSTS), Piece((0, 41), POSTS)
    for _ in range(MAX_ATTEMPTS):
        with AttemptLog(tmp_path).attempt(other):
            die(AttemptLog(tmp_path), piece)
    with pytest.raises(SgmftError, match=r"posts from 0\.jsonl, row 41 to 0\.jsonl, row 42"):
        die(AttemptLog(tmp_path), piece)
    with AttemptLog(tmp_path).attempt(other):
        pass
    assert len([*tmp_path.iterdir()]) == MAX_ATTEMPTS, "what ended leaves nothing"


def test_a_job_that_is_given_again_begins_to_count_anew(tmp_path: Path) -> None:
    piece = Piece((0, 0), POSTS)
    for _ in range(MAX_ATTEMPTS):
        die(AttemptLog(tmp_path), piece)
    AttemptLog(tmp_path).clear()
    with AttemptLog(tmp_path).attempt(piece):
        pass
    assert not [*tmp_path.iterdir()]
