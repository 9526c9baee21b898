"""The runs of a comparison, after the trials that choose their settings, in several processes."""

import hashlib
import json
import math
import multiprocessing
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sgmft.data.posts import Post
from sgmft.data.tables import open_writer
from sgmft.errors import SgmftError, needs_extra, warn
from sgmft.evaluation.compare import prepare
from sgmft.evaluation.compare.catalogue import FACTORS, ComparisonPlan, Row
from sgmft.evaluation.compare.prepare import TEST, TRAIN, VALIDATION, ComparisonData, EncoderSetting
from sgmft.features.attributes import AttributeReader
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Features, LabelledFeatures
from sgmft.models.arrays import softmax
from sgmft.models.base import ClosedFormModel, Model, predict_logits
from sgmft.models.presets import Preset
from sgmft.models.registry import DEFAULT, LOADED, get_method, load_plugin
from sgmft.training.fit import TrainingTask, train_on_all, train_with_validation
from sgmft.utils.checksums import FILES, checksum_matches, file_digests, with_checksum
from sgmft.utils.files import make_file, read_json, write_json
from sgmft.utils.runtime import SIGNALS, end_with_parent

Record = dict[str, Any]  # what a run found, as its file in cells/ has it
OnProgress = Callable[[int, int, str], None]  # done, in all, what was done last
LEAST_DECAY = 1e-4  # of the weights, also where a preset has none


@dataclass(frozen=True)
class Run:
    """A trial, or a run on all training posts."""

    folder: str  # of the comparison
    row: Row
    features: str  # which of `ComparisonData.encoded`
    division: int = 0  # which of `ComparisonData.divisions`
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
    def reads_attributes(self) -> bool:
        """Whether it reads the other columns that the comparison names, if it names some."""
        return self.row.attributes and get_method(self.row.method).reads_attributes(self.preset)

    def name(self, data: ComparisonData) -> str:
        """Return the name of its files; it changes with anything that decides the result."""
        preset, key, method = self.preset, self.row.key, self.row.method
        if method == DEFAULT:  # sgmft 0.1 called it a preset of sgmft, and its row too
            key, method = "sgmft" if key == DEFAULT else key, "sgmft"
        train = asdict(preset.train).items()  # 0.1 had no teacher
        settings = dict(preset.model), {x: y for x, y in train if (x, y) != ("teacher", "none")}
        features = data.encoded[self.features].info["fingerprint"]
        parts = [data.fingerprints[self.division], method, *settings, features, self.epochs]
        parts += filter(None, data.attributes if self.reads_attributes else [])
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
        kind = "trial" if self.epochs is None else f"seed{self.seed}"
        return f"{re.sub(r'[^A-Za-z0-9-]', '_', key)}-{kind}-{digest}"

    def path(self, data: ComparisonData, kind: str, ending: str) -> Path:
        """Return the path of one of its files, of kind "cells", "predictions" or "fused"."""
        return Path(self.folder) / kind / f"{self.name(data)}.{ending}"


def load_record(run: Run, data: ComparisonData, failed: bool = False) -> Record | None:
    """Return what a run found if it was done, or `failed` if asked; warn of damaged files."""
    if run.features not in data.encoded or not (path := run.path(data, "cells", "json")).exists():
        return None
    record, damaged = read_json(path), [path]
    if isinstance(record, dict) and checksum_matches(record):
        files = [run.path(data, "predictions", "parquet"), run.path(data, "fused", "safetensors")]
        if "failed" in record or (run.keep_fused and not files[1].is_file()):
            return record if failed and "failed" in record else None
        known, found = record.get(FILES, {}), file_digests(files)
        damaged = [x for x in files if x.name in known and found.get(x.name) != known[x.name]]
        if not damaged:
            return record
    warn(f"{', '.join(map(str, damaged))} is damaged: its work is done again.")
    return None


def execute_run(run: Run) -> Record:
    """Do a run, in this process, and write down what was found, or under "failed" why not."""
    data = prepare.load_data(Path(run.folder))
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
    division = data.divisions[run.division]
    held_out = np.searchsorted(division.train, division.where(VALIDATION)).tolist()
    task, _ = _training_task(run, data)
    selected = train_with_validation(task, held_out, device=run.device).selected
    record: Record = {"settings": dict(run.settings), "epochs": selected.epoch}
    return record | {"val_loss": selected.val_loss, "val_accuracy": selected.val_accuracy}


