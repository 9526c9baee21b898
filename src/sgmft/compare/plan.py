"""What one comparison runs: tables and figures from the catalogue, and how thoroughly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sgmft.compare.catalogue import FIGURES, FigurePlan, Row, TablePlan, rows, tables
from sgmft.errors import SgmftError


@dataclass(frozen=True)
class Plan:
    """What is compared, and how thoroughly.

    Attributes:
        tables, figures: what the report shows.
        encoder: whose features the systems work on.
        seeds: S; runs use seeds 0 to S - 1, trials seed 0.
        trials: values of its tuned setting that each system tries on held-out posts.
        epochs: at most, whatever a preset says; None leaves the presets'.
        workers: processes.
        device: as in `sgmft.training.train`.
        finished_only: run nothing, and show what is finished.
    """

    tables: Sequence[TablePlan]
    figures: Sequence[FigurePlan]
    encoder: str = "compact"
    seeds: int = 5
    trials: int = 3
    epochs: int | None = None
    workers: int = 1
    device: str | None = None
    finished_only: bool = False

    def rows(self) -> list[Row]:
        """Every row that must run, in the order of the tables: those that a table or figure shows,
        a table's reference, and those that another row takes its setting from.
        """
        known = rows()
        keys = [key for table in self.tables for key in (*table.rows, table.reference)]
        keys += [key for figure in self.figures for key in figure.rows]
        keys += [like for key in keys if (like := known[key].like) is not None]
        return [known[key] for key in dict.fromkeys(keys)]


def make_plan(table: str, figure: str, methods: str | None = None, **options: Any) -> Plan:
    """A plan from what is typed on the command line.

    Args:
        table, figure: numbers with commas between.
        methods: keys of rows, to show only those; None for all. The reference always runs.
        options: other fields of `Plan`.

    Raises:
        SgmftError: no such table, figure or row, or nothing is left to show.
    """
    keys = None if methods is None else _names(methods, rows(), "method to compare")
    plans = []
    for number in _names(table, tables(), "table"):
        plan = tables()[number]
        if keys is not None:
            plan = plan._replace(rows={key: plan.rows[key] for key in plan.rows if key in keys})
        if plan.rows:
            plans.append(plan)
    if not plans:
        raise SgmftError(f"Table {table} has none of the rows {methods}: choose other tables.")
    figures = [FIGURES[number] for number in _names(figure, FIGURES, "figure")]
    if keys is not None:
        figures = [
            f._replace(rows=kept) for f in figures if (kept := [k for k in f.rows if k in keys])
        ]
    return Plan(plans, figures, **options)


def _names(text: str, known: Sequence[str] | dict[str, Any], what: str) -> list[str]:
    """Names separated by commas, each of them known."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in known:
            raise SgmftError(f"There is no {what} {name!r}: use {', '.join(known)}.")
    return names
