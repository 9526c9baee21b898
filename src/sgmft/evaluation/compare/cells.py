"""One piece of a comparison's work: a trial on held-out posts, or a run on all training posts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sgmft.data.tables import open_writer
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.evaluation.compare.catalogue import Row
from sgmft.evaluation.compare.data import ComparisonData, load_data, load_features
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import LabelledFeatures
from sgmft.models.inference import predict_logits
from sgmft.models.plugins import load_plugin
from sgmft.models.presets import Preset
from sgmft.models.registry import get_method
from sgmft.training.fit import TrainingTask, choose, refit
from sgmft.utils.checksums import FILES, checksum_matches, file_digest, file_digests, with_checksum
from sgmft.utils.files import make_whole, read_json, write_json, writing

FACTORS = (1.0, 3.0, 1 / 3, 10.0, 0.1, 30.0, 1 / 30)  # of the tuned setting, trial by trial


@dataclass(frozen=True)
class TrialChoice:
    """What trials chose for a row.

    Attributes:
        settings: replaced in its preset.
        epochs: of a run on all training posts.
    """

    settings: Mapping[str, float]
    epochs: int


@dataclass(frozen=True)
class Work:
    """A trial (`choice` is None) or a run.

    Attributes:
        folder: of the comparison.
        row: what is trained.
        features: which of `Data.encoded`.
        epochs: at most, whatever the preset says; None leaves it.
        seed: of weights, order and dropout.
        settings: replaced in the row's preset, of a trial.
        choice: what the trials chose, of a run.
        keep_fused: whether the test posts' fused representations are written too.
        plugins: Python files to load first.
        device: as in `sgmft.training.trainer.train`.
    """

    folder: str
    row: Row
    features: str
    epochs: int | None = None
    seed: int = 0
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    choice: TrialChoice | None = None
    keep_fused: bool = False
    plugins: tuple[str, ...] = ()
    device: str | None = None

    @property
    def preset(self) -> Preset:
        """The row's settings with this work's on top."""
        chosen = self.choice.settings if self.choice else self.settings
        row = self.row
        preset = get_method(row.method).preset(
            row.preset, {**row.settings, **chosen, "seed": self.seed}
        )
        if self.epochs is not None:
            train = dataclasses.replace(preset.train, epochs=min(self.epochs, preset.train.epochs))
            preset = dataclasses.replace(preset, train=train)
        return preset

    def name(self, data: ComparisonData) -> str:
        """Of its files; changes with anything that decides the result."""
        preset, encoded = self.preset, data.encoded[self.features]
        parts = [
            data.fingerprint,
            self.row.method,
            dict(preset.model),
            asdict(preset.train),
            encoded.info["fingerprint"],
            None if self.choice is None else self.choice.epochs,
        ]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
        kind = "trial" if self.choice is None else f"seed{self.seed}"
        return f"{re.sub(r'[^A-Za-z0-9-]', '_', self.row.key)}-{kind}-{digest}"


def finished(work: Work, data: ComparisonData) -> dict[str, Any] | None:
    """What was found, if this work was done before and its files are as they were written.

    Files that are not are named in an `SgmftWarning`.
    """
    if work.features not in data.encoded:
        return None
    path = _path(work, data, "cells", "json")
    record = read_json(path)
    if record is None and not path.exists():
        return None
    damaged = [path] if not isinstance(record, dict) or not checksum_matches(record) else []
    if not damaged and "failed" in record:
        return None
    fused = _path(work, data, "fused", "safetensors")
    if not damaged and work.keep_fused and not fused.is_file():
        return None
    predictions = _path(work, data, "predictions", "parquet")
    known = {} if damaged else record.get(FILES, {})
    damaged += [x for x in (predictions, fused) if x.name in known and not _same(x, known[x.name])]
    if damaged:
        names = ", ".join(map(str, damaged))
        warnings.warn(f"{names} is damaged: its work is done again.", SgmftWarning, stacklevel=2)
        return None
    return dict(record)


def _same(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest


def perform(work: Work) -> dict[str, Any]:
    """Do a piece of work, in this process, and write down what was found.

    An exception becomes a record with the reason under "failed".

    Raises:
        SgmftError: what was found cannot be written.
    """
    data = load_data(Path(work.folder) / "data.json")
    try:
        for plugin in work.plugins:
            load_plugin(plugin)
        start = time.monotonic()
        record = _trial(work, data) if work.choice is None else _run(work, data)
        record["seconds"] = time.monotonic() - start
    except Exception as error:  # whatever it is, the other cells go on
        if isinstance(error, SgmftError) and isinstance(error.__cause__, OSError | SafetensorError):
            raise  # but not on a disk that is full
        record = {"failed": f"{type(error).__name__}: {error}"}
    write_json(_path(work, data, "cells", "json"), with_checksum(record))
    return record


def _trial(work: Work, data: ComparisonData) -> dict[str, Any]:
    task, train, _ = _task(work, data)
    places = {int(row): i for i, row in enumerate(train)}
    choice = choose(task, [places[i] for i in data.held_out], device=work.device)
    return {
        "settings": dict(work.settings),
        "epochs": choice.kept.epoch,
        "val_loss": choice.kept.val_loss,
        "val_accuracy": choice.kept.val_accuracy,
    }


def _run(work: Work, data: ComparisonData) -> dict[str, Any]:
    assert work.choice is not None
    task, _, test = _task(work, data)
    network = refit(task, work.choice.epochs, device=work.device)
    answers = predict_logits(network, load_features(_data_file(work), work.features).take(test))
    probabilities = answers.logits.softmax(-1).numpy()
    columns = ["place", "id", "true_label", *(f"p_{label}" for label in data.labels)]
    written = [_path(work, data, "predictions", "parquet")]
    with open_writer(str(written[0]), columns) as writer:
        writer.write(
            [
                {"place": data.places[i][0], "id": data.places[i][1]}
                | {"true_label": data.labels[data.classes[i]]}
                | {f"p_{label}": float(p) for label, p in zip(data.labels, row, strict=True)}
                for i, row in zip(test.tolist(), probabilities, strict=True)
            ]
        )
    if work.keep_fused:
        values = {"fused": answers.fused.numpy().astype(np.float32)}
        written.append(fused := _path(work, data, "fused", "safetensors"))
        with writing(fused):
            fused.parent.mkdir(parents=True, exist_ok=True)
            make_whole(fused, lambda path: save_file(values, path))
    return {
        "settings": dict(work.choice.settings),
        "epochs": work.choice.epochs,
        "parameters": sum(x.numel() for x in network.parameters() if x.requires_grad),
        "name": work.name(data),
        FILES: file_digests(written),
    }


def _task(work: Work, data: ComparisonData) -> tuple[TrainingTask, torch.Tensor, torch.Tensor]:
    """The task on all training posts; positions of training and of test posts."""
    encoded, method = data.encoded[work.features], get_method(work.row.method)
    features = load_features(_data_file(work), work.features)
    is_test = torch.tensor(data.test)
    train, test = (~is_test).nonzero()[:, 0], is_test.nonzero()[:, 0]
    vectors = encoded.prompts.get(method.name)
    task = TrainingTask(
        LabelledFeatures(features, torch.tensor(data.classes)).take(train),
        len(data.labels),
        EncoderInfo(**encoded.info),
        method,
        work.preset,
        None if vectors is None else torch.tensor([vectors[label] for label in data.labels]),
    )
    return task, train, test


def _data_file(work: Work) -> Path:
    return Path(work.folder) / "data.json"


def _path(work: Work, data: ComparisonData, kind: str, ending: str) -> Path:
    return Path(work.folder) / kind / f"{work.name(data)}.{ending}"
