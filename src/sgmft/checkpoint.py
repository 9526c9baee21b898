"""Training state on disk, as safetensors and JSON: no pickle, and whole or not at all."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sgmft.errors import SgmftError, SgmftWarning
from sgmft.files import make_whole, why

FILE = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor] | None,
    progress: dict[str, Any],
) -> None:
    """Write one file with weights, optimiser state, best weights so far, random state and progress.

    Args:
        folder: created if need be.
        best: weights of the best epoch so far, if one is tracked.
        progress: what JSON can hold: epoch, history and the run's identity.

    Raises:
        SgmftError: the file cannot be written; one that was there before is as it was.
    """
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
    tensors |= {f"model/{name}": x for name, x in model.state_dict().items()}
    tensors |= {f"best/{name}": x for name, x in (best or {}).items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{name}": torch.as_tensor(x) for name, x in state.items()}
    tensors = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
    kept = {"progress": json.dumps(progress), "digest": _digest(tensors)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        make_whole(folder / FILE, lambda path: save_file(tensors, path, metadata=kept))
    except (OSError, SafetensorError) as error:
        raise SgmftError(f"{folder / FILE} cannot be written: {why(error)}.") from error


def load_checkpoint(
    folder: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor] | None, dict[str, Any]] | None:
    """Restore what `save_checkpoint` wrote; None if there is none, or it is of another run.

    One that is damaged is named in an `SgmftWarning`, and none is restored.

    Args:
        identity: of the run: settings and data. A checkpoint with another one is not used.

    Returns:
        (best weights so far, progress).
    """
    from safetensors import safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            kept = file.metadata()
        progress: dict[str, Any] = json.loads(kept["progress"])
        if progress["identity"] != identity:
            return None
        tensors = load_file(path)
        if kept.get("digest") not in (None, _digest(tensors)):  # none: an earlier sgmft's
            raise ValueError
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        warnings.warn(
            f"{path} is damaged: training starts from the first epoch.", SgmftWarning, stacklevel=2
        )
        return None
    model.load_state_dict(_under(tensors, "model/"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, x in _under(tensors, "optimizer/").items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = x
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    torch.set_rng_state(tensors["random"])
    return _under(tensors, "best/") or None, progress


def _digest(tensors: dict[str, Tensor]) -> str:
    """Of names, types and values: safetensors itself sees no flipped bit."""
    digest = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
