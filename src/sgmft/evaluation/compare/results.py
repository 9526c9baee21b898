"""Results of a comparison: from the records and predictions of its runs to tables and figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from sgmft.data.tables import open_writer
from sgmft.evaluation.compare import figures as drawn, statistics
from sgmft.evaluation.compare.catalogue import Row
from sgmft.evaluation.compare.figures import ReportFigure
from sgmft.evaluation.compare.prepare import TEST, EncoderSetting
from sgmft.evaluation.compare.runs import Comparison, RowRecords
from sgmft.evaluation.compare.statistics import Difference, Estimate, Summary, summarise
from sgmft.evaluation.figures import confusion_figure, draw_confusion
from sgmft.models.arrays import Doubles
from sgmft.utils.files import make_file


@dataclass(frozen=True)
class ResultRow:
    """One row of a table."""

    key: str  # the row's name, as `--methods` takes it
    title: str  # as the table shows it
    paper: float | None = None  # accuracy the paper prints for it, in percent, on its own data
    summary: Summary | None = None  # None where every run failed or none is finished
    against: Difference | None = None  # None for the reference itself
    parameters: int | None = None  # trainable ones
    seconds: float | None = None  # median training time of one run, trials not counted
    reads: str = ""  # what decides its predictions: "text vector, picture vector"
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the method and its training
    setting: str = ""  # what the trials chose, if anything: "learning_rate=0.001"
    note: str = ""  # what a reader must know of this row
    failed: Sequence[str] = ()  # reasons of failed runs, empty when all finished


@dataclass(frozen=True)
class ResultTable:
    """One table of the report."""

    number: str  # "1" to "4" as in the paper, or "5" for ours
    title: str
    about: str  # one or two sentences: what is compared, and what differs from the paper
    lines: Sequence[ResultRow]
    reference: str  # title of the row that the others are tested against


Tables = Sequence[ResultTable]


def finished_seeds(found: Sequence[RowRecords]) -> list[int]:
    """Return the seeds whose runs are finished in every division; 0 of answers from outside."""
    return sorted(set.intersection(*(set(each.runs) for each in found))) if found else [0]


def read_predictions(folder: Path, found: Sequence[RowRecords], labels: Sequence[str]) -> Doubles:
    """Return probabilities (S, N, K) of a row's finished seeds, the test posts by division."""
    columns = []
    for seed in finished_seeds(found):
        table = pa.concat_tables([_predictions_of(folder, each, seed) for each in found])
        columns.append([table[f"p_{label}"].to_numpy() for label in labels])
    return np.array(columns).swapaxes(1, 2)


def make_tables(comparison: Comparison) -> list[ResultTable]:
    """Return every table of the plan, each row tested against the table's reference."""
    data, known = comparison.data, dict(comparison.plan.known)
    tests = [division.where(TEST) for division in data.divisions]
    test, sizes = np.concatenate(tests), np.array([*map(len, tests)])
    of = np.repeat(np.arange(len(sizes)), sizes)
    ratio = float(np.mean(sizes / (len(data.keys) - sizes)))
    splits = statistics.Splits(of, ratio, disjoint=len(np.unique(test)) == len(test))
    truth = np.array(data.classes)[test]
    groups = {column: [values[i] for i in test] for column, values in data.groups.items()}
    probs = dict[str, Doubles]()
    for key, found in comparison.found.items():
        if key in comparison.shown and finished_seeds(found):
            probs[key] = read_predictions(comparison.folder, found, data.labels)
    for key, answers in data.answers.items():
        place = {label: number for number, label in enumerate(data.labels)}
        chosen = [place.get(answers[i], len(place)) for i in test]
        none = chosen.count(len(place))
        note = f"Answers from outside; {none:,} of {len(test):,} are none of the labels, so wrong."
        known[key] = Row(key, key, note=note + data.costs.get(key, ""))
        certain = np.eye(len(place) + 1)[None, chosen]  # (1, N, K + 1); the rest is spread evenly
        sure = np.array([data.sure[key][i] if key in data.sure else 1.0 for i in test])
        sure = np.clip(np.where(sure > 0, sure, 1.0), 1 / len(place), 1)[:, None]
        probs[key] = np.where(certain > 0, sure, (1 - sure) / len(place))
    summaries = {k: summarise(x, truth, data.labels, groups, splits) for k, x in probs.items()}
    tables = []
    for key in data.answers.keys() - data.sure.keys():  # how sure they are is not known
        nothing = Estimate(math.nan, math.nan, math.nan, math.nan)
        summaries[key] = replace(summaries[key], calibration_error=nothing)
    for number, plan in enumerate(comparison.plan.tables):
        rows = [*data.answers, *plan.rows] if number == 0 else plan.rows
        against: dict[str, Difference] = {}
        if (base := probs.get(plan.reference)) is not None:
            compared = [key for key in rows if key in probs and key != plan.reference]
            gaps = [statistics.difference(probs[key], base, truth, splits) for key in compared]
            against = dict(zip(compared, statistics.corrected(gaps), strict=True))
        lines = []
        for key in rows:
            records = comparison.found.get(key, ())
            figures: Any = {"summary": summaries.get(key), "against": against.get(key)}
            figures["settings"] = comparison.settings(known[key]) if records else {}
            lines.append(_result_row(known[key], records, paper=plan.paper.get(key), **figures))
            if known[key].encoder is not None:
                lines[-1] = replace(lines[-1], note=_cost_of_features(known[key], comparison))
        reference = known[plan.reference].title
        tables.append(ResultTable(plan.number, plan.title, plan.about, lines, reference))
    return tables


