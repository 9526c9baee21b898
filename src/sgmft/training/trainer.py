"""Training on cached features: batches by index, accelerate for devices and processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sgmft.features.features import LabelledFeatures
from sgmft.models.base import ClosedFormNetwork, Network, Output
from sgmft.models.inference import predict_logits
from sgmft.models.presets import TrainConfig
from sgmft.training.checkpoint import identity_of, load_training_state, save_training_state
from sgmft.utils import distributed
from sgmft.utils.distributed_loss import BatchShard, Criterion
from sgmft.utils.runtime import keep_freed_memory


class Epoch(NamedTuple):
    """One line of a training log. Validation figures are NaN without a validation split."""

    epoch: int  # counted from 1
    epochs: int  # at most
    loss: float  # mean over the epoch's training posts
    accuracy: float
    val_loss: float
    val_accuracy: float
    gate_entropy: float  # relative, see `sgmft.models.similarity.Guidance`; NaN without guidance
    element_entropy: float


def train(
    model: Network,
    data: LabelledFeatures,
    validation: LabelledFeatures | None,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    track: str | Path | None = None,
    device: str | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Minimise equation 19's cross-entropy; `model` ends with the chosen epoch's weights.

    Several processes (`utils.distributed`) all call this with the same arguments, and all end with
    the same weights; the main one writes the checkpoint and the logs.

    Args:
        validation: held-out posts for `config.patience`; None trains all epochs.
        checkpoint: folder for the state after each epoch, which stays there. A run with the same
            settings and data that finds one there continues to the same weights as an
            uninterrupted run.
        track: folder for TensorBoard logs; needs the extra `sgmft[track]`.
        device: by default what accelerate finds: a GPU if there is one.
        on_epoch: called after each epoch, also for those restored from a checkpoint.

    Returns:
        The log, one entry an epoch.

    Raises:
        SgmftError: several processes were given different posts or settings.
    """
    from accelerate import Accelerator

    keep_freed_memory()
    if isinstance(model, ClosedFormNetwork):
        return [_solve(model, data, validation, on_epoch)]
    distributed.join(device)
    accelerator = Accelerator(
        cpu=distributed.on_cpu(device), log_with="tensorboard" if track else None, project_dir=track
    )
    if track:
        accelerator.init_trackers("logs", config=asdict(config))
    optimizer = torch.optim.AdamW(
        model.groups(config.learning_rate),
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=accelerator.device.type in ("cpu", "cuda"),  # one pass over the weights, not six
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    model.to(accelerator.device)
    if distributed.rank():  # each process has dropout of its own; the main one's is as if alone
        torch.manual_seed((torch.initial_seed() + distributed.rank() * 1_000_003) % 2**63)
    history: list[Epoch] = []
    best: dict[str, Tensor] | None = None
    identity = identity_of(model, (data, validation), config) if checkpoint else ""
    if checkpoint and (
        found := load_training_state(checkpoint, identity, model, optimizer, distributed.rank())
    ):
        best = found[0]
        history = [Epoch(*line) for line in found[1]["history"]]
        if on_epoch:
            for line in history:
                on_epoch(line)
    told = f"{config} {len(history)}".encode() + data.labels.numpy().tobytes()
    distributed.require_agreement(told, accelerator.device)
    distributed.broadcast_weights(model)
    wrapped = accelerator.prepare_model(model, evaluation_mode=True)  # gradients: see processes.py
    optimizer = accelerator.prepare_optimizer(optimizer)
    criterion = _criterion(data.labels, model.config.classes, config, accelerator.device)
    while len(history) < config.epochs and not stopped(history, config.patience):
        loss, accuracy, guidance = _train_epoch(
            (model, wrapped), (optimizer, rates), data, config, len(history), criterion, accelerator
        )
        val_loss = val_accuracy = math.nan
        if validation is not None:
            val_loss, val_accuracy = _watch(model, validation, accelerator.device)
            if val_loss < min((line.val_loss for line in history), default=math.inf):
                best = {name: x.detach().clone() for name, x in model.state_dict().items()}
        figures = (loss, accuracy, val_loss, val_accuracy, *guidance)
        history.append(Epoch(len(history) + 1, config.epochs, *figures))
        accelerator.log(history[-1]._asdict(), step=len(history))
        if checkpoint:
            random = distributed.gather(torch.get_rng_state(), accelerator.device)
            if distributed.is_main():
                progress = {"identity": identity, "history": history}
                kept = best if config.patience else None
                save_training_state(checkpoint, model, optimizer, kept, random, progress)
        if on_epoch:
            on_epoch(history[-1])
    if config.patience and best is not None:
        model.load_state_dict(best)
    for tracker in accelerator.trackers:  # `end_training` would part the processes as well
        tracker.finish()
    model.eval()
    return history


def _train_epoch(
    models: tuple[Network, Any],
    optimizing: tuple[Any, list[float]],
    data: LabelledFeatures,
    config: TrainConfig,
    epoch: int,
    criterion: Criterion,
    accelerator: Any,
) -> tuple[float, float, tuple[float, float]]:
    """One pass with a model and what accelerate wraps it in: loss, accuracy, guidance entropies.

    All are of the posts of all processes. The optimizer comes with the learning rate of each of its
    groups, which the schedule scales.
    """
    model, wrapped = models
    optimizer, rates = optimizing
    wrapped.train()
    rng = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(data.labels), generator=rng)
    steps = math.ceil(len(order) / config.batch_size)
    total = correct = 0.0
    entropies = torch.zeros(2)
    for step, rows in enumerate(order.split(config.batch_size)):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(epoch * steps + step, steps, config)
        shard = BatchShard(len(rows), distributed.rank(), distributed.world_size())
        criterion = replace(criterion, shard=shard)
        own = shard.take(rows)
        labels = data.labels[own].to(accelerator.device)
        batch = data.features.batch(own, model.uses_ngrams)
        if config.modality_dropout:
            draws = torch.rand(2, len(rows), generator=rng)
            batch = batch.drop_modalities(config.modality_dropout, shard.take(draws.T).T)
        output: Output = wrapped(batch.to(accelerator.device))
        optimizer.zero_grad()
        accelerator.backward(model.loss(output, labels, criterion))
        distributed.average_gradients(model)
        optimizer.step()
        logits = output.logits.detach()
        total += float(criterion(logits, labels)) * len(rows)
        correct += float(shard.gather(logits.argmax(-1) == labels).sum())
        if output.guidance is not None:
            whole = [shard.gather(x.detach()) for x in output.guidance]
            entropies += torch.stack([x.sum() for x in whole]).cpu()
        else:
            entropies += math.nan
    gate, elements = (entropies / len(order)).tolist()
    return total / len(order), correct / len(order), (gate, elements)


