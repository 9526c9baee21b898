"""Training state on disk, as safetensors and JSON: no pickle, and whole or not at all."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sgmft.errors import SgmftWarning
from sgmft.models.presets import TrainConfig
from sgmft.utils.files import make_whole, writing

if TYPE_CHECKING:
    from sgmft.models.base import Network
    from sgmft.training.dataset import LabelledData

FILE = "checkpoint.safetensors"


def identity_of(model: Network, parts: Iterable[LabelledData | None], config: TrainConfig) -> str:
    """Digest of everything that decides a run, so that only the same run is continued.

    Args:
        model: before training.
        parts: posts to train on, and those held out, if there are any.
    """
    digest = hashlib.sha256(json.dumps([asdict(model.config), asdict(config)]).encode())
    for part in parts:
        if part is not None:
            for x in (part.labels, *part.features.contents()):
                digest.update(x.contiguous().numpy().data)
    for x in model.state_dict().values():
        digest.update(x.detach().float().cpu().flatten()[:64].numpy().tobytes())
    return digest.hexdigest()


def save_training_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor] | None,
    random: Tensor,
    progress: dict[str, Any],
) -> None:
    """Write one file with weights, optimiser state, best weights so far, random states, progress.

    Args:
        folder: created if need be.
        best: weights of the best epoch so far, if one is tracked.
        random: the random state of each process (P, S).
        progress: what JSON can hold: epoch, history and the run's identity.

    Raises:
        SgmftError: the file cannot be written; one that was there before is as it was.
    """
    tensors = {f"random/{i}": state for i, state in enumerate(random)}
    tensors |= {f"model/{name}": x for name, x in model.state_dict().items()}
    tensors |= {f"best/{name}": x for name, x in (best or {}).items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{name}": torch.as_tensor(x) for name, x in state.items()}
    tensors = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
    metadata = {"progress": json.dumps(progress), "digest": _digest(tensors)}
    with writing(folder / FILE):
        folder.mkdir(parents=True, exist_ok=True)
        make_whole(folder / FILE, lambda path: save_file(tensors, path, metadata=metadata))


def load_training_state(
    folder: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    process: int = 0,
) -> tuple[dict[str, Tensor] | None, dict[str, Any]] | None:
    """Restore what `save_training_state` wrote; None if there is none, or it is of another run.

    One that is damaged is named in an `SgmftWarning`, and none is restored.

    Args:
        identity: of the run: settings and data. A checkpoint with another one is not used.
        process: whose random state is restored. It is left as it is for a process that was not
            there: other numbers of processes go on with the same weights and other dropout.

    Returns:
        (best weights so far, progress).
    """
    from safetensors import safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        progress: dict[str, Any] = json.loads(metadata["progress"])
        if progress["identity"] != identity:
            return None
        tensors = load_file(path)
        if metadata.get("digest") not in (None, _digest(tensors)):  # none: an earlier sgmft's
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
    alone = tensors.get("random") if process == 0 else None  # as checkpoints had it at first
    random = tensors.get(f"random/{process}", alone)
    if random is not None:
        torch.set_rng_state(random)
    return _under(tensors, "best/") or None, progress


def _digest(tensors: dict[str, Tensor]) -> str:
    """Digest of names, types and values; safetensors itself notices no flipped bit."""
    digest = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
