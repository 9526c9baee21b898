"""Train a model on a table of posts and save it."""

import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sgmft.data.source import JobSummary, Relabel, Source, apply_fixes, read_soft_labels
from sgmft.errors import SgmftError
from sgmft.locator.locator import ENCODER, SemanticLocator
from sgmft.training.annotators import label_by_annotators
from sgmft.training.fit import VALIDATION_LOSS
from sgmft.utils import distributed
from sgmft.utils.checksums import short_digest
from sgmft.utils.files import check_output, read_json, writing


def train_best(
    source: Source,
    output: str | Path,
    locators: Sequence[SemanticLocator],
    *,
    fixes: str | None = None,  # table of corrected labels, see `apply_fixes`
    soft_labels: bool = False,  # from columns p_LABEL, see `read_soft_labels`
    annotators: Sequence[str] = (),  # columns of their labels, see `label_by_annotators`
    on_encoded: Callable[[int, int], None] | None = None,  # with the posts encoded, and all
    **options: Any,  # of `SemanticLocator.fit`
) -> tuple[JobSummary, SemanticLocator]:
    """Fit each locator on a table, save the one with the least validation loss, and return it.

    Of several, its metrics have the losses of all. A run that was stopped continues. Several
    processes (`utils.distributed`) all call this, and the main one writes. SgmftError for fewer
    than two labels, an `output` with something else, or several locators that hold no posts out.
    """
    folder = Path(output)
    config, unfinished = read_json(folder / "config.json"), folder / "checkpoint"
    ours = unfinished.is_dir() or (isinstance(config, dict) and "sgmft" in config)
    check_output(folder, ours or not distributed.is_main(), "model")
    relabel: Relabel = list
    if soft_labels:
        relabel = partial(read_soft_labels, keep=source.columns.label is not None)
    if annotators:
        relabel = partial(label_by_annotators, columns=annotators, truth=source.columns.label)
    if soft_labels and annotators:
        raise SgmftError("Give --soft-labels or --annotators, not both: each makes the labels.")
    posts = apply_fixes(source.read_labelled(least=2, relabel=relabel), fixes, source.strict)
    losses: dict[str, float] = {}
    for locator in locators[1:]:  # so that none is missed after others were trained
        _ = locator.encoder
        locator.forget_encoder()
    for locator in locators:
        name = locator.encoder_name
        own = unfinished / short_digest(name.encode()) if losses else unfinished
        count = None if on_encoded is None else lambda done: on_encoded(done, len(posts))
        locator.fit(posts, strict=source.strict, checkpoint=own, on_encoded=count, **options)
        losses[name] = locator.training.metrics.get(VALIDATION_LOSS, math.nan)
        if math.isnan(losses[name]) and len(locators) > 1:
            raise SgmftError("To choose an encoder, posts must be held out: use --val-size 0.1.")
    best = min(locators, key=lambda x: x.training.metrics.get(VALIDATION_LOSS, 0.0))
    if len(locators) > 1:
        best.training.metrics |= {f"{VALIDATION_LOSS}, {k}": x for k, x in losses.items()}
    if distributed.is_main():
        with writing(f"The model in {folder}"):
            unfinished.mkdir(parents=True, exist_ok=True)  # tells half a model from other files
        best.save_pretrained(folder)
        if best.tuned is not None:
            best.use_tuned(best.tuned._replace(folder=folder / ENCODER))
        shutil.rmtree(unfinished, ignore_errors=True)
    distributed.wait()
    return JobSummary(len(posts), best.training.data.skipped, examples=best.left_out), best