def _train_and_predict(run: Run, data: ComparisonData) -> Record:
    assert run.epochs is not None
    task, every = _training_task(run, data)
    network = train_on_all(task, run.epochs, device=run.device)
    test = data.divisions[run.division].where(TEST)
    posts = every.take(np.array(test))
    output = predict_logits(network, posts)
    written = [run.path(data, "predictions", "parquet")]
    columns = ["place", "id", "true_label", *(f"p_{label}" for label in data.labels)]
    probs = zip(test, softmax(output.logits).tolist(), strict=True)
    rows = [(*data.places[i], data.labels[data.classes[i]], *own) for i, own in probs]
    with open_writer(str(written[0]), columns) as writer:
        writer.write([dict(zip(columns, row, strict=True)) for row in rows])
    if run.keep_fused:
        tensors = {"fused": np.ascontiguousarray(output.fused, np.float32)}
        written.append(fused := run.path(data, "fused", "safetensors"))
        make_file(fused, lambda path: save_file(tensors, path))
    record: Record = {"settings": dict(run.settings), "epochs": run.epochs}
    reads = inputs_read(network, posts, run.features.split("/")[0], *data.attributes[:1])
    record |= {"parameters": network.parameter_count, "reads": reads}
    return record | {"name": run.name(data), FILES: file_digests(written)}


def inputs_read(model: Model, posts: Features, encoder: str, names: Iterable[str] = ()) -> str:
    """Name what decides a model's predictions of some posts: inputs that others' change."""
    batch = posts.batch(slice(0, 64), model.uses_ngrams)
    tokens = "words without their order" if encoder == "compact" else "words"
    inputs = {"text": "text vector", "image": "picture vector", "text_tokens": tokens}
    inputs |= {"image_tokens": "regions", "joint": "joint vector"}
    inputs |= {"ngrams": "n-grams of the raw text", "attributes": " and ".join(names)}
    logits, read = model.predict(batch).logits, list[str]()
    others = np.roll(np.arange(len(logits)), 1)  # each post gets its neighbour's
    for name, words in inputs.items():
        if (x := getattr(batch, name)) is not None:
            changed = model.predict(batch._replace(**{name: x[others]})).logits
            if not np.allclose(changed, logits):
                read.append(words)
    width = getattr(getattr(getattr(model, "image", None), "project", None), "out_features", 0)
    return ", ".join([*read, f"projected to {width} numbers"] if width else read)


def _training_task(run: Run, data: ComparisonData) -> tuple[TrainingTask, Features]:
    """Return the task on all training posts, and the features of all posts."""
    encoded, method = data.encoded[run.features], get_method(run.row.method)
    every = prepare.load_features(Path(run.folder), run.features)
    division = data.divisions[run.division]
    if run.reads_attributes and data.attributes:
        learned = division.where(TRAIN) if run.epochs is None else division.train
        rows = [Post(row=cells) for cells in data.attributes]
        every = AttributeReader(rows[0].row).fit([rows[i] for i in learned]).add(every, rows)
    posts = LabelledFeatures(every, np.array(data.classes))
    vectors = encoded.prompts.get(method.name)
    prompts = None if vectors is None else np.array([vectors[x] for x in data.labels], np.float32)
    given = len(data.labels), EncoderInfo(**encoded.info), method, run.preset, prompts
    return TrainingTask(posts.take(np.array(division.train)), *given), every


