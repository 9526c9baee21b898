"""Training state on disk, as safetensors and JSON: no pickle, and whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

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
    """
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
    tensors |= {f"model/{name}": x for name, x in model.state_dict().items()}
    tensors |= {f"best/{name}": x for name, x in (best or {}).items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{name}": torch.as_tensor(x) for name, x in state.items()}
    tensors = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    try:
        save_file(tensors, temporary, metadata={"progress": json.dumps(progress)})
        temporary.replace(folder / FILE)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(
    folder: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor] | None, dict[str, Any]] | None:
    """Restore what `save_checkpoint` wrote; None if there is none, or it is of another run.

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
            progress: dict[str, Any] = json.loads(file.metadata()["progress"])
        if progress["identity"] != identity:
            return None
        tensors = load_file(path)
    except (SafetensorError, KeyError, ValueError, TypeError):
        return None  # half a file from a crash of the machine itself: start anew
    model.load_state_dict(_under(tensors, "model/"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, x in _under(tensors, "optimizer/").items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = x
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    torch.set_rng_state(tensors["random"])
    return _under(tensors, "best/") or None, progress


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
