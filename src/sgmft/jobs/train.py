"""Train a model on a table of posts and save it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.locator.locator import ENCODER, SemanticLocator
from sgmft.utils import distributed
from sgmft.utils.files import check_output, read_json, writing


def train_table(
    source: Source,
    output: str | Path,
    locator: SemanticLocator,
    *,
    on_encoded: Callable[[int, int], None] | None = None,
    **options: Any,
) -> JobSummary:
    """Fit `locator` on a table and save it in `output`; a run that was stopped continues.

    With several processes (`utils.distributed`) all of them call this, and the main one writes.
    `options` are those of `SemanticLocator.fit`.
    """
    folder = Path(output)
    config = read_json(folder / "config.json")
    ours = (folder / "checkpoint").is_dir() or (isinstance(config, dict) and "sgmft" in config)
    check_output(folder, ours or not distributed.is_main(), "model")
    posts = source.read_labelled(least=2)
    locator.fit(
        posts,
        strict=source.strict,
        checkpoint=folder / "checkpoint",
        on_encoded=None if on_encoded is None else lambda done: on_encoded(done, len(posts)),
        **options,
    )
    if distributed.is_main():
        unfinished = folder / "checkpoint"
        with writing(f"The model in {folder}"):
            unfinished.mkdir(parents=True, exist_ok=True)  # tells half a model from other files
        locator.save_pretrained(folder)
        if locator.tuned is not None:
            locator.use_tuned(locator.tuned._replace(folder=folder / ENCODER))
        shutil.rmtree(unfinished, ignore_errors=True)
    distributed.wait()
    return JobSummary(len(posts), locator.training.data.skipped)
