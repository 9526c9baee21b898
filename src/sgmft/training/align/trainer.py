"""Training on pairs: each epoch's loss, and how many texts find their picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sgmft.features.encoders.device import pick_device
from sgmft.features.features import LabelledFeatures
from sgmft.models.base import Network
from sgmft.models.presets import TrainConfig
from sgmft.training.align.contrastive import info_nce, recall
from sgmft.training.checkpoint import identity_of, load_training_state, save_training_state
from sgmft.training.trainer import Epoch, schedule, stopped
from sgmft.utils.distributed_loss import Criterion

EMBEDDED = 256  # pairs at a time where nothing is trained


class Embedded(NamedTuple):
    """Both sides of N pairs in one space, of unit length."""

    text: Tensor  # (N, D)
    image: Tensor  # (N, D)


@torch.inference_mode()
def embed(model: Network, pairs: LabelledFeatures) -> Embedded:
    """What the model makes of pairs."""
    model.eval()
    device = next(iter(model.state_dict().values())).device
    said = []
    for rows in torch.arange(len(pairs.labels)).split(EMBEDDED):
        parts = model(pairs.features.batch(rows).to(device)).parts
        said.append((parts["text"].cpu(), parts["image"].cpu()))
    return Embedded(*(torch.cat(side) for side in zip(*said, strict=True)))


def train_pairs(
    model: Any,
    pairs: LabelledFeatures,
    held_out: LabelledFeatures,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    device: str | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Minimise the contrastive loss; `model` ends with the weights of its best epoch.

    That is the one with the least loss on the held-out pairs, the state before the first counted.

    Args:
        model: a `Contrast`, or a `Tuned` with one as its head.
        pairs: posts with both sides; their labels number different contents, as `info_nce` says.
        checkpoint, device, on_epoch: as in `sgmft.training.trainer.train`.

    Returns:
        The log. Its accuracies are the share of texts that find their picture: among a batch's, and
        among the held-out ones.
    """
    model.to(pick_device(device))
    optimizer = torch.optim.AdamW(
        model.groups(config.learning_rate),
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    torch.manual_seed(config.seed)
    identity = identity_of(model, (pairs, held_out), config) if checkpoint else ""
    best, least = _copied(model), _watch(model, held_out)[0]
    history: list[Epoch] = []
    found = checkpoint and load_training_state(checkpoint, identity, model, optimizer)
    if found:
        best = found[0] or best
        history = [Epoch(*line) for line in found[1]["history"]]
        if on_epoch:
            for line in history:
                on_epoch(line)
    while len(history) < config.epochs and not stopped(history, config.patience):
        figures = _train_epoch(model, optimizer, rates, pairs, config, len(history))
        watched = _watch(model, held_out)
        if watched[0] < min([least, *(line.val_loss for line in history)]):
            best = _copied(model)
        none = (math.nan, math.nan)
        history.append(Epoch(len(history) + 1, config.epochs, *figures, *watched, *none))
        if checkpoint:
            progress = {"identity": identity, "history": history}
            random = torch.get_rng_state()[None]
            save_training_state(checkpoint, model, optimizer, best, random, progress)
        if on_epoch:
            on_epoch(history[-1])
    model.load_state_dict(best)
    model.eval()
    return history


def _train_epoch(
    model: Any,
    optimizer: torch.optim.Optimizer,
    rates: list[float],
    pairs: LabelledFeatures,
    config: TrainConfig,
    epoch: int,
) -> tuple[float, float]:
    """One pass: loss, and share of texts that find their picture in the batch."""
    model.train()
    device = next(iter(model.state_dict().values())).device
    rng = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    batches = torch.randperm(len(pairs.labels), generator=rng).split(config.batch_size)
    total = found = 0.0
    for step, rows in enumerate(batches):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(epoch * len(batches) + step, len(batches), config)
        output = model(pairs.features.batch(rows).to(device))
        loss = model.loss(output, pairs.labels[rows].to(device), Criterion())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(rows)
        text, image = (output.parts[side].detach() for side in ("text", "image"))
        found += recall(text.cpu(), image.cpu(), (1,))["text to picture R@1"] * len(rows)
    return total / len(pairs.labels), found / len(pairs.labels)


def _watch(model: Any, held_out: LabelledFeatures) -> tuple[float, float]:
    """Loss and recall at 1 on all held-out pairs."""
    text, image = embed(model, held_out)
    scale = getattr(model, "head", model).scale.detach().cpu()
    loss = float(info_nce(text, image, scale, held_out.labels))
    return loss, recall(text, image, (1,))["text to picture R@1"]


def _copied(model: Any) -> dict[str, Tensor]:
    return {name: x.detach().clone() for name, x in model.state_dict().items()}
