"""Bad input at volume: tables, texts, pictures, videos and whole posts, with a fixed seed.

    python tests/faults/fuzz.py [--cases 100000] [--seed 0] [--only NAME] [--keep FOLDER]

The same numbers give the same cases. Ends with 1 on a finding, whose bytes are in FOLDER. atheris
is used where it is installed (Linux: pip install atheris); without it mutation takes its cases.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN = Path(__file__).parent / "bad_input" / "run.py"
PART = 5000  # cases of one process, at most
SHARES = {  # of all cases, in thousandths: mutation, hypothesis, atheris
    "tables .csv": (100, 20, 60),
    "tables .tsv": (40, 10, 0),
    "tables .jsonl": (70, 20, 40),
    "tables .json": (70, 20, 60),
    "tables .parquet": (80, 20, 0),
    "texts": (100, 20, 30),
    "stills": (80, 10, 0),
    "TIFF": (20, 0, 0),
    "videos and animations": (30, 0, 0),
    "whole posts": (90, 10, 0),
}
ENGINES = ("mutation", "hypothesis", "atheris")
NO_ATHERIS = "atheris is not installed (Linux: pip install atheris): mutation takes its cases"


@dataclass
class Sum:
    """The outcome of all parts of one target and engine."""

    cases: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0
    mebibytes: int = 0

    def add(self, part: dict[str, Any]) -> None:
        """Add one process's outcome."""
        self.cases += part["cases"]
        self.accepted += part["accepted"]
        self.refused.update(part["refused"])
        self.findings += part["findings"]
        self.slowest = max(self.slowest, part["slowest"])
        self.mebibytes = max(self.mebibytes, part["mebibytes"])


Part = tuple[str, str, int, int]  # target, engine, cases, number of the first


def plan(cases: int, only: str, atheris: bool) -> list[Part]:
    """Return the parts of the work."""
    parts: list[Part] = []
    for target, shares in reversed(SHARES.items()):
        if only not in target:
            continue
        counts = dict(zip(ENGINES, (cases * share // 1000 for share in shares), strict=True))
        if not atheris:
            counts["mutation"] += counts.pop("atheris")
        for engine, count in counts.items():
            step = PART if engine == "mutation" else max(count, 1)
            parts += [
                (target, engine, min(step, count - first), first) for first in range(0, count, step)
            ]
    return parts


def run(part: Part, seed: int, folder: Path) -> dict[str, Any]:
    """Run one part in a process of its own; its death is a finding."""
    target, engine, cases, first = part
    own = folder / f"{target} {engine} {first}".replace(" ", "-").replace(".", "")
    own.mkdir(parents=True)
    command = [sys.executable, RUN, target, engine, str(cases), str(seed), str(first), own]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    with (own / "output").open("wb") as output:
        code = subprocess.run(command, env=environment, stdout=output, stderr=output).returncode
    try:
        outcome: dict[str, Any] = json.loads((own / "outcome.json").read_text("utf-8"))
    except FileNotFoundError:
        outcome = {"cases": 0, "accepted": 0, "refused": {}, "slowest": 0, "mebibytes": 0}
        code = code or 1
    outcome.setdefault("findings", [])
    if code:
        outcome["findings"].append(
            f"{own / 'current'}: the process ended with {code}, see 'output'"
        )
    return outcome


def table(sums: dict[tuple[str, str], Sum]) -> Iterable[str]:
    """Format all outcomes as Markdown."""
    yield "| target | engine | cases | accepted | refused | findings | slowest, s | memory, MiB |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    for (target, engine), x in sorted(sums.items()):
        refused = x.refused.total()
        yield (
            f"| {target} | {engine} | {x.cases:,} | {x.accepted:,} | {refused:,} "
            f"| {len(x.findings)} | {x.slowest:.1f} | {x.mebibytes} |"
        )
    reasons: dict[str, Counter[str]] = {}
    for (target, _), x in sorted(sums.items()):
        reasons.setdefault(target, Counter()).update(x.refused)
    yield ""
    yield "| target | refused | reason |"
    yield "|---|--:|---|"
    for target, kinds in reasons.items():
        for kind, count in kinds.most_common(6):
            yield f"| {target} | {count:,} | {kind} |"
        if rest := kinds.total() - sum(count for _, count in kinds.most_common(6)):
            yield f"| {target} | {rest:,} | {len(kinds) - 6} other kinds |"


def main() -> int:
    """Run it; 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets whose name holds this")
    parser.add_argument("--keep", type=Path, default=Path("bad-input-findings"))
    options = parser.parse_args()
    atheris = importlib.util.find_spec("atheris") is not None
    folder = options.keep / f"{time.strftime('%Y%m%d-%H%M%S')}-seed-{options.seed}"
    parts = plan(options.cases, options.only, atheris)
    sums: dict[tuple[str, str], Sum] = {}
    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(lambda part: run(part, options.seed, folder), parts)
        for part, outcome in zip(parts, outcomes, strict=True):
            sums.setdefault(part[:2], Sum()).add(outcome)
    for line in table(sums):
        print(line)
    findings = [finding for x in sums.values() for finding in x.findings]
    cases, minutes = sum(x.cases for x in sums.values()), (time.monotonic() - start) / 60
    print(
        f"\n{cases:,} cases, seed {options.seed}, {minutes:.1f} minutes, {len(findings)} findings"
    )
    if not atheris:
        print(NO_ATHERIS)
    for finding in findings:
        print(finding)
    if not findings:
        shutil.rmtree(folder)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
