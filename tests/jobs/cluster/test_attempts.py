"""A piece under which workers die is tried again, but not for ever."""

from pathlib import Path

import pytest

from sgmft.data.posts import Post
from sgmft.errors import SgmftError
from sgmft.jobs.cluster.pieces import Piece
from sgmft.jobs.cluster.ray import MAX_ATTEMPTS, attempt, clear_attempts

POSTS = [Post("a", place="0.jsonl, row 41"), Post("b", place="0.jsonl, row 42")]
held = []  # attempts that never end, as of workers that are killed under a piece


def die(folder: Path, piece: Piece) -> None:
    held.append(attempt(folder, piece))
    held[-1].__enter__()


def test_the_piece_is_named_when_its_workers_have_died_too_often(tmp_path: Path) -> None:
    piece, other = Piece((0, 4), POSTS), Piece((0, 41), POSTS)
    for _ in range(MAX_ATTEMPTS):
        with attempt(tmp_path, other):
            die(tmp_path, piece)
    with pytest.raises(SgmftError, match=r"posts from 0\.jsonl, row 41 to 0\.jsonl, row 42"):
        die(tmp_path, piece)
    with attempt(tmp_path, other):
        pass
    assert len([*tmp_path.iterdir()]) == MAX_ATTEMPTS, "what ended leaves nothing"
    clear_attempts(tmp_path)  # a job that is given again begins to count anew
    with attempt(tmp_path, piece):
        pass
    assert not [*tmp_path.iterdir()]
