"""One run of a comparison: a trial on held-out posts, or a run on all training posts."""

import hashlib
import json
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sgmft.data.tables import open_writer
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.evaluation.compare.catalogue import Row
from sgmft.evaluation.compare.prepare import ComparisonData, load_data, load_features
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import LabelledFeatures
from sgmft.models.inference import predict_logits
from sgmft.models.plugins import load_plugin
from sgmft.models.presets import Preset
from sgmft.models.registry import DEFAULT, get_method
from sgmft.training.fit import TrainingTask, train_on_all, train_with_validation
from sgmft.utils.checksums import FILES, checksum_matches, file_digest, file_digests, with_checksum
from sgmft.utils.files import make_whole, read_json, write_json, writing

FACTORS = (1.0, 3.0, 1 / 3, 10.0, 0.1, 30.0, 1 / 30)  # of the tuned setting, trial by trial
Record = dict[str, Any]  # what a run found, as its file in cells/ has it


@dataclass(frozen=True)
class Run:
    """A trial, or a run on all training posts."""

    folder: str  # of the comparison
    row: Row
    features: str  # which of `ComparisonData.encoded`
    most_epochs: int | None = None  # whatever the preset says; None leaves it
    seed: int = 0  # of weights, order and dropout
    settings: Mapping[str, float] = field(default_factory=dict)  # of a trial, or what trials chose
    epochs: int | None = None  # on all training posts, as trials chose; None for a trial
    keep_fused: bool = False  # whether the test posts' fused representations are written too
    plugins: tuple[str, ...] = ()  # Python files to load first
    device: str | None = None  # as in `sgmft.training.trainer.train`

    @property
    def preset(self) -> Preset:
        """The row's settings with this run's on top."""
        settings = {**self.row.settings, **self.settings, "seed": self.seed}
        preset = get_method(self.row.method).preset(self.row.preset, settings)
        epochs = min(self.most_epochs or preset.train.epochs, preset.train.epochs)
        return replace(preset, train=replace(preset.train, epochs=epochs))

    @property
    def data_path(self) -> Path:
        """Where the posts are."""
        return Path(self.folder) / "data.json"

    def name(self, data: ComparisonData) -> str:
        """Return the name of its files; it changes with anything that decides the result."""
        preset, key, method = self.preset, self.row.key, self.row.method
        if method == DEFAULT:  # sgmft 0.1 called it a preset of sgmft, and its row too
            key, method = "sgmft" if key == DEFAULT else key, "sgmft"
        parts = [
            data.fingerprint,
            method,
            dict(preset.model),
            asdict(preset.train),
            data.encoded[self.features].info["fingerprint"],
            self.epochs,
        ]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
        kind = "trial" if self.epochs is None else f"seed{self.seed}"
        return f"{re.sub(r'[^A-Za-z0-9-]', '_', key)}-{kind}-{digest}"

    def path(self, data: ComparisonData, kind: str, ending: str) -> Path:
        """Return the path of one of its files, of kind "cells", "predictions" or "fused"."""
        return Path(self.folder) / kind / f"{self.name(data)}.{ending}"


def load_record(run: Run, data: ComparisonData) -> Record | None:
    """Return what was found, if this run was done before and its files are as they were written.

    Files that are not are named in an `SgmftWarning`.
    """
    if run.features not in data.encoded:
        return None
    path, fused = run.path(data, "cells", "json"), run.path(data, "fused", "safetensors")
    record = read_json(path)
    if record is None and not path.exists():
        return None
    if not isinstance(record, dict) or not checksum_matches(record):
        damaged = [path]
    elif "failed" in record or (run.keep_fused and not fused.is_file()):
        return None
    else:
        known = record.get(FILES, {})
        files = [run.path(data, "predictions", "parquet"), fused]
        files = [file for file in files if file.name in known]
        damaged = [x for x in files if not (x.is_file() and file_digest(x) == known[x.name])]
    if damaged:
        names = ", ".join(map(str, damaged))
        warnings.warn(f"{names} is damaged: its work is done again.", SgmftWarning, stacklevel=2)
        return None
    return dict(record)


def execute_run(run: Run) -> Record:
    """Do a run, in this process, and write down what was found.

    An exception becomes a record with the reason under "failed"; SgmftError where it cannot be
    written.
    """
    data = load_data(run.data_path)
    try:
        for plugin in run.plugins:
            load_plugin(plugin)
        start = time.monotonic()
        record = _try_settings(run, data) if run.epochs is None else _train_and_predict(run, data)
        record["seconds"] = time.monotonic() - start
    except Exception as error:  # whatever it is, the other runs go on
        if isinstance(error, SgmftError) and isinstance(error.__cause__, OSError | SafetensorError):
            raise  # but not on a disk that is full
        record = {"failed": f"{type(error).__name__}: {error}"}
    write_json(run.path(data, "cells", "json"), with_checksum(record))
    return record


def _try_settings(run: Run, data: ComparisonData) -> Record:
    train = [i for i, is_test in enumerate(data.test) if not is_test]
    places = {i: place for place, i in enumerate(train)}
    selected = train_with_validation(
        _training_task(run, data), [places[i] for i in data.held_out], device=run.device
    ).selected
    return {
        "settings": dict(run.settings),
        "epochs": selected.epoch,
        "val_loss": selected.val_loss,
        "val_accuracy": selected.val_accuracy,
    }


def _train_and_predict(run: Run, data: ComparisonData) -> Record:
    assert run.epochs is not None
    network = train_on_all(_training_task(run, data), run.epochs, device=run.device)
    test = torch.tensor(data.test).nonzero()[:, 0]
    output = predict_logits(network, load_features(run.data_path, run.features).take(test))
    written = [run.path(data, "predictions", "parquet")]
    rows: list[dict[str, Any]] = []
    columns = ["place", "id", "true_label", *(f"p_{label}" for label in data.labels)]
    with open_writer(str(written[0]), columns) as writer:
        for i, probs in zip(test.tolist(), output.logits.softmax(-1).tolist(), strict=True):
            values = (*data.places[i], data.labels[data.classes[i]], *probs)
            rows.append(dict(zip(columns, values, strict=True)))
        writer.write(rows)
    if run.keep_fused:
        tensors = {"fused": output.fused.numpy().astype(np.float32)}
        written.append(fused := run.path(data, "fused", "safetensors"))
        with writing(fused):
            fused.parent.mkdir(parents=True, exist_ok=True)
            make_whole(fused, lambda path: save_file(tensors, path))
    return {
        "settings": dict(run.settings),
        "epochs": run.epochs,
        "parameters": sum(x.numel() for x in network.parameters() if x.requires_grad),
        "name": run.name(data),
        FILES: file_digests(written),
    }


def _training_task(run: Run, data: ComparisonData) -> TrainingTask:
    """Return the task on all training posts."""
    encoded, method = data.encoded[run.features], get_method(run.row.method)
    features = load_features(run.data_path, run.features)
    train = (~torch.tensor(data.test)).nonzero()[:, 0]
    vectors = encoded.prompts.get(method.name)
    return TrainingTask(
        LabelledFeatures(features, torch.tensor(data.classes)).take(train),
        len(data.labels),
        EncoderInfo(**encoded.info),
        method,
        run.preset,
        None if vectors is None else torch.tensor([vectors[label] for label in data.labels]),
    )
