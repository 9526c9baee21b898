"""The runs of a comparison: trials choose, runs follow, finished runs are not done again.

Runs are spread over processes; a process that dies takes down one run, not the rest.
"""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields, replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sgmft.data.tables import open_writer
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.evaluation.compare.catalogue import ComparisonPlan, Row
from sgmft.evaluation.compare.prepare import (
    ComparisonData,
    encoder_setting,
    load_data,
    load_features,
)
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import LabelledFeatures
from sgmft.models.arrays import softmax
from sgmft.models.inference import predict_logits
from sgmft.models.presets import Preset
from sgmft.models.registry import DEFAULT, LOADED, get_method, load_plugin
from sgmft.training.fit import TrainingTask, train_on_all, train_with_validation
from sgmft.utils.checksums import FILES, checksum_matches, file_digest, file_digests, with_checksum
from sgmft.utils.files import make_whole, read_json, write_json, writing
from sgmft.utils.signals import SIGNALS, end_with_parent

FACTORS = (1.0, 3.0, 1 / 3, 10.0, 0.1, 30.0, 1 / 30)  # of the tuned setting, trial by trial
Record = dict[str, Any]  # what a run found, as its file in cells/ has it
OnProgress = Callable[[int, int, str], None]  # done, in all, what was done last


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
    data = load_data(Path(run.folder))
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
    test = np.flatnonzero(data.test)
    output = predict_logits(network, load_features(Path(run.folder), run.features).take(test))
    written = [run.path(data, "predictions", "parquet")]
    rows: list[dict[str, Any]] = []
    columns = ["place", "id", "true_label", *(f"p_{label}" for label in data.labels)]
    with open_writer(str(written[0]), columns) as writer:
        for i, probs in zip(test.tolist(), softmax(output.logits).tolist(), strict=True):
            values = (*data.places[i], data.labels[data.classes[i]], *probs)
            rows.append(dict(zip(columns, values, strict=True)))
        writer.write(rows)
    if run.keep_fused:
        tensors = {"fused": np.ascontiguousarray(output.fused, np.float32)}
        written.append(fused := run.path(data, "fused", "safetensors"))
        with writing(fused):
            fused.parent.mkdir(parents=True, exist_ok=True)
            make_whole(fused, lambda path: save_file(tensors, path))
    return {
        "settings": dict(run.settings),
        "epochs": run.epochs,
        "parameters": network.parameter_count,
        "name": run.name(data),
        FILES: file_digests(written),
    }


def _training_task(run: Run, data: ComparisonData) -> TrainingTask:
    """Return the task on all training posts."""
    encoded, method = data.encoded[run.features], get_method(run.row.method)
    features = load_features(Path(run.folder), run.features)
    train = np.flatnonzero(~np.array(data.test, bool))
    vectors = encoded.prompts.get(method.name)
    return TrainingTask(
        LabelledFeatures(features, np.array(data.classes)).take(train),
        len(data.labels),
        EncoderInfo(**encoded.info),
        method,
        run.preset,
        None if vectors is None else np.array([vectors[x] for x in data.labels], np.float32),
    )


