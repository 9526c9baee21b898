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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RUN = Path(__file__).parent / "bad_input" / "run.py"
PART = 5000  # cases of one process, at most
SHARES = {  # of all cases, in thousandths: mutation, hypothesis, atheris
    "tables .csv": (70, 20, 60),
    "tables .tsv": (40, 10, 0),
    "tables .jsonl": (70, 20, 40),
    "tables .json": (70, 20, 60),
    "tables .parquet": (60, 20, 0),
    "tables .xlsx": (10, 0, 0),
    "tables .db": (10, 0, 0),
    "collected": (40, 10, 0),
    "texts": (80, 20, 30),
    "stills": (80, 10, 0),
    "TIFF": (20, 0, 0),
    "videos and animations": (30, 0, 0),
    "whole posts": (90, 10, 0),
}
ENGINES = ("mutation", "hypothesis", "atheris")
NO_ATHERIS = "atheris is not installed (Linux: pip install atheris): mutation takes its cases"


def total(parts):
    """Return one outcome of several processes'."""
    return {
        "cases": sum(x["cases"] for x in parts),
        "accepted": sum(x["accepted"] for x in parts),
        "refused": sum((Counter(x["refused"]) for x in parts), Counter()),
        "findings": [finding for x in parts for finding in x["findings"]],
        "slowest": max(x["slowest"] for x in parts),
        "mebibytes": max(x["mebibytes"] for x in parts),
    }


def plan(cases, only, atheris):
    """Return the parts of the work: target, engine, cases, number of the first."""
    parts = []
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


def run(part, seed, folder):
    """Run one part in a process of its own; its death is a finding."""
    target, engine, cases, first = part
    own = folder / f"{target} {engine} {first}".replace(" ", "-").replace(".", "")
    own.mkdir(parents=True)
    command = [sys.executable, RUN, target, engine, str(cases), str(seed), str(first), own]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    with (own / "output").open("wb") as output:
        code = subprocess.run(command, env=environment, stdout=output, stderr=output).returncode
    try:
        outcome = json.loads((own / "outcome.json").read_text("utf-8"))
    except FileNotFoundError:
        outcome = {"cases": 0, "accepted": 0, "refused": {}, "slowest": 0, "mebibytes": 0}
        code = code or 1
    outcome.setdefault("findings", [])
    if code:
        outcome["findings"].append(
            f"{own / 'current'}: the process ended with {code}, see 'output'"
        )
    return outcome


def table(totals):
    """Format all outcomes as Markdown."""
    yield "| target | engine | cases | accepted | refused | findings | slowest, s | memory, MiB |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    reasons = {}
    for (target, engine), x in sorted(totals.items()):
        yield (
            f"| {target} | {engine} | {x['cases']:,} | {x['accepted']:,} "
            f"| {x['refused'].total():,} | {len(x['findings'])} | {x['slowest']:.1f} "
            f"| {x['mebibytes']} |"
        )
        reasons.setdefault(target, Counter()).update(x["refused"])
    yield from ("", "| target | refused | reason |", "|---|--:|---|")
    for target, kinds in reasons.items():
        most = kinds.most_common(6)
        yield from (f"| {target} | {count:,} | {kind} |" for kind, count in most)
        if rest := kinds.total() - sum(count for _, count in most):
            yield f"| {target} | {rest:,} | {len(kinds) - 6} other kinds |"


def main():
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
    outcomes = {}
    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ended = pool.map(lambda part: run(part, options.seed, folder), parts)
        for part, outcome in zip(parts, ended, strict=True):
            outcomes.setdefault(part[:2], []).append(outcome)
    totals = {key: total(found) for key, found in outcomes.items()}
    print(*table(totals), "", sep="\n")
    findings = [finding for x in totals.values() for finding in x["findings"]]
    cases, minutes = sum(x["cases"] for x in totals.values()), (time.monotonic() - start) / 60
    print(f"{cases:,} cases, seed {options.seed}, {minutes:.1f} minutes, {len(findings)} findings")
    if not atheris:
        print(NO_ATHERIS)
    for finding in findings:
        print(finding)
    if not findings:
        shutil.rmtree(folder)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
