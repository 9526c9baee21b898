"""A trained locator on disk: config.json, model.safetensors and a model card."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import ModelCard, ModelCardData
from safetensors import SafetensorError
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights

from sgmft.errors import SgmftError
from sgmft.features.encoder_handle import TunedEncoder
from sgmft.features.encoders.device import pick_device
from sgmft.locator.abstention import FILE as HELD_OUT
from sgmft.locator.abstention import HeldOut
from sgmft.locator.state import CONFIG, FIX, FORMAT, WEIGHTS, model_file, no_model, read_config
from sgmft.models.base import Network
from sgmft.models.presets import Preset, TrainConfig
from sgmft.models.registry import get_method
from sgmft.utils.checksums import FILES, check_file, file_digests, with_checksum
from sgmft.utils.files import error_reason, leftovers, make_whole, nan_to_none, write_whole
from sgmft.utils.runtime import versions

if TYPE_CHECKING:
    from sgmft.locator.locator import SemanticLocator

ENCODER = "encoder"  # folder of a fine-tuned one

MARK = "<!-- written by sgmft -->"

Locator = TypeVar("Locator", bound="SemanticLocator")


def save_model(locator: SemanticLocator, network: Network, folder: Path) -> None:
    """Write weights, then settings; a folder without config.json is no model, so never half of one.

    The settings hold the digests of the other files and of themselves.

    Raises:
        SgmftError: the folder cannot be written.
    """
    info = locator.encoder.info
    config = {
        "format": FORMAT,
        "labels": locator.labels,
        "encoder": {
            **_encoder_settings(locator),
            "fingerprint": info.fingerprint,
            "weights": info.weights,
        },
        "model": asdict(network.config),
        "method": locator.method.name,
        "preset": locator.preset.name,
        "settings": dict(locator.preset.model),
        "refit": locator.preset.refit,
        "train": asdict(locator.preset.train),
        "val_size": locator.preset.val_size,
        **locator.record,
        "versions": versions(),
    }
    card = folder / "README.md"

    def write_weights(path: Path) -> None:
        save_weights(network, str(path))
        path.chmod(0o644)  # safetensors writes files that only their owner reads

    try:
        for name in (CONFIG, WEIGHTS, HELD_OUT, card.name):
            for leftover in leftovers(folder, name):
                leftover.unlink()
        (folder / CONFIG).unlink(missing_ok=True)  # an earlier model's, until this one is there
        make_whole(folder / WEIGHTS, write_weights)
        locator.held_out.save(folder)
        _copy_encoder(locator, folder / ENCODER)
        if not card.is_file() or MARK in card.read_text("utf-8", "replace"):  # else by hand: stays
            write_whole(card, str(model_card(locator)).encode())
        config[FILES] = file_digests(folder / name for name in (WEIGHTS, HELD_OUT))
        if locator.tuned is not None:
            config["encoder"][FILES] = file_digests((folder / ENCODER).iterdir())
        values = {"sgmft": with_checksum(nan_to_none(config))}
        text = json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False)
        write_whole(folder / CONFIG, text.encode())
    except (OSError, SafetensorError) as error:
        raise SgmftError(
            f"The model cannot be written to {folder}: {error_reason(error)}."
        ) from error


def load_model(
    kind: type[Locator],
    model_id: str,
    *,
    encoder: str | None = None,
    features: str | Path | None = None,
    device: str | None = None,
    **hub: Any,
) -> Locator:
    """A locator from a folder or a hub repository.

    Args:
        model_id: the folder or repository.
        encoder: where the encoder is now, if it was trained with one from a folder that moved; of
            a fine-tuned one, where its base is.
        features: folder of a feature store, as in `SemanticLocator`.
        device: as in `SemanticLocator`.
        hub: revision, token, cache_dir, ... for a repository.

    Raises:
        SgmftError: it is no sgmft model, is damaged, or was written by a newer sgmft.
    """
    config, weights_file = read_config(model_id, hub)
    try:
        if (config["method"], config["preset"]) == ("sgmft", "default"):
            config["method"] = "gated-experts"  # sgmft 0.1 called it a preset of sgmft
        method = get_method(config["method"])
        locator = kind(
            encoder or config["encoder"]["name"],
            method=method.name,
            cleaning=config["encoder"]["cleaning"],
            patch_grid=config["encoder"].get("patch_grid"),
            features=features,
            device=device,
        )
        locator.weights = str(config["encoder"].get("weights", ""))
        tuned = config["encoder"].get(FILES)
        network = method.network(method.load_config(config["model"]))
        locator.preset = Preset(
            config["preset"],
            {k: tuple(v) if isinstance(v, list) else v for k, v in config["settings"].items()},
            TrainConfig(**config["train"]),
            config["val_size"],
            config["refit"],
            config["encoder"]["cleaning"],
        )
        locator.labels = list(config["labels"])
        kept = ("data", "metrics", "calibration", "history", "versions", "descriptions", "tuning")
        locator.record = {key: config[key] for key in kept if key in config}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise no_model(model_id, error) from error
    if tuned is not None:
        files = [model_file(model_id, f"{ENCODER}/{name}", hub) for name in tuned]
        for file in files:
            check_file(file, config["encoder"], FIX)
        locator.use_tuned(TunedEncoder(files[0].parent, config["encoder"]["name"]))
        if encoder is not None:
            locator.encoder_settings["base"] = encoder
    try:
        load_weights(network, str(weights_file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise SgmftError(
            f"{weights_file} is damaged or belongs to another model: save or copy it again."
        ) from error
    if device is not None:
        network.to(pick_device(device))
    locator.network = network.eval()
    locator.held_out = _held_out(model_id, hub, config, len(locator.labels))
    return locator


def model_card(locator: SemanticLocator) -> ModelCard:
    """README.md of a saved model: what it was trained on, how well it does, how to use it."""
    metrics = locator.record.get("metrics", {})
    data = locator.record.get("data", {})
    lines = [
        MARK,
        "# A semantic-location model",
        "",
        "Predicts the kind of place the author of a social-media post was at, from its text and "
        f"pictures, with {locator.method.title_with(locator.preset.name)}. {locator.method.note}",
        "",
        f"- Labels: {', '.join(locator.labels)}",
        f"- Encoder: `{locator.encoder_name}`, cleaning `{locator.encoder_settings['cleaning']}`",
        f"- Preset: `{locator.preset.name}`",
        f"- Trained on {data.get('train', '?')} posts (data fingerprint "
        f"`{data.get('fingerprint', '?')}`), chosen on {data.get('validation', 0)} held out",
        *(f"- {name}: {value:.3f}" for name, value in metrics.items()),
        "",
        "```python",
        "from sgmft import SemanticLocator, read_posts",
        "",
        'locator = SemanticLocator.from_pretrained("path/to/this/folder")',
        'locator.predict(read_posts("posts.csv"))',
        "```",
        "",
        "The labels are guesses from what a post says and shows, not a record of where anyone was.",
    ]
    header = ModelCardData(
        library_name="sgmft", pipeline_tag="image-text-to-text", tags=["semantic-location"]
    )
    return ModelCard(f"---\n{header.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n")


def _encoder_settings(locator: SemanticLocator) -> dict[str, Any]:
    """What loads the encoder again; a fine-tuned one is beside them and named by its base."""
    settings = {k: v for k, v in locator.encoder_settings.items() if k != "base"}
    return settings if locator.tuned is None else settings | {"name": locator.tuned.base}


def _copy_encoder(locator: SemanticLocator, folder: Path) -> None:
    """Put a fine-tuned encoder where the model is; an earlier model's there is removed."""
    tuned = locator.tuned
    if tuned is not None and folder.is_dir() and folder.samefile(tuned.folder):
        return
    if folder.is_dir():
        shutil.rmtree(folder)
    if tuned is not None:
        shutil.copytree(tuned.folder, folder)


def _held_out(model_id: str, hub: dict[str, Any], config: dict[str, Any], classes: int) -> HeldOut:
    """Of a saved model; models saved before there was such a file have none."""
    try:
        file = model_file(model_id, HELD_OUT, hub)
    except SgmftError:
        return HeldOut.none(classes)
    check_file(file, config, FIX)
    return HeldOut.load(file, classes)