@dataclass
class RowRecords:
    """Records of a row: its trials, what they chose, and its runs by seed."""

    trials: list[Record] = field(default_factory=list)
    choice: Mapping[str, Any] | None = None  # the settings and epochs of its runs
    runs: dict[int, Record] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class Comparison:
    """The runs of a plan in a folder; `shown` are the rows of tables, and the reference."""

    def __init__(self, folder: Path, plan: ComparisonPlan, data: ComparisonData) -> None:
        self.folder, self.plan, self.data = folder, plan, data
        self.rows = plan.rows()
        self.found = {row.key: RowRecords() for row in self.rows}
        self.shown = {key for table in plan.tables for key in (*table.rows, table.reference)}
        self._drawn = {key for figure in plan.figures for key in figure.rows}
        # whether held-out posts choose anything; not for SG-MFT as printed
        self._tuned = {row.key for row in self.rows if self._run(row).preset.val_size > 0}

    def run(self, on_progress: OnProgress | None = None) -> Mapping[str, RowRecords]:
        """Do what is not done yet, and return what was found for each row.

        A row's runs begin as soon as its trials are done, those of the rows like it too.
        """
        # trials of each row that are not done
        self._pending = {row.key: len(self._trials(row)) for row in self.rows}
        total = sum(self._pending.values()) + sum(len(self._seeds(row)) for row in self.rows)
        done = 0

        def note(run: Run, record: Record | None) -> list[Run]:
            nonlocal done
            done += record is not None
            if record is not None and on_progress:
                on_progress(done, total, run.row.title)
            return self._note(run, record)

        def unfinished(runs: Iterable[Run]) -> list[Run]:
            """Those that must be executed; what is finished is taken from its file."""
            waiting, left = deque(runs), []
            while waiting:
                run = waiting.popleft()
                record = load_record(run, self.data)
                if record is None and not self.plan.finished_only:
                    left.append(run)
                else:
                    waiting.extend(note(run, record))
            return left

        first = []
        for row in self.rows:
            if row.key not in self._tuned:
                epochs = self._run(row).preset.train.epochs
                self.found[row.key].choice = {"settings": {}, "epochs": epochs}
                first += self._runs(row)
            elif row.like is None:
                first += self._trials(row)
        execute = _execute_here if self.plan.workers <= 1 else _execute_in_processes
        execute(unfinished(first), lambda *done: unfinished(note(*done)), self.plan.workers)
        return self.found

    def _note(self, run: Run, record: Record | None) -> list[Run]:
        """Keep what was found, None for nothing; return the runs that can be begun now."""
        found, is_trial = self.found[run.row.key], run.epochs is None
        if record and "failed" in record:
            kind = "trial" if is_trial else f"seed {run.seed}"
            found.failed.append(f"{kind}: {record['failed']}")
        elif record and is_trial:
            found.trials.append(record)
        elif record:
            found.runs[run.seed] = record
        if not is_trial:
            return []
        self._pending[run.row.key] -= 1
        return [] if self._pending[run.row.key] else self._choose(run.row)

    def _choose(self, row: Row) -> list[Run]:
        """Take the trial with the least loss on held-out posts; return the runs that follow."""
        found = self.found[row.key]
        followers = [x for x in self.rows if x.like == row.key and x.key in self._tuned]
        if not found.trials:
            for other in followers if found.failed else ():
                self.found[other.key].failed.append(f"the trials of {row.key} failed")
            return []
        tried = [trial.settings for trial in self._trials(row)]
        found.trials.sort(key=lambda record: tried.index(record["settings"]))
        found.choice = min(found.trials, key=lambda record: float(record["val_loss"]))
        return self._runs(row) + [run for other in followers for run in self._trials(other)]

    def _runs(self, row: Row) -> list[Run]:
        """Return the runs of all its seeds, with what its trials chose."""
        choice = self.found[row.key].choice or {}
        chosen = {name: choice[name] for name in ("settings", "epochs")}
        return [self._run(row, seed=seed, **chosen) for seed in self._seeds(row)]

    def _seeds(self, row: Row) -> range:
        if row.key in self.shown:
            return range(self.plan.seeds)
        return range(1 if row.key in self._drawn else 0)

    def _trials(self, row: Row) -> list[Run]:
        """Return a row's trials: one of each candidate for its tuned setting.

        One, with the other's setting, of a row like another whose choice is known.
        """
        if row.key not in self._tuned:
            return []
        if row.like is not None:
            choice = self.found[row.like].choice or {}
            return [self._run(row, settings=choice.get("settings", {}))]
        method, preset = get_method(row.method), self._run(row).preset
        if not (name := method.tuned):
            return [self._run(row)]
        default = {x.name: x.default for x in fields(method.config)} | vars(preset.train)
        value = {**default, **preset.model}[name]
        factors = FACTORS[: self.plan.trials]
        return [self._run(row, settings={name: value * factor}) for factor in factors]

    def _run(self, row: Row, **changes: Any) -> Run:
        run = Run(
            str(self.folder),
            row,
            encoder_setting(row, self.plan.encoder).key,
            most_epochs=self.plan.epochs,
            plugins=tuple(LOADED),
            device=self.plan.device,
            **changes,
        )
        keep = row.key in self._drawn and run.seed == 0 and run.epochs is not None
        return replace(run, keep_fused=keep)


# Called with each run and what was found; returns the runs that could not be begun before.
_OnDone = Callable[[Run, Record], Iterable[Run]]


def _execute_here(runs: Sequence[Run], on_done: _OnDone, workers: int) -> None:
    waiting = deque(runs)
    while waiting:
        run = waiting.popleft()
        waiting.extend(on_done(run, execute_run(run)))


def _execute_in_processes(runs: Sequence[Run], on_done: _OnDone, workers: int) -> None:
    """Execute runs, and what follows from them, in `workers` processes with a pool each.

    An exception, and so a signal to this process, ends the workers, and their temporary files go.
    """
    waiting = deque(runs)
    idle: list[ProcessPoolExecutor | None] = [None] * workers  # None: to be started
    busy: dict[Future[Record], tuple[ProcessPoolExecutor, Run]] = {}
    threads = max(1, (os.cpu_count() or 1) // workers)
    resource_tracker.ensure_running()  # by the first process it would be, with signals let through
    others = set(multiprocessing.active_children())
    try:
        while waiting or busy:
            while waiting and idle:
                run, pool = waiting.popleft(), idle.pop()
                future, pool = _submit(run, pool, threads)
                busy[future] = pool, run
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                pool, run = busy.pop(future)
                try:
                    record = future.result()
                    idle.append(pool)
                except (BrokenProcessPool, SystemExit):
                    record = {"failed": "the process died, perhaps for want of memory"}
                    pool.shutdown()
                    idle.append(None)
                waiting.extend(on_done(run, record))
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        for pool in (*filter(None, idle), *(pool for pool, _ in busy.values())):
            pool.shutdown(cancel_futures=True)


def _submit(
    run: Run, pool: ProcessPoolExecutor | None, threads: int
) -> tuple[Future[Record], ProcessPoolExecutor]:
    """Give a run to a process, a fresh one where there is none or it has died while idle.

    It is spawned: a fork would inherit torch's threads as they stand.
    """
    if pool is not None:
        try:
            return pool.submit(_execute_in_worker, run), pool
        except BrokenProcessPool:
            pool.shutdown()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, initializer=_start_worker, initargs=(threads,))
    # Signals wait until the process knows what to do with them; it inherits the mask.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return pool.submit(_execute_in_worker, run), pool
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_worker(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of torch, where it will be imported, and ours
    for number in SIGNALS:
        signal.signal(number, _exit_worker)
    end_with_parent()


def _execute_in_worker(run: Run) -> Record:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return execute_run(run)


def _exit_worker(number: int, frame: object) -> None:
    """End a worker, without a traceback and after it has cleaned up."""
    sys.exit(128 + number)
