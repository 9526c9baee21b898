"""A whole comparison: trials choose, runs follow, finished work is not done again."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgmft.evaluation.compare.catalogue import ComparisonPlan, Row
from sgmft.evaluation.compare.cells import FACTORS, TrialChoice, Work, finished
from sgmft.evaluation.compare.data import ComparisonData
from sgmft.evaluation.compare.prepare import encoder_setting
from sgmft.evaluation.compare.workers import Record, run_works
from sgmft.models.plugins import LOADED
from sgmft.models.registry import get_method

OnProgress = Callable[[int, int, str], None]  # done, in all, what was done last


@dataclass
class Found:
    """Records of a row: its trials, what they chose, and its runs by seed."""

    trials: list[Record] = field(default_factory=list)
    choice: TrialChoice | None = None
    runs: dict[int, Record] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class Comparison:
    """The work of a plan in a folder; `shown` are the rows of tables, and the reference."""

    def __init__(self, folder: Path, plan: ComparisonPlan, data: ComparisonData) -> None:
        self.folder, self.plan, self.data = folder, plan, data
        self.rows = plan.rows()
        self.found = {row.key: Found() for row in self.rows}
        self.shown = {key for table in plan.tables for key in (*table.rows, table.reference)}
        self._drawn = {key for figure in plan.figures for key in figure.rows}
        self._seeds = {
            row.key: range(plan.seeds if row.key in self.shown else 1)
            for row in self.rows
            if row.key in self.shown | self._drawn
        }
        self._pending: dict[str, int] = {}  # trials of each row that are not done

    def run(self, on_progress: OnProgress | None = None) -> Mapping[str, Found]:
        """Do what is not done yet, and return what was found for each row.

        A row's runs begin as soon as its trials are done, those of the rows like it too.
        """
        trials = {row.key: self._trials(row) for row in self.rows}
        total = sum(map(len, trials.values())) + sum(map(len, self._seeds.values()))
        self._pending = {key: len(works) for key, works in trials.items()}
        said = 0

        def done(work: Work, record: Record) -> list[Work]:
            nonlocal said
            said += 1
            if on_progress:
                on_progress(said, total, work.row.title)
            return self._note(work, record)

        def left(works: Sequence[Work]) -> list[Work]:
            """Those that must be performed; what is finished is taken from its file."""
            waiting, open_ = deque(works), []
            while waiting:
                work = waiting.popleft()
                if (record := finished(work, self.data)) is not None:
                    waiting.extend(done(work, record))
                elif self.plan.finished_only:
                    waiting.extend(self._note(work, None))
                else:
                    open_.append(work)
            return open_

        first = []
        for row in self.rows:
            if not self._tuned(row):
                self.found[row.key].choice = TrialChoice({}, self._work(row).preset.train.epochs)
                first += self._runs(row)
            elif row.like is None:
                first += trials[row.key]
        run_works(left(first), self.plan.workers, lambda *found: left(done(*found)))
        return self.found

    def _note(self, work: Work, record: Record | None) -> list[Work]:
        """Keep what was found, None for nothing; the work that can be begun now."""
        row = work.row
        found = self.found[row.key]
        if work.choice is not None:
            if record is not None and "failed" in record:
                found.failed.append(f"seed {work.seed}: {record['failed']}")
            elif record is not None:
                found.runs[work.seed] = record
            return []
        if record is not None and "failed" in record:
            found.failed.append(f"trial: {record['failed']}")
        elif record is not None:
            found.trials.append(record)
        self._pending[row.key] -= 1
        return [] if self._pending[row.key] else self._choose(row)

    def _choose(self, row: Row) -> list[Work]:
        """The trial with the least loss on held-out posts, and the work that follows from it."""
        found = self.found[row.key]
        followers = [other for other in self.rows if other.like == row.key and self._tuned(other)]
        if not found.trials:
            for other in followers if found.failed else ():
                self.found[other.key].failed.append(f"the trials of {row.key} failed")
            return []
        tried = [trial.settings for trial in self._trials(row)]
        found.trials.sort(key=lambda record: tried.index(record["settings"]))
        best = min(found.trials, key=lambda record: float(record["val_loss"]))
        found.choice = TrialChoice(best["settings"], best["epochs"])
        return self._runs(row) + [work for other in followers for work in self._trials(other)]

    def _runs(self, row: Row) -> list[Work]:
        """Of all its seeds, with what its trials chose."""
        choice = self.found[row.key].choice
        return [self._work(row, seed=seed, choice=choice) for seed in self._seeds.get(row.key, ())]

    def _trials(self, row: Row) -> list[Work]:
        """Of a row; one, with the other's setting, of a row like another whose choice is known."""
        if row.like is None:
            return [self._work(row, settings=settings) for settings in self._candidates(row)]
        if not self._tuned(row):
            return []
        choice = self.found[row.like].choice
        return [self._work(row, settings={} if choice is None else choice.settings)]

    def _candidates(self, row: Row) -> list[Mapping[str, float]]:
        """The settings that a row tries."""
        method, preset = get_method(row.method), self._work(row).preset
        if not self._tuned(row):
            return []
        if not method.tuned:
            return [{}]
        value = getattr(preset.train, method.tuned, None)
        if value is None:
            default = {f.name: f.default for f in dataclasses.fields(method.config)}
            value = preset.model.get(method.tuned, default[method.tuned])
        return [{method.tuned: value * factor} for factor in FACTORS[: self.plan.trials]]

    def _tuned(self, row: Row) -> bool:
        """Whether held-out posts choose anything; not for SG-MFT as printed."""
        return self._work(row).preset.val_size > 0

    def _work(self, row: Row, **changes: Any) -> Work:
        work = Work(
            str(self.folder),
            row,
            encoder_setting(row, self.plan.encoder).key,
            epochs=self.plan.epochs,
            plugins=tuple(LOADED),
            device=self.plan.device,
        )
        work = dataclasses.replace(work, **changes)
        keep = row.key in self._drawn and work.seed == 0 and work.choice is not None
        return dataclasses.replace(work, keep_fused=keep)
