"""`SemanticLocator`: fit, predict, explain, save and load, from posts to labels."""

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import count, starmap
from pathlib import Path
from typing import Any, Self

import numpy as np
from huggingface_hub import ModelCard
from numpy.typing import NDArray
from safetensors import SafetensorError

from sgmft.data.frames import Folder, Names
from sgmft.data.posts import Post
from sgmft.data.preprocessing.text import MAX_CHARACTERS, get_cleaning, split_windows, window_of
from sgmft.data.splits import fingerprint, split_posts
from sgmft.errors import TEXTS, SgmftError, SgmftNotice, needs_extra, raising, warn
from sgmft.evaluation.calibration import fit_temperature, temper
from sgmft.evaluation.explain.attribution import ExplainedModel, explain_post
from sgmft.evaluation.explain.explanation import Explanation
from sgmft.features.attributes import AttributeReader
from sgmft.features.encode import Chunk, EncodedPosts, encode_all, encode_posts, encode_windows
from sgmft.features.encoder_handle import EncoderHandle, TunedEncoder
from sgmft.features.encoders.base import TABLE
from sgmft.features.encoders.registry import find_plugin
from sgmft.features.features import PARTS, Features, LabelledFeatures
from sgmft.features.table import WIDTHS, vectors_info
from sgmft.locator import state as saved
from sgmft.locator.abstention import FILE as HELD_OUT, HeldOutProbabilities, digest_keys, entropy
from sgmft.locator.drift import count_traits
from sgmft.locator.estimator import Estimator, check_labelled, with_labels
from sgmft.locator.prediction import PredictionBatch
from sgmft.locator.state import CONFIG, FIX, WEIGHTS, ModelState, model_file
from sgmft.models.base import ClosedFormModel, Model, SolveStep, predict_logits
from sgmft.models.baselines.zero_shot import Described, describe
from sgmft.models.method import Method
from sgmft.models.presets import Preset
from sgmft.models.registry import find_method, get_method
from sgmft.training import fit as fitting
from sgmft.training.finetune.settings import Tuning, tuning_of
from sgmft.training.history import Epoch, tracked
from sgmft.utils import distributed
from sgmft.utils.checksums import FILES, check_file, file_digests, with_checksum
from sgmft.utils.files import leftovers, make_whole, nan_to_none, write_file, write_json, writing
from sgmft.utils.templates import render

Progress = Callable[[int], None]  # called with the number of posts done so far
ENCODER = "encoder"  # folder of a fine-tuned one, in that of its model
MARK = "<!-- written by sgmft -->"  # of a model card