def schedule(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Share of the learning rate at a step: it rises evenly to 1, and falls from there."""
    steps = steps_per_epoch * config.epochs
    rising = math.ceil(steps * config.warmup)
    if step < rising:
        return (step + 1) / rising
    if config.schedule == "none":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def _validate(model: Network, data: LabelledFeatures) -> tuple[float, float]:
    """Loss and accuracy on posts, as this process finds them."""
    return _judge(predict_logits(model, data.features).logits, data.labels)


def _watch(model: Network, data: LabelledFeatures, device: torch.device) -> tuple[float, float]:
    """Loss and accuracy on held-out posts, the same in all processes: each predicts its shard."""
    shard = BatchShard(len(data.labels), distributed.rank(), distributed.world_size())
    own = shard.take(torch.arange(len(data.labels)))
    logits = predict_logits(model, data.features.take(own)).logits
    return _judge(shard.gather(logits.to(device)).cpu(), data.labels)


def _judge(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    accuracy = (logits.argmax(-1) == labels).float().mean()
    return float(cross_entropy(logits, labels)), float(accuracy)


def _solve(
    model: ClosedFormNetwork,
    data: LabelledFeatures,
    validation: LabelledFeatures | None,
    on_epoch: Callable[[Epoch], None] | None,
) -> Epoch:
    """The one line of log of a network that is solved at once.

    Without validation posts, what it says of training posts that it left out stands for them.
    """
    model.held_out = model.solve(data.features.batch(None, model.uses_ngrams), data.labels)
    loss, accuracy = _validate(model, data)
    watched = (math.nan, math.nan)
    if validation is not None:
        watched = _validate(model, validation)
    elif model.held_out is not None:
        watched = _judge(model.held_out, data.labels)
    line = Epoch(1, 1, loss, accuracy, *watched, math.nan, math.nan)
    if on_epoch:
        on_epoch(line)
    return line


def _criterion(
    labels: Tensor, classes: int, config: TrainConfig, device: torch.device
) -> Criterion:
    weights = _class_weights(labels, classes).to(device) if config.class_weights else None
    return Criterion(weights, config.label_smoothing)


def stopped(history: list[Epoch], patience: int) -> bool:
    """Whether so many epochs have passed since the one with the least validation loss."""
    if not patience or not history or math.isnan(history[0].val_loss):
        return False
    best = min(range(len(history)), key=lambda i: history[i].val_loss)
    return len(history) - 1 - best >= patience


def _class_weights(labels: Tensor, classes: int) -> Tensor:
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return len(labels) / (classes * counts.float())
