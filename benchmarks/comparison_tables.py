"""Several comparisons side by side: the tables of docs/results.md from `sgmft compare`'s folders.

    python benchmarks/comparison_tables.py masked=report-masked/ news=report-news/ ...

Accuracy in percent, mean ± standard deviation over seeds. ▲ and ▼: higher or lower than the
table's reference by more than chance (Holm-corrected p < 0.05); the reference is in bold.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from cross_validation import mark

from sgmft.evaluation.compare.statistics import Difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", metavar="NAME=FOLDER")
    reports = dict(item.split("=", 1) for item in parser.parse_args().reports)
    found = {name: read(Path(folder)) for name, folder in reports.items()}
    for number in sorted({number for tables in found.values() for number in tables}):
        print(table(number, found), end="\n\n")
    print(effort({name: Path(folder) for name, folder in reports.items()}))


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The tables of one comparison by number."""
    return {t["number"]: t for t in json.loads((folder / "results.json").read_text("utf-8"))}


def table(number: str, found: dict[str, dict[str, Any]]) -> str:
    """One table of all comparisons that have it: rows by system, columns by data set."""
    have = {name: tables[number] for name, tables in found.items() if number in tables}
    rows = {line["key"]: line["title"] for t in have.values() for line in t["lines"]}
    first = next(iter(have.values()))
    title = f"Table {number}, {first['title'].lower()}"
    lines = [f"| {title} | {' | '.join(have)} |", "|---" * (len(have) + 1) + "|"]
    for key, title in rows.items():
        cells = [cell(key, t) for t in have.values()]
        name = f"**{title}**" if title == first["reference"] else title
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(key: str, table: dict[str, Any]) -> str:
    line = next((line for line in table["lines"] if line["key"] == key), None)
    if line is None or line["summary"] is None:
        return "–"
    mean, sd, *_ = line["summary"]["accuracy"]
    text = f"{100 * mean:.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}")
    against = line["against"]
    return text if against is None else text + mark(Difference(*against))


def effort(folders: dict[str, Path]) -> str:
    """How many trials and runs each comparison took, and their seconds together."""
    lines = [
        "| set | trials and runs | hours of one processor | longest run |",
        "|---|---|---|---|",
    ]
    for name, folder in folders.items():
        cells = [json.loads(file.read_text("utf-8")) for file in (folder / "cells").glob("*.json")]
        seconds = np.array([cell["seconds"] for cell in cells if "seconds" in cell])
        hours = f"{seconds.sum() / 3600:.1f}"
        lines.append(f"| {name} | {len(seconds)} | {hours} | {seconds.max():.0f} s |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
