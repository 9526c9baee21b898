"""From records and predictions to the tables and figures of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from sgmft.evaluation.compare.catalogue import FigurePlan, Row, TablePlan, rows
from sgmft.evaluation.compare.comparison import Comparison, Found
from sgmft.evaluation.compare.figures import project_representations, save_figure
from sgmft.evaluation.compare.statistics import (
    Difference,
    Line,
    ReportFigure,
    Summary,
    Table,
    corrected,
    difference,
    summarise,
)
from sgmft.utils.files import make_whole, writing

Chances = npt.NDArray[np.float64]  # (S, N, K)


def read_predictions(folder: Path, found: Found, labels: Sequence[str]) -> Chances:
    """Probabilities (S, N, K) of a row's finished runs, in the order of their seeds."""
    runs = [found.runs[seed] for seed in sorted(found.runs)]
    tables = [pq.read_table(folder / "predictions" / f"{run['name']}.parquet") for run in runs]
    return np.array(
        [np.stack([table[f"p_{label}"].to_numpy() for label in labels], 1) for table in tables]
    )


def make_tables(comparison: Comparison) -> list[Table]:
    """Every table of the plan with its figures, each row tested against its reference."""
    data = comparison.data
    test = [i for i, is_test in enumerate(data.test) if is_test]
    truth = np.array([data.classes[i] for i in test])
    groups = {column: [values[i] for i in test] for column, values in data.groups.items()}
    shown = {
        key: read_predictions(comparison.folder, found, data.labels)
        for key, found in comparison.found.items()
        if key in comparison.shown and found.runs
    }
    summaries = {key: summarise(x, truth, data.labels, groups) for key, x in shown.items()}
    tables = []
    for plan in comparison.plan.tables:
        compared = [key for key in plan.rows if key in shown and key != plan.reference]
        differences: list[Difference] = []
        if plan.reference in shown:
            base = shown[plan.reference]
            differences = corrected([difference(shown[key], base, truth) for key in compared])
        against = dict(zip(compared, differences, strict=False))
        tables.append(_table(plan, comparison.found, summaries, against))
    return tables


def _table(
    plan: TablePlan,
    found: Mapping[str, Found],
    summaries: Mapping[str, Summary],
    against: Mapping[str, Difference],
) -> Table:
    lines = [
        _line(rows()[key], paper, found[key], summaries.get(key), against.get(key))
        for key, paper in plan.rows.items()
    ]
    return Table(plan.number, plan.title, plan.about, lines, rows()[plan.reference].title)


def _line(
    row: Row,
    paper: float | None,
    found: Found,
    summary: Summary | None,
    against: Difference | None,
) -> Line:
    runs = list(found.runs.values())
    setting = ""
    if found.choice is not None and found.trials:
        chosen = {name: f"{value:.3g}" for name, value in found.choice.settings.items()}
        if found.choice.epochs > 1:
            chosen["epochs"] = str(found.choice.epochs)
        setting = ", ".join(f"{name}={value}" for name, value in chosen.items())
    return Line(
        row.key,
        row.title,
        paper,
        summary,
        against,
        parameters=runs[0]["parameters"] if runs else None,
        seconds=float(np.median([run["seconds"] for run in runs])) if runs else None,
        setting=setting,
        note=row.note,
        failed=found.failed,
    )


def make_figures(comparison: Comparison, folder: Path) -> list[ReportFigure]:
    """Every figure of the plan as far as its rows ran; SVG and PNG files go to `folder`."""
    data, parts = comparison.data, []
    truth = [data.labels[data.classes[i]] for i, is_test in enumerate(data.test) if is_test]
    for plan in comparison.plan.figures:
        panels = [
            project_representations(key, rows()[key].title, _fused(comparison, key), truth)
            for key in plan.rows
            if 0 in comparison.found[key].runs
        ]
        if panels:
            parts.append(_figure(plan, save_figure(panels, folder, f"figure-{plan.number}")))
    return parts


def _figure(plan: FigurePlan, files: tuple[Path, Path]) -> ReportFigure:
    about = (
        "t-SNE of the test posts' fused representations, the same posts, seed and initialisation "
        "in every panel. Silhouette and separation are of the representations themselves, not of "
        "the drawing."
    )
    svg = files[0].read_text("utf-8")
    return ReportFigure(plan.number, plan.title, about, svg, [file.name for file in files])


def _fused(comparison: Comparison, key: str) -> npt.NDArray[np.float32]:
    name = comparison.found[key].runs[0]["name"]
    return load_file(comparison.folder / "fused" / f"{name}.safetensors")["fused"]


def write_predictions(comparison: Comparison, path: Path) -> None:
    """All raw predictions in one Parquet file: row, seed, then the columns of each run's."""
    parts = []
    for key, found in comparison.found.items():
        for seed, run in sorted(found.runs.items()):
            table = pq.read_table(comparison.folder / "predictions" / f"{run['name']}.parquet")
            count = len(table)
            table = table.add_column(0, "seed", pa.array([seed] * count, pa.int32()))
            parts.append(table.add_column(0, "row", pa.array([key] * count)))
    if parts:
        table = pa.concat_tables(parts, promote_options="permissive")
        with writing(path):
            make_whole(path, lambda temporary: pq.write_table(table, temporary))