@dataclass
class RowRecords:
    """Records of a row in one division: its trials, what they chose, and its runs by seed."""

    searched: list[Mapping[str, Any]] = field(default_factory=list)  # settings of trials, in order
    trials: list[Record] = field(default_factory=list)
    choice: Mapping[str, Any] | None = None  # the settings and epochs of its runs
    runs: dict[int, Record] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class Comparison:
    """The runs of a plan in a folder; `shown` are the rows of tables, and the reference."""

    def __init__(self, folder: Path, plan: ComparisonPlan, data: ComparisonData) -> None:
        self.folder, self.plan, self.data = folder, plan, data
        self.rows = plan.rows()
        every = range(len(data.divisions))
        self.found = {row.key: [RowRecords() for _ in every] for row in self.rows}
        self._each = [(row, division) for division in every for row in self.rows]
        self.shown = {key for table in plan.tables for key in (*table.rows, table.reference)}
        self._drawn = {key for figure in plan.figures for key in figure.rows}
        # whether held-out posts choose anything; not for SG-MFT as printed
        self._tuned = {row.key for row in self.rows if self._run(row, 0).preset.val_size > 0}

    def run(self, on_progress: OnProgress | None = None) -> Mapping[str, Sequence[RowRecords]]:
        """Do what is not done yet, trials first; return what was found by row and division."""
        done, total = 0, sum(len(self._seeds(*x)) for x in self._each)
        for x in self._each:
            total += self.plan.trials if self._is_searched(x[0]) else len(self._trials(*x))
        with _workers(self.plan.workers) as execute:
            for runs in self._stages():
                only = self.plan.finished_only
                known = [(run, load_record(run, self.data, only)) for run in runs]
                left = [run for run, x in known if x is None and not only]
                for run, record in chain(known, execute(left)):
                    if record is not None:
                        self._keep(run, record)
                        done += 1
                        if on_progress:
                            on_progress(done, total, run.row.title)
        return self.found

    def settings(self, row: Row) -> dict[str, Any]:
        """Return the settings of a row's runs, a tuned one as its trials find it."""
        method, preset = get_method(row.method), self._run(row, 0).preset
        kinds = method.setting_kinds()
        own = {x.name: x.default for x in fields(method.config) if x.name in kinds}
        train = asdict(preset.train)
        if issubclass(method.network, ClosedFormModel):  # without epochs
            train = {"class_weights": preset.train.class_weights}
        if self.plan.attributes and self._run(row, 0).reads_attributes:
            train["attributes"] = ", ".join(self.plan.attributes)
        return {**own, **preset.model, **train}

    def _stages(self) -> Iterator[list[Run]]:
        """Yield what can be run at once, each list after what the one before found is kept."""
        for is_like in (False, True):
            rows = [(row, n) for row, n in self._each if (row.like is not None) == is_like]
            ready = [(x, n) for x, n in rows if x.like is None or self.found[x.like][n].choice]
            searched = [row for row in ready if self._is_searched(row[0])]
            yield [run for row in ready if row not in searched for run in self._trials(*row)]
            for _ in range(self.plan.trials if searched else 0):
                yield [self._next_trial(*row) for row in searched]
            for row in rows:
                self._choose(*row)
        # seed by seed, so that all divisions have the first early
        yield sorted((run for row in self._each for run in self._runs(*row)), key=lambda x: x.seed)

    def _keep(self, run: Run, record: Record) -> None:
        found = self.found[run.row.key][run.division]
        if "failed" in record:
            kind = "trial" if run.epochs is None else f"seed {run.seed}"
            if len(self.data.divisions) > 1:
                kind += f" in split {self.data.divisions[run.division].name}"
            found.failed.append(f"{kind}: {record['failed']}")
        elif run.epochs is None:
            found.trials.append(record)
        else:
            found.runs[run.seed] = record

    def _choose(self, row: Row, division: int) -> None:
        found = self.found[row.key][division]
        if row.key not in self._tuned:
            found.choice = {"settings": {}, "epochs": self._run(row, 0).preset.train.epochs}
        elif found.trials:  # of equal ones the first is taken
            tried = [run.settings for run in self._trials(row, division)]
            found.trials.sort(key=lambda record: tried.index(record["settings"]))
            found.choice = min(found.trials, key=lambda record: float(record["val_loss"]))
        elif row.like is not None and not (other := self.found[row.like][division]).choice:
            found.failed += [f"the trials of {row.like} failed"] * bool(other.failed)

    def _runs(self, row: Row, division: int) -> list[Run]:
        if (choice := self.found[row.key][division].choice) is None:
            return []
        chosen = {name: choice[name] for name in ("settings", "epochs")}
        return [self._run(row, division, seed=x, **chosen) for x in self._seeds(row, division)]

    def _seeds(self, row: Row, division: int) -> range:
        drawn = row.key in self._drawn and not division
        return range(self.plan.seeds if row.key in self.shown else drawn)

    def _trials(self, row: Row, division: int) -> list[Run]:
        """Return trials of each candidate for its tuned setting, or one of another row's choice."""
        if row.key not in self._tuned:
            return []
        if row.like is not None:
            choice = self.found[row.like][division].choice or {}
            return [self._run(row, division, settings=choice.get("settings", {}))]
        if self._is_searched(row):
            tried = self.found[row.key][division].searched
            return [self._run(row, division, settings=settings) for settings in tried]
        if not (name := get_method(row.method).tuned):
            return [self._run(row, division)]
        value = self.settings(row)[name]
        factors = FACTORS[: self.plan.trials]
        return [self._run(row, division, settings={name: value * x}) for x in factors]

    def _is_searched(self, row: Row) -> bool:
        tuned = row.key in self._tuned and row.like is None and get_method(row.method).tuned
        return bool(self.plan.search and tuned)

    def _next_trial(self, row: Row, division: int) -> Run:
        found = self.found[row.key][division]
        losses = [(x["settings"], x["val_loss"]) for x in found.trials]
        known = [next((y for x, y in losses if x == tried), math.inf) for tried in found.searched]
        found.searched.append(suggest(row, found.searched, known))
        return self._run(row, division, settings=found.searched[-1])

    def _run(self, row: Row, division: int, **changes: Any) -> Run:
        features = EncoderSetting.of(row, self.plan.encoder).key
        changes["keep_fused"] = row.key in self._drawn and changes.get("seed", 1) == division == 0
        changes |= {"most_epochs": self.plan.epochs, "device": self.plan.device}
        return Run(str(self.folder), row, features, division, plugins=tuple(LOADED), **changes)


