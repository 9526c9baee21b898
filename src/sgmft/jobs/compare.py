"""Compare systems on a table of labelled posts, and write the report."""

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from sgmft.data.source import JobSummary, Source, describe_errors
from sgmft.errors import TEXTS, SgmftError, warn
from sgmft.evaluation.compare import prepare, results
from sgmft.evaluation.compare.catalogue import ComparisonPlan
from sgmft.evaluation.compare.prepare import TEST, VALIDATION, ComparisonData, Split, write_splits
from sgmft.evaluation.compare.report import write_report
from sgmft.evaluation.compare.runs import Comparison, OnProgress
from sgmft.training.history import tracked
from sgmft.utils.files import check_output, leftovers, nan_to_none, read_json, write_json
from sgmft.utils.runtime import versions
from sgmft.utils.templates import pick_language, render


def compare_table(
    source: Source,
    output: str | Path,
    plan: ComparisonPlan,
    *,
    split: Split | None = None,
    by: Sequence[str] = (),
    answers: Mapping[str, str] | None = None,
    features: str | Path | None = None,
    command: str = "",
    language: str | None = None,  # of the report: en or zh; by default the locale's
    track: Any = None,  # where each finished run is logged too, as in `SemanticLocator.fit`
    on_encoded: prepare.OnEncoded | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[JobSummary, list[results.ResultTable], Path]:
    """Run what is not done yet of a plan on a table of posts, and write the report.

    Writes to `output`: report.html, report.md, figures, results.json, predictions.parquet (every
    run's probabilities), and cells/, predictions/, fused/ with what each run found, from which the
    same command continues; features, too, without a folder for them. By default a fifth of the
    posts is the test set. `by` are columns by whose values results are broken down; `answers` from
    outside are judged as rows of the first table, each a column or a file of id and label.
    """
    language = pick_language(language)
    if again := ", ".join(x for x in answers or () if x in plan.known):
        raise SgmftError(f"--answers {again}: there is a row of that name, take another.")
    folder = Path(output).absolute()
    check_output(folder, _may_replace(folder), "report")
    path, earlier = folder / "data.json", None
    asked = {"table": Path(source.table).name, "split": str(split or Split())}
    asked |= {"answers": str(answers or {})}
    prepare.load_data.cache_clear()
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # it is damaged
        earlier = prepare.load_data(folder)
    with tracked(track, {"command": command}) as log:  # opened before the work
        if plan.finished_only:
            if earlier is None and path.is_file():
                raise SgmftError(f"{path} is damaged: leave --finished-only out to write it anew.")
            if earlier is None:
                raise SgmftError(f"Nothing is finished in {folder}.")
            unsaid = str(Split()), "{}"
            if names := [x for x, y in earlier.asked.items() if asked[x] not in (y, *unsaid)]:
                raise SgmftError(TEXTS["other options"], folder=folder, names=", ".join(names))
            data = earlier
        else:
            posts = source.read_labelled("has no label to learn from", least=2)
            store = Path(features) if features is not None else folder / "features"
            data = prepare.prepare_comparison(
                posts, plan, store, split or Split(), by, answers, source.strict, on_encoded
            )
            data = replace(data, asked=asked)
            if earlier is not None:
                data = _with_earlier(data, earlier)
            elif path.exists():
                warn(f"{path} is damaged: it is written anew, and what is finished is found again.")
            write_json(path, asdict(data))
            prepare.load_data.cache_clear()
            prepare.load_features.cache_clear()
        comparison = Comparison(folder, plan, data)
        comparison.run(on_progress)
        tables = results.make_tables(comparison)
        results.write_predictions(comparison, folder / "predictions.parquet")
        write_splits(folder / "splits.csv", data.places, data.divisions)
        results.write_runs(comparison, tables, folder / "runs.csv", log)
        write_json(folder / "results.json", nan_to_none([asdict(table) for table in tables]))
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    shown: Any = {"tables": tables, "figures": results.make_figures(comparison, tables, folder)}
    shown |= {"data": _describe_data(data), "commands": [command] if command else []}
    notes = render("evaluation/templates/compare_notes.txt", plan=plan, language=language)
    shown |= {"notes": notes.splitlines(), "versions": {"machine": machine, **versions()}}
    shown |= {"title": f"Comparison on {Path(source.table).name}", "language": language}
    page = write_report(folder, **shown)
    return JobSummary(data.read, data.left_out, {}, data.warnings, data.examples), tables, page


def default_workers(device: str | None) -> int:
    """Return the number of processors this process may use; 1 where a GPU does the work."""
    import torch

    on_gpu = device not in (None, "cpu") or (device is None and torch.cuda.is_available())
    return 1 if on_gpu else len(os.sched_getaffinity(0))


def _may_replace(folder: Path) -> bool:
    values = read_json(folder / "data.json")
    if not folder.is_dir() or (isinstance(values, dict) and "encoded" in values):
        return True
    names = {x.name for x in folder.iterdir()} - {x.name for x in leftovers(folder, "data.json")}
    return names <= {"features"} or ("cells" in names and values is None)


def _with_earlier(data: ComparisonData, earlier: ComparisonData) -> ComparisonData:
    """Keep the same posts' earlier encoder settings, so that earlier rows can be shown."""
    if any(getattr(earlier, x) != getattr(data, x) for x in ("labels", "keys", "classes")):
        return data
    encoded = {**earlier.encoded, **data.encoded}
    for key, known in earlier.encoded.items():
        encoded[key] = replace(encoded[key], seconds=encoded[key].seconds or known.seconds)
    return replace(data, encoded=encoded)


def _describe_data(data: ComparisonData) -> dict[str, str]:
    posts, splits = len(data.keys), len(data.divisions)
    roles = Counter(role for division in data.divisions for role in division.roles)
    test, held_out = (round(roles[role] / splits) for role in (TEST, VALIDATION))
    classes = np.bincount(np.array(data.classes), minlength=len(data.labels))
    labels = (f"{name} {count}" for name, count in zip(data.labels, classes, strict=True))
    sizes = ((key, x.info["image_size"]) for key, x in data.encoded.items())
    features = (f"{key}, pictures of {x} pixels" if x > 1 else key for key, x in sizes)
    return {
        "posts": f"{data.read:,}, of which {posts:,} are usable under every encoder setting",
        "left out": describe_errors(data.left_out) or "none",
        "splits": str(splits),
        "training posts": f"{posts - test:,}; {held_out:,} held out for the trials",
        "test posts": f"{test:,}",
        "labels": ", ".join(labels),
        "features": "; ".join(features),
        "fingerprint": ", ".join(data.fingerprints),
    }
