"""Progress as a terminal shows it."""

import io
import math

import pytest
from rich.console import Console

from sgmft.cli import console
from sgmft.models.base import SolveStep
from sgmft.training.history import Epoch


@pytest.mark.parametrize("width", [80, 120])
def test_bars_and_counts_stay_in_a_narrow_terminal(width, monkeypatch):
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(console, "screen", terminal)
    with console.ProgressBars() as bars:
        bars.encoded(2000, 2000)
        bars.step(SolveStep("n-grams", 5, 5))
        bars.epoch(Epoch(10, 10, 0.5, 0.75, 0.25, 0.5, math.nan, math.nan))
    last = shown.getvalue().rpartition("Encoding posts")[2]
    assert last.count("\u2501") == 3 * 20
    for text in ("2000/2000", "Fitting n-grams", "5/5", "penalties", "Training", "10/10", "0.750"):
        assert text in last
