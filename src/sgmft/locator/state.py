"""The files of a saved model, and what its config.json says; read without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sgmft.errors import SgmftError
from sgmft.utils.checksums import check_file, verify_checksum

FORMAT = 1  # of config.json; raised when an older sgmft could not read it

CONFIG, WEIGHTS = "config.json", "model.safetensors"

FIX = "save or copy the model again"

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name on the hub


def read_config(model_id: str, hub: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """The settings of a saved model whose weights are as they were saved, and the weights' file.

    Args:
        model_id: a folder or a hub repository.
        hub: revision, token, cache_dir, ... for a repository.

    Raises:
        SgmftError: it is no sgmft model, is damaged, or was written by a newer sgmft.
    """
    config_file, weights_file = (model_file(model_id, name, hub) for name in (CONFIG, WEIGHTS))
    try:
        config: dict[str, Any] = json.loads(config_file.read_text("utf-8"))["sgmft"]
        if config["format"] > FORMAT:
            raise SgmftError(
                f"{model_id} was written by sgmft {config['versions']['sgmft']}, in a newer format "
                f"than sgmft {version('sgmft')} reads: pip install --upgrade sgmft."
            )
        verify_checksum(config, config_file, FIX)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise no_model(model_id, error) from error
    check_file(weights_file, config, FIX)
    return config, weights_file


def model_file(model_id: str, name: str, hub: Mapping[str, Any]) -> Path:
    """A file of a saved model. Raises SgmftError where there is none, or nobody may look."""
    folder = Path(model_id)
    try:
        if folder.is_dir():
            if not (folder / name).is_file():
                raise SgmftError(f"{model_id} is not a model saved by sgmft: it has no {name}.")
            return folder / name
    except OSError as error:
        raise SgmftError(f"{model_id} cannot be read ({error.strerror}).") from error
    if not REPOSITORY.fullmatch(model_id):  # the hub's client would try for half a minute
        raise SgmftError(f"There is no model {model_id}: no such folder.")
    from huggingface_hub import hf_hub_download

    keys = ("revision", "cache_dir", "force_download", "token", "local_files_only")
    try:
        return Path(hf_hub_download(model_id, name, **{k: hub[k] for k in keys if k in hub}))
    except Exception as error:  # the hub's client raises many kinds; all mean the same to a user
        raise SgmftError(
            f"There is no model {model_id}: no such folder, and no repository of that name that "
            "can be reached."
        ) from error


def no_model(model_id: str, error: Exception) -> SgmftError:
    """What is said where reading the settings raised `error`."""
    return SgmftError(
        f"{model_id} is not a model saved by sgmft: its {CONFIG} is "
        f"{'not readable' if isinstance(error, OSError | ValueError) else 'of another kind'}; "
        f"if it was one, {FIX}."
    )