class SemanticLocator(Estimator):
    """Predict where the author of a post was, from its text and its pictures.

    Args:
        encoder: "compact", which needs no download, "chinese-clip-huge" (the paper's), or any name
            or folder that `load_encoder` takes; "table:" and a path is a table of vectors by the
            ids of posts. None is "compact", or the encoder that the method brings along.
        method: "gated-experts", our own; "sgmft", the paper's network; or a system they are
            compared with, see `sgmft.models.registry.METHODS`. None is "gated-experts", or "sgmft"
            where one of its presets is named.
        preset: of sgmft "tokens", "elements", "paper" or "distilled". None is the method's first.
        cleaning: how texts are cleaned before encoding: "light", "paper" or "none"; None is the
            preset's.
        settings: single settings of the preset to replace, for instance {"epochs": 5}.
        val_size: share of the training posts held out to choose the epoch; None is the preset's.
        seed: decides the split, the initial weights, the order of posts and dropout.
        patch_grid: a picture becomes its square of region features; None is the encoder's (4).
        trust_remote_code: whether an encoder may run Python files that come with it.
        attributes: other columns of the posts' table that are read beside text and pictures, and
            "hour" and "weekday" of their times; see `sgmft.features.attributes`.
        tune: "head" trains the network on an encoder that stays as it is; "lora" or "full", or a
            `Tuning`, goes on to train an encoder of texts and pictures with it.
        features: folder of a feature store that keeps what was encoded, so that no post is encoded
            twice; True is the one in the user's cache, which the command line has, None is none.
        device: "cpu", "cuda", ...; by default a GPU if there is one.
        columns, root: of the tables that are given in place of posts, see `to_posts`.

    Attributes:
        labels: the K labels, in the order of the probabilities; set by `fit`.
        method: the system, with its name, source and settings.
        network: the trained model, of the class `method.network`; set by `fit`.
        training: record of the training: posts, metrics, temperature, history.
        held_out: probabilities of labelled posts that it has not learned from; perhaps none.

    SgmftError where there is no such encoder, method, preset or setting.
    """

    def __init__(
        self,
        encoder: str | None = None,
        *,
        method: str | None = None,
        preset: str | Preset | None = None,
        cleaning: str | None = None,
        settings: dict[str, Any] | None = None,
        val_size: float | None = None,
        seed: int = 0,
        patch_grid: int | None = None,
        trust_remote_code: bool = False,
        attributes: Sequence[str] = (),
        tune: str | Tuning = "head",
        features: str | Path | bool | None = True,
        device: str | None = None,
        columns: Names = None,
        root: Folder = None,
    ) -> None:
        self.given = {x: y for x, y in locals().items() if x != "self"}
        self.columns, self.root = columns, root
        self.method: Method = find_method(method, preset)
        chosen = self.method.preset(preset, {"seed": seed, **(settings or {})})
        if val_size is not None:
            chosen = dataclasses.replace(chosen, val_size=val_size)
        self.preset: Preset = chosen
        name, cleaning = self.method.pick_encoder(encoder), cleaning or chosen.cleaning
        own = ("patch_grid", "trust_remote_code", "features", "device")
        EncoderHandle.__init__(self, name, cleaning, **{x: self.given[x] for x in own})
        self.tuning = tune if isinstance(tune, Tuning) else tuning_of(tune, {})
        if self.tuning is not None and val_size == 0:
            raise SgmftError(TEXTS["no validation"])
        self.attributes = AttributeReader(attributes)
        if self.attributes.names and (self.tuning or not self.method.reads_attributes(chosen)):
            what = "An encoder in training" if self.tuning else f"{self.method.name} {chosen.name}"
            raise SgmftError(TEXTS["no attributes"], what=what)
        self.labels: list[str] = []
        self.left_out: dict[str, str] = {}  # by the reason, the first post that `fit` left out
        self.network: Model | None = None
        self.training = saved.TrainingRecord()
        self.held_out = HeldOutProbabilities.none(0)
        self.values = {}

    @property
    def uses_tokens(self) -> bool:
        """Whether word and region features are needed beside the pooled ones."""
        return self.method.uses_tokens(self.preset)

    @property
    def traits(self) -> Mapping[str, int]:  # type: ignore[override]
        """How many posts of the training have each trait, see `sgmft.locator.drift`."""
        return self.training.data.traits

    @property
    def temperatures(self) -> NDArray[np.float64]:
        """By which logits are divided, (4,): see `TrainingRecord`; set by `fit`."""
        return np.array(self.training.temperatures)

    def fit(
        self,
        posts: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        split_by: str = "label",
        strict: bool = False,
        checkpoint: str | Path | None = None,
        track: str | Path | None = None,
        on_encoded: Progress | None = None,
        on_epoch: Callable[[Epoch], object] | None = None,
        on_step: Callable[[SolveStep], None] | None = None,
    ) -> Self:
        """Learn from labelled posts; warns of a label that only one of them has.

        Posts with an error, without a label or that cannot be encoded are left out and counted in
        `training.data.skipped`.

        Args:
            posts: whatever `to_posts` takes: posts, a DataFrame, dicts, texts, pictures, ...
            y: a label for each, in place of those in `posts`; `predict` returns them as here,
                numbers as numbers, until the model is saved. A dict of labels' probabilities is a
                soft label; held-out figures and temperatures go by the most probable ones.
            sample_weight: how much each post counts, relative to others; None is `Post.weight`.
            split_by: how the validation posts are drawn: "label" (stratified) or "user" (no user on
                both parts).
            strict: refuse all posts when one has an error or cannot be encoded.
            checkpoint: folder from which an interrupted run continues to the same weights.
            track: where settings and figures of epochs are logged: "mlflow" (see its variable
                MLFLOW_TRACKING_URI), "wandb" (offline, for `wandb sync`), or TensorBoard's folder.
            on_encoded: called with the number of posts encoded so far.
            on_epoch: called after each epoch.
            on_step: called while a method without epochs is fitted, the default for instance.

        SgmftError where fewer than two labels are left or the training has diverged; with `strict`
        also for the first bad post.
        """
        shown = {"encoder": self.encoder_name, "method": self.method.name, **self.preset.model}
        shown |= {"preset": self.preset.name, **dataclasses.asdict(self.preset.train)}
        steps = count(1)
        with tracked(track, shown) as log:
            if self.tuning is not None:
                with needs_extra("torch", "Fine-tuning"):
                    from sgmft.training.finetune.network import check_tunable

                check_tunable(self.encoder, self.tuning)
            posts, values = with_labels([*self._read(posts, y is None)], y, sample_weight)
            check_labelled(posts)
            distributed.join(self.device)
            # What the main process encodes the others find in the store; without one each encodes.
            with distributed.main_first() if self.features_folder is not None else nullcontext():
                how: dict[str, Any] = {"tokens": self.uses_tokens, "on_encoded": on_encoded}
                how["store"] = self.store(self.uses_tokens)
                encode = partial(encode_all, encoder=self.encoder, **how, on_disk=True)
                known = fitting.training_set(posts, encode, strict, [*filter(None, values)])
            usable, seed = known.encoded.posts, self.preset.train.seed
            val_size = self.preset.val_size or (self.tuning.val_size if self.tuning else 0)
            val_rows = split_posts(usable, val_size, seed, split_by)[1] if val_size else []
            (attributes := AttributeReader(self.attributes.names)).check(usable)
            attributes.fit([usable[i] for i in set(range(len(usable))).difference(val_rows)])
            if read := ", ".join(map(str, attributes.columns)):
                warn(f"Attributes: {read}.", SgmftNotice)
            features = attributes.add(known.encoded.features, usable)
            data = LabelledFeatures(features, known.classes, known.weights, known.soft)
            prompts = self.method.encode_prompts(known.labels, self.encoder)
            kind = self.encoder.info, self.method, self.preset
            task = fitting.TrainingTask(data, len(known.labels), *kind, prompts)
            run: dict[str, Any] = {"device": self.device, "on_step": on_step}
            run["on_epoch"] = lambda x: (log(x._asdict(), next(steps)), on_epoch and on_epoch(x))
            run["checkpoint"] = None if checkpoint is None else Path(checkpoint)
            if self.tuning is None:
                choice = fitting.fit_network(task, val_rows, **run)
            else:
                from sgmft.training.finetune.network import fine_tune

                self.forget_encoder()  # its memory is needed
                settings = self.encoder_settings, self.tuning
                choice, tuned = fine_tune(task, known.encoded, *settings, val_rows, **run)
                self.use_tuned(tuned)
            log(metrics := fitting.validation_metrics(choice.selected), next(steps))
        self.network, out, self.attributes = choice.model, choice.held_out, attributes
        self.labels, self.values, self.left_out = known.labels, values, known.examples
        temperatures, held_out = _calibrate(out)
        digests = np.unique(digest_keys(known.encoded.keys))
        self.held_out = dataclasses.replace(held_out, digests=digests)
        texts = [post.text for post in usable]
        window = window_of(texts, get_cleaning(self.encoder.info.cleaning))
        digest = fingerprint(zip(known.encoded.keys, known.names, strict=True))
        counts = len(known.names), len(known.names) - len(val_rows), len(val_rows)
        probs = temper(out.logits, np.array(temperatures)[out.parts])
        traits = count_traits(texts, features.parts, probs, self.labels)
        soft = sum(post.soft is not None for post in usable)
        record = saved.TrainingData(digest, *counts, known.skipped, window, traits, soft)
        history = [epoch._asdict() for epoch in choice.history]
        self.training = saved.TrainingRecord(record, metrics, temperatures, history)
        if self.tuning is not None and self.tuned is not None:
            self.training.tuning = dataclasses.asdict(self.tuning) | {"better": self.tuned.better}
        distributed.wait()
        if known.encoded.files is not None and distributed.is_main():
            known.encoded.files.remove()
        return self

    @classmethod
    def zero_shot(
        cls, descriptions: Mapping[str, Sequence[str]], encoder: str | None = None, **settings: Any
    ) -> Self:
        """Return a locator that knows labels by their descriptions alone; see `describe`.

        Args:
            descriptions: label to texts, as in {"家": ["在家里", "躺在沙发上"], "学校": [...]}.
            encoder, settings: as in `SemanticLocator`.
        """
        locator = cls(encoder, method="described", **settings)
        locator.network = describe(locator.encoder, descriptions)
        known = {label: list(some) for label, some in descriptions.items()}
        locator.labels, locator.training = [*known], saved.TrainingRecord(descriptions=known)
        return locator

    def adapt(self, posts: Any) -> Self:
        """Standardise a zero-shot locator's scores by these posts too, in constant memory.

        Predictions then depend on all posts it was adapted to (transductive); none of their labels
        is looked at. Without any, the names of ImageNet's classes stand in for them. SgmftError for
        a locator that learns with `fit`.
        """
        network = self._trained()
        if not isinstance(network, Described):
            raise SgmftError(TEXTS["adapts to nothing"])
        for chunk in encode_posts(self._read(posts), self.encoder, store=self.store(False)):
            if chunk.rows:
                network.adapt(Features.of(chunk.rows, self.encoder.info, False).batch())
        return self

    def _predict_batches(self, posts: Iterable[Post]) -> Iterator[PredictionBatch]:
        network, tokens = self._trained(), self.uses_tokens
        store, window = self.kept_store(tokens), self.training.data.window
        window = MAX_CHARACTERS if self.is_table else window  # one vector is of the whole text
        chunks = encode_windows(posts, self.encoder, window, tokens=tokens, store=store)

        def predict(chunk: Chunk, features: Features) -> PredictionBatch:
            bare = (x.text is not None and x.ngrams is None for x in chunk.rows)
            if network.uses_ngrams and any(bare):
                warn("Some posts have no text, whose n-grams the model reads beside its vector.")
            output = predict_logits(network, features)
            probs = temper(output.logits, self.temperatures[features.parts])
            return PredictionBatch(chunk, probs, output.guidance, features.parts)

        return starmap(predict, self.attributes.features(chunks, self.encoder.info, tokens))

    def explain(self, post: Any, *, label: str | None = None) -> Explanation:
        """Explain a label of one post, by default the most probable.

        See `sgmft.evaluation.explain.attribution`. Of a long text that window is explained, and is
        the explained post's text, which counts most in the prediction. SgmftError where the locator
        is not trained or has no such label, or the post has an error or nothing to go on.
        """
        network, tokens = self._trained(), self.uses_tokens
        if len(posts := [*self._read(post)]) != 1:
            raise SgmftError(f"{len(posts)} posts were given: one is explained at a time.")
        (post,) = posts
        own = self.labels, self.temperatures, self.attributes
        model = ExplainedModel(self.encoder, network, tokens, *own)
        cleaning = get_cleaning(self.encoder.info.cleaning)
        windows = split_windows(post.text, cleaning, self.training.data.window)
        if len(windows) > 1 and post.error is None:
            alone = [dataclasses.replace(post, text=window, images=()) for window in windows]
            sure = -entropy(self.predict_proba(alone))
            chosen = int(np.nan_to_num(sure, nan=-np.inf).argmax())  # one without words is NaN
            post = dataclasses.replace(post, text=windows[chosen])
        return explain_post(post, model, label)

    def encode(
        self, posts: Any, *, tokens: bool | None = None, on_encoded: Progress | None = None
    ) -> EncodedPosts:
        """Encode posts, to words and regions too if `tokens`, by default as the preset needs.

        Features that the store has are read from it.
        """
        tokens = self.uses_tokens if tokens is None else tokens
        how: dict[str, Any] = {"store": self.store(tokens), "on_encoded": on_encoded}
        found = encode_all([*self._read(posts)], self.encoder, tokens=tokens, **how)
        return found._replace(features=self.attributes.add(found.features, found.posts))

    def _trained(self) -> Model:
        if self.network is None:
            raise SgmftError("This locator is not trained: call fit(posts), or from_pretrained.")
        return self.network

    @property
    def state(self) -> ModelState:
        """The model but for its weights, as config.json has it; SgmftError if not trained."""
        info, settings = self.encoder.info, self.encoder_settings
        name = (info.pinned or self.encoder_name) if self.tuned is None else self.tuned.base
        cleaning, grid = settings["cleaning"], settings.get("patch_grid")
        known = info.fingerprint, info.weights, find_plugin(name), info.remote_code or None
        own = saved.EncoderState(name, cleaning, grid, *known)
        network = dataclasses.asdict(self._trained().config)
        model = self.method.name, self.preset, network, self.training
        return ModelState(self.labels, own, *model, attributes=self.attributes.columns)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights, then settings with digests: without config.json a folder is no model."""
        folder, state, network = save_directory, self.state, self._trained()
        card = folder / "README.md"

        def write_weights(path: Path) -> None:
            network.save(path)
            path.chmod(0o644)  # safetensors writes files that only their owner reads

        with writing(f"The model in {folder}"):
            for name in (CONFIG, WEIGHTS, HELD_OUT, card.name):
                for leftover in leftovers(folder, name):
                    leftover.unlink()
            (folder / CONFIG).unlink(missing_ok=True)  # an earlier model's, until this one is there
            make_whole(folder / WEIGHTS, write_weights)
            self.held_out.save(folder)
            state.files = file_digests(folder / name for name in (WEIGHTS, HELD_OUT))
            self._save_encoder(folder / ENCODER)
            if self.tuned is not None:
                state.encoder.files = file_digests((folder / ENCODER).iterdir())
            if not card.is_file() or MARK in card.read_text("utf-8", "replace"):  # else by hand
                write_file(card, str(self.generate_model_card()).encode())
            values = with_checksum(nan_to_none(state.to_config()))
            write_json(folder / CONFIG, {"sgmft": values}, indent=2)

    def _save_encoder(self, folder: Path) -> None:
        """Put a fine-tuned encoder where the model is; an earlier model's there is removed."""
        tuned = None if self.tuned is None else self.tuned.folder
        if tuned is not None and folder.is_dir() and folder.samefile(tuned):
            return
        if folder.is_dir():
            shutil.rmtree(folder)
        if tuned is not None:
            shutil.copytree(tuned, folder)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        encoder: str | None = None,
        trust_remote_code: bool = False,
        features: str | Path | bool | None = True,
        device: str | None = None,
        columns: Names = None,
        root: Folder = None,
        **hub: Any,
    ) -> Self:
        """Return a saved locator, from a folder or a hub repository.

        Args:
            pretrained_model_name_or_path: the folder or repository.
            encoder: where the encoder is now, if the model was trained with one from a folder that
                moved; of a fine-tuned one, where its base is; or a table of vectors.
            trust_remote_code, features, device, columns, root: as in `SemanticLocator`.
            hub: revision, token, cache_dir, ... for a repository.

        SgmftError where it is no model of sgmft's, is damaged, or of a newer format.
        """
        model_id = str(pretrained_model_name_or_path)
        state, weights_file = saved.read_state(model_id, hub)
        network = _load_network(model_id, state, weights_file, device)
        files = [model_file(model_id, f"{ENCODER}/{x}", hub) for x in state.encoder.files or ()]
        for file in files:
            check_file(file, {FILES: state.encoder.files}, FIX)
        given: dict[str, Any] = {"features": features, "device": device, "method": state.method}
        given |= {"cleaning": state.encoder.cleaning, "patch_grid": state.encoder.patch_grid}
        given |= {"trust_remote_code": trust_remote_code, "columns": columns, "root": root}
        given |= {"preset": state.preset, "seed": state.preset.train.seed}
        given["attributes"] = [attribute.name for attribute in state.attributes]
        locator = cls(encoder or state.encoder.name, **given)
        if locator.is_table:
            own, widths = state.encoder, [state.network.get(x, y) for x, y in WIDTHS.items()]
            expected = vectors_info(own.name, widths, own.cleaning, own.weights)
            locator.encoder_settings |= {"expected": expected, "name": encoder or TABLE}
        else:
            locator.weights = state.encoder.weights
        locator.plugin = state.encoder.plugin if encoder is None else None
        locator.labels, locator.attributes = state.labels, AttributeReader((), state.attributes)
        locator.training, locator.network = state.training, network
        locator.held_out = saved.read_held_out(model_id, state, hub)
        if files and not locator.is_table:
            locator.use_tuned(TunedEncoder(files[0].parent, state.encoder.name))
            if encoder is not None:
                locator.encoder_settings["base"] = encoder
        return locator

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """Return the README.md of a saved model."""
        template, state = "locator/templates/model_card.md", self.state
        return ModelCard(render(template, mark=MARK, state=state, method=get_method(state.method)))