def _result_row(row: Row, found: Sequence[RowRecords], **figures: Any) -> ResultRow:
    """Return a row with these `paper`, `settings`, `summary` and `against`."""
    runs = [run for each in found for run in each.runs.values()]
    choices = [x.choice for x in found if x.choice is not None and x.trials]
    chosen = [x["settings"] | {"epochs": x["epochs"]} for x in choices]
    setting = []
    for name in chosen[0] if chosen else ():
        least, most = (f"{end(x[name] for x in chosen):.3g}" for end in (min, max))
        if (name, most) != ("epochs", "1"):
            setting.append(f"{name}={least if least == most else f'{least} to {most}'}")
    if runs:
        figures["seconds"] = float(np.median([run["seconds"] for run in runs]))
        figures["parameters"] = runs[0]["parameters"]
        figures["reads"] = runs[0].get("reads", "")  # not known of runs before 0.2
    figures |= {"method": row.method if found else "", "setting": ", ".join(setting)}
    failed = [reason for each in found for reason in each.failed]
    return ResultRow(row.key, row.title, note=row.note, failed=failed, **figures)


def _cost_of_features(row: Row, comparison: Comparison) -> str:
    """Return a row's note with the time and the size of a post's features."""
    encoded = comparison.data.encoded[EncoderSetting.of(row, comparison.plan.encoder).key]
    size = sum(encoded.info.get(f"{x}_width", 0) for x in ("text", "image", "joint")) / 256
    took = "" if encoded.seconds is None else f", {1000 * encoded.seconds:.1f} ms to encode"
    return f"{row.note} {row.encoder}: {size:.2g} KiB of features a post{took}."


def make_figures(comparison: Comparison, tables: Tables, folder: Path) -> list[ReportFigure]:
    """Return every figure of the plan as far as its rows ran; write SVG, PDF and PNG files.

    Of the first table the reference and the best other row have their confusions drawn, too.
    """
    data, known, figures = comparison.data, comparison.plan.known, []
    truth = [data.labels[data.classes[i]] for i in data.divisions[0].where(TEST)]
    for plan in comparison.plan.figures:
        panels = []
        for key in plan.rows:
            if run := comparison.found[key][0].runs.get(0):
                path = comparison.folder / "fused" / f"{run['name']}.safetensors"
                fused = load_file(path)["fused"]
                panels.append(drawn.project_representations(key, known[key].title, fused, truth))
        if panels:
            paths = drawn.save_panels(panels, folder, f"figure-{plan.number}")
            svg, files = paths[0].read_text("utf-8"), [path.name for path in paths]
            figures.append(ReportFigure(plan.number, plan.title, svg, files))
    lines, reference = tables[0].lines, tables[0].reference
    found = [(x.title, x.summary) for x in lines if x.summary and x.key in comparison.found]
    found.sort(key=lambda x: (x[0] != reference, -x[1].accuracy.mean))
    for number, (title, summary) in enumerate(found[:2], 1):
        name, matrix = f"figure-C{number}", (data.labels, summary.confusion)
        svg = confusion_figure(*matrix, name)
        paths = drawn.save_drawing(svg, partial(draw_confusion, *matrix), folder, name)
        files = [path.name for path in paths]
        about = "Test posts of all runs together: true labels as rows, predicted ones as columns."
        figures.append(ReportFigure(f"C{number}", f"Confusions of {title}", svg, files, about))
    return figures


def write_runs(comparison: Comparison, tables: Tables, path: Path, log: Any = None) -> None:
    """Write a line for each row, split, seed and metric; `log`, of `tracked`, gets each run too."""
    shown = {x.key: x for table in tables for x in table.lines if x.summary is not None}
    with open_writer(path, ("row", "split", "seed", "metric", "value")) as writer:
        for key, line in shown.items():
            every = {x: y.runs for x, y in vars(line.summary).items() if isinstance(y, Estimate)}
            every |= line.summary.by_run if line.summary else {}
            found = comparison.found.get(key, ())
            for i, seed in enumerate(finished_seeds(found)):
                for j, division in enumerate(comparison.data.divisions):
                    run = {"row": key, "split": division.name, "seed": seed}
                    figures = {x: y[i][j] for x, y in every.items() if y and y[i][j] == y[i][j]}
                    writer.write([{**run, "metric": x, "value": y} for x, y in figures.items()])
                    if log is not None:
                        chosen = found[j].runs[seed]["settings"] if found else {}
                        name = "{row}, split {split}, seed {seed}".format_map(run)
                        log(figures, 1, {**line.settings, **chosen, **run}, name)


def write_predictions(comparison: Comparison, path: Path) -> None:
    """Write all raw predictions to one Parquet file: row, split, seed, then each run's columns."""
    parts, names = [], [division.name for division in comparison.data.divisions]
    for key, divisions in comparison.found.items():
        for name, found in zip(names, divisions, strict=True):
            for seed in sorted(found.runs):
                table = _predictions_of(comparison.folder, found, seed)
                table = table.add_column(0, "seed", pa.array([seed] * len(table), pa.int32()))
                table = table.add_column(0, "split", pa.array([name] * len(table)))
                parts.append(table.add_column(0, "row", pa.array([key] * len(table))))
    if parts:
        table = pa.concat_tables(parts, promote_options="permissive")
        make_file(path, lambda temporary: pq.write_table(table, temporary))


def _predictions_of(folder: Path, found: RowRecords, seed: int) -> pa.Table:
    return pq.read_table(folder / "predictions" / f"{found.runs[seed]['name']}.parquet")