def suggest(row: Row, tried: Sequence[Mapping[str, Any]], losses: list[float]) -> dict[str, Any]:
    """Return what a row should try next: its own settings first, then what the losses suggest.

    Searched by a tree-structured Parzen estimator (Bergstra et al. 2011) are the learning rate (30
    times less to more), the weight decay (1e-4 to 0.3), dropout (0 to 0.5) and the width (half, as
    it is, or double), but for what the row itself sets; by the same trials the same. A trial that
    failed has a loss of infinity.
    """
    with needs_extra("search", "sgmft compare --search"):
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution
    method = get_method(row.method)
    preset = method.preset(row.preset, row.settings)
    own = {x: preset.model.get(x, getattr(method.config, x, None)) for x in ("dropout", "width")}
    own["learning_rate"] = rate = preset.train.learning_rate
    own["weight_decay"] = max(LEAST_DECAY, preset.train.weight_decay)
    space: dict[str, Any] = {
        "learning_rate": FloatDistribution(rate / 30, rate * 30, log=True),
        "weight_decay": FloatDistribution(LEAST_DECAY, 0.3, log=True),
    }
    if own["dropout"] is not None:
        space["dropout"] = FloatDistribution(0, 0.5)
    if own["width"]:
        widths = []
        for width in (own["width"] // 2, own["width"], 2 * own["width"]):
            with suppress(SgmftError):  # heads have to divide it
                method.preset(row.preset, {**row.settings, "width": width})
                widths.append(width)
        space["width"] = CategoricalDistribution(widths)
    space = {name: kind for name, kind in space.items() if name not in row.settings}
    if not tried:
        return {name: own[name] for name in space}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=len(tried)))
    for settings, loss in zip(tried, losses, strict=True):
        failed = {"state": optuna.trial.TrialState.FAIL} if math.isinf(loss) else {"value": loss}
        study.add_trial(optuna.create_trial(params={**settings}, distributions=space, **failed))
    return dict(study.ask(space).params)


@contextmanager
def _workers(count: int) -> Iterator[Callable[[list[Run]], Iterable[tuple[Run, Record]]]]:
    """Yield what executes runs, here or in `count` processes, which end with an exception."""
    idle: list[ProcessPoolExecutor] = []
    busy: dict[Future[Record], tuple[ProcessPoolExecutor, Run]] = {}
    others = set(multiprocessing.active_children())

    def execute(runs: list[Run]) -> Iterator[tuple[Run, Record]]:
        waiting = deque(runs)
        while waiting or busy:
            while waiting and len(busy) < count:
                run = waiting.popleft()
                future, pool = _submit(run, idle, max(1, (os.cpu_count() or 1) // count))
                busy[future] = pool, run
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                pool, run = busy.pop(future)
                try:
                    record = future.result()
                    idle.append(pool)
                except (BrokenExecutor, SystemExit):
                    record = {"failed": "the process died, perhaps for want of memory"}
                    pool.shutdown()
                yield run, record

    try:
        yield execute if count > 1 else lambda runs: ((run, execute_run(run)) for run in runs)
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        for pool in (*idle, *(pool for pool, _ in busy.values())):
            pool.shutdown(cancel_futures=True)


def _submit(
    run: Run, idle: list[ProcessPoolExecutor], threads: int
) -> tuple[Future[Record], ProcessPoolExecutor]:
    """Give a run to an idle process, or to a fresh one, spawned, where none is left alive."""
    while idle:
        pool = idle.pop()
        try:
            return pool.submit(_execute_in_worker, run), pool
        except BrokenExecutor:
            pool.shutdown()
    resource_tracker.ensure_running()  # by the first process it would be, with signals let through
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
    for number in SIGNALS:  # end without a traceback, and after cleaning up
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    end_with_parent()


def _execute_in_worker(run: Run) -> Record:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return execute_run(run)
