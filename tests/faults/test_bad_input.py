"""A short slice of `fuzz.py`, and every case that ever broke a promise."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_input.engines import hypothesis, mutation
from bad_input.targets import TARGETS

FOUND = sorted(path for path in (Path(__file__).parent / "found").glob("*/*"))


@pytest.mark.parametrize("path", FOUND, ids=[f"{x.parent.name}/{x.name}" for x in FOUND])
def test_what_was_found_stays_mended(path):
    (target,) = (x for x in TARGETS.values() if x.slug == path.parent.name)
    target.check(path.read_bytes())


class Cases:
    """Counts, and lets every exception through."""

    def __init__(self, name: str) -> None:
        self.target = TARGETS[name]
        self.accepted = self.refused = 0

    def __call__(self, data: bytes) -> None:
        outcome = self.target.check(data)
        self.accepted += outcome.accepted
        self.refused += outcome.refused.total()

    def end(self) -> None:
        """No process to be ended."""


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("engine", [mutation, hypothesis])
def test_bad_input(name, engine):
    cases = Cases(name)
    engine(cases.target, cases, 60, seed=1)
    assert cases.accepted and cases.refused
