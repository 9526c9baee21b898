"""A short run of `fuzz.py`, and every case that ever broke a promise."""

from pathlib import Path

import fuzz
import pytest
from bad_input.contents import TARGETS
from bad_input.engines import hypothesis, mutation
from hypothesis import settings

FOUND = sorted(path for path in (Path(__file__).parent / "found").glob("*/*"))


@pytest.mark.parametrize("path", FOUND, ids=[f"{x.parent.name}/{x.name}" for x in FOUND])
def test_past_findings_stay_fixed(path):
    (target,) = (x for x in TARGETS.values() if x.slug == path.parent.name)
    target.check(path.read_bytes())


class Cases:
    """Counts, and lets every exception through."""

    def __init__(self, name):
        self.target = TARGETS[name]
        self.accepted = self.refused = 0

    def __call__(self, data):
        outcome = self.target.check(data)
        self.accepted += outcome.accepted
        self.refused += outcome.refused.total()

    def end(self):
        """Do nothing: there is no process to end."""


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("engine", [mutation, hypothesis])
def test_bad_input(name, engine):
    cases = Cases(name)
    count = (6 if name in ("stills", "texts") else 2) * settings().max_examples  # of the profile
    engine(cases.target, cases, count, seed=1)
    assert cases.accepted and cases.refused


def test_a_process_that_dies_is_a_finding_with_its_last_case(tmp_path, monkeypatch):
    dying = tmp_path / "dying.py"
    dying.write_text(
        "import os, signal, sys, pathlib\n"
        "(pathlib.Path(sys.argv[-1]) / 'current').write_bytes(b'the last case')\n"
        "os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setattr(fuzz, "RUN", dying)
    (finding,) = fuzz.run(("texts", "mutation", 5, 0), 0, tmp_path / "kept")["findings"]
    assert "ended with -11" in finding
    assert Path(finding.partition(":")[0]).read_bytes() == b"the last case"


@pytest.mark.parametrize("atheris", [True, False])
def test_all_cases_are_planned_for_targets_there_are(atheris):
    parts = fuzz.plan(100_000, "", atheris)
    assert sum(cases for _, _, cases, _ in parts) >= 100_000
    assert {target for target, _, _, _ in parts} == set(TARGETS)
    assert any(engine == "atheris" for _, engine, _, _ in parts) == atheris
