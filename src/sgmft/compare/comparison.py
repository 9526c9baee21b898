"""A whole comparison: trials choose, runs follow, finished work is not done again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgmft.compare.catalogue import Row
from sgmft.compare.cells import FACTORS, Choice, Work, finished
from sgmft.compare.data import Data
from sgmft.compare.plan import Plan
from sgmft.compare.prepare import encoder_setting
from sgmft.compare.workers import Record, run_works
from sgmft.methods import get_method
from sgmft.plugins import LOADED

OnProgress = Callable[[int, int, str], None]  # done, in all, what was done last


@dataclass
class Found:
    """Records of a row: its trials, what they chose, and its runs by seed."""

    trials: list[Record] = field(default_factory=list)
    choice: Choice | None = None
    runs: dict[int, Record] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class Comparison:
    """The work of a plan in a folder; `shown` are the rows of tables, and the reference."""

    def __init__(self, folder: Path, plan: Plan, data: Data) -> None:
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
        self._done = 0

    def run(self, on_progress: OnProgress | None = None) -> Mapping[str, Found]:
        """Do what is not done yet, and return what was found for each row."""
        own = [(row, s) for row in self.rows if row.like is None for s in self._candidates(row)]
        like = [row for row in self.rows if row.like is not None and self._tuned(row)]
        total = len(own) + len(like) + sum(len(seeds) for seeds in self._seeds.values())
        self._try(own, total, on_progress)
        chosen = [(row, self.found[row.like].choice) for row in like if row.like is not None]
        self._try([(row, c.settings) for row, c in chosen if c is not None], total, on_progress)
        runs = []
        for row in self.rows:
            found = self.found[row.key]
            if not self._tuned(row):
                found.choice = Choice({}, self._work(row).preset.train.epochs)
            if found.choice is None:
                if row.like is not None and self.found[row.like].failed:
                    found.failed = found.failed or [f"the trials of {row.like} failed"]
                continue
            runs += [
                (row, self._work(row, seed=seed, choice=found.choice))
                for seed in self._seeds.get(row.key, ())
            ]
        for (row, work), record in self._perform(runs, total, on_progress):
            if "failed" in record:
                self.found[row.key].failed.append(f"seed {work.seed}: {record['failed']}")
            else:
                self.found[row.key].runs[work.seed] = record
        return self.found

    def _try(
        self,
        trials: Sequence[tuple[Row, Mapping[str, float]]],
        total: int,
        on_progress: OnProgress | None,
    ) -> None:
        """Trials, and the choice of the one with the least loss on held-out posts."""
        works = [(row, self._work(row, settings=settings)) for row, settings in trials]
        for (row, _), record in self._perform(works, total, on_progress):
            found = self.found[row.key]
            if "failed" in record:
                found.failed.append(f"trial: {record['failed']}")
                continue
            found.trials.append(record)
            best = min(found.trials, key=lambda record: float(record["val_loss"]))
            found.choice = Choice(best["settings"], best["epochs"])

    def _perform(
        self, works: Sequence[tuple[Row, Work]], total: int, on_progress: OnProgress | None
    ) -> list[tuple[tuple[Row, Work], Record]]:
        """Records in the order of the works, from their files where they are finished."""
        records: dict[int, Record] = {}

        def done(place: int, record: Record) -> None:
            records[place] = record
            self._done += 1
            if on_progress:
                on_progress(self._done, total, works[place][0].title)

        left = []
        for i, (_, work) in enumerate(works):
            if (record := finished(work, self.data)) is not None:
                done(i, record)
            elif not self.plan.finished_only:
                left.append(i)
        run_works(
            [works[i][1] for i in left],
            self.plan.workers,
            lambda place, record: done(left[place], record),
        )
        return [(works[i], records[i]) for i in sorted(records)]

    def _candidates(self, row: Row) -> list[Mapping[str, float]]:
        """The settings that a row tries."""
        method, preset = get_method(row.method), self._work(row).preset
        if not self._tuned(row):
            return []
        if not method.tuned:
            return [{}]
        value = getattr(preset.train, method.tuned, None)
        if value is None:
            config = method.architecture(preset.name).config
            default = {f.name: f.default for f in dataclasses.fields(config)}
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