def _calibrate(found: fitting.HeldOutLogits) -> tuple[tuple[float, ...], HeldOutProbabilities]:
    """Fit a temperature for posts as they are, and for each kind of parts that some have."""
    whole = fit_temperature(found.logits, found.labels)
    temperatures, rows = [whole], []
    for parts in range(1, len(PARTS)):
        logits, labels = found.having(parts)
        temperatures.append(fit_temperature(logits, labels) if len(labels) else whole)
        probs = temper(logits, np.full(len(labels), temperatures[-1]))
        rows.append((probs, labels, np.full(len(labels), parts, np.int8)))
    return tuple(temperatures), HeldOutProbabilities(*map(np.concatenate, zip(*rows, strict=True)))


def _load_network(model_id: str, state: ModelState, weights: Path, device: str | None) -> Any:
    """Load the model of a folder; a network of torch to the device, or the CPU."""
    try:
        method = get_method(state.method)
        network: Any = method.network(method.load_config(state.network))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise saved.unreadable(model_id, error) from error
    bad = f"{weights} is damaged or belongs to another model: save or copy it again."
    with raising(bad, OSError, SafetensorError, RuntimeError, ValueError):
        network.load(weights)
    if device is not None and not isinstance(network, ClosedFormModel):
        from sgmft.features.encoders.batches import pick_device

        network.to(pick_device(device))
    return network
