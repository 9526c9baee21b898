"""A trained model on disk: config.json, model.safetensors, held-out probabilities, a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCard, ModelCardData
from safetensors import SafetensorError
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights

from sgmft.errors import SgmftError
from sgmft.features.encoders.device import pick_device
from sgmft.locator.abstention import FILE as HELD_OUT
from sgmft.locator.abstention import HeldOutProbabilities
from sgmft.locator.state import CONFIG, FIX, WEIGHTS, ModelState, model_file, read_state, unreadable
from sgmft.models.base import Network
from sgmft.models.registry import get_method
from sgmft.utils.checksums import FILES, check_file, file_digests, with_checksum
from sgmft.utils.files import error_reason, leftovers, make_whole, nan_to_none, write_whole
from sgmft.utils.templates import render

ENCODER = "encoder"  # folder of a fine-tuned one
MARK = "<!-- written by sgmft -->"


class SavedModel(NamedTuple):
    """A model as it is saved."""

    state: ModelState  # the content of config.json
    network: Network
    held_out: HeldOutProbabilities  # perhaps none
    tuned_encoder: Path | None  # folder of the fine-tuned encoder, if there is one


def save_model(model: SavedModel, folder: Path) -> None:
    """Write weights, then settings; a folder without config.json is no model, so never half of one.

    The settings hold the digests of the other files and of themselves. SgmftError where the folder
    cannot be written.
    """
    card = folder / "README.md"

    def write_weights(path: Path) -> None:
        save_weights(model.network, str(path))
        path.chmod(0o644)  # safetensors writes files that only their owner reads

    try:
        for name in (CONFIG, WEIGHTS, HELD_OUT, card.name):
            for leftover in leftovers(folder, name):
                leftover.unlink()
        (folder / CONFIG).unlink(missing_ok=True)  # an earlier model's, until this one is there
        make_whole(folder / WEIGHTS, write_weights)
        model.held_out.save(folder)
        _copy_encoder(model.tuned_encoder, folder / ENCODER)
        if not card.is_file() or MARK in card.read_text("utf-8", "replace"):  # else by hand: stays
            write_whole(card, str(model_card(model.state)).encode())
        state = replace(
            model.state, files=file_digests(folder / name for name in (WEIGHTS, HELD_OUT))
        )
        if model.tuned_encoder is not None:
            files = file_digests((folder / ENCODER).iterdir())
            state = replace(state, encoder=replace(state.encoder, files=files))
        values = {"sgmft": with_checksum(nan_to_none(state.to_config()))}
        text = json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False)
        write_whole(folder / CONFIG, text.encode())
    except (OSError, SafetensorError) as error:
        raise SgmftError(
            f"The model cannot be written to {folder}: {error_reason(error)}."
        ) from error


def load_model(model_id: str, device: str | None, hub: Mapping[str, Any]) -> SavedModel:
    """Load a model as `read_state` finds it, its network on a device; None leaves it on the CPU."""
    state, weights_file = read_state(model_id, hub)
    try:
        method = get_method(state.method)
        network = method.network(method.load_config(state.network))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(model_id, error) from error
    tuned_encoder = None
    if state.encoder.files is not None:
        files = [model_file(model_id, f"{ENCODER}/{name}", hub) for name in state.encoder.files]
        for file in files:
            check_file(file, {FILES: state.encoder.files}, FIX)
        tuned_encoder = files[0].parent
    try:
        load_weights(network, str(weights_file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise SgmftError(
            f"{weights_file} is damaged or belongs to another model: save or copy it again."
        ) from error
    if device is not None:
        network.to(pick_device(device))
    return SavedModel(state, network.eval(), _load_held_out(model_id, hub, state), tuned_encoder)


def model_card(state: ModelState) -> ModelCard:
    """Return the README.md of a saved model: its training posts, its figures, how to use it."""
    header = ModelCardData(
        library_name="sgmft", pipeline_tag="image-text-to-text", tags=["semantic-location"]
    )
    text = render(
        "locator/templates/model_card.md",
        mark=MARK,
        state=state,
        method=get_method(state.method),
    )
    return ModelCard(f"---\n{header.to_yaml()}\n---\n\n{text}")


def _copy_encoder(tuned: Path | None, folder: Path) -> None:
    """Put a fine-tuned encoder where the model is; an earlier model's there is removed."""
    if tuned is not None and folder.is_dir() and folder.samefile(tuned):
        return
    if folder.is_dir():
        shutil.rmtree(folder)
    if tuned is not None:
        shutil.copytree(tuned, folder)


def _load_held_out(
    model_id: str, hub: Mapping[str, Any], state: ModelState
) -> HeldOutProbabilities:
    """Load them; models saved before there was such a file have none."""
    try:
        file = model_file(model_id, HELD_OUT, hub)
    except SgmftError:
        return HeldOutProbabilities.none(len(state.labels))
    check_file(file, {FILES: state.files}, FIX)
    return HeldOutProbabilities.load(file, len(state.labels))
