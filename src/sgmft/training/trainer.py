"""The training loop, on cached features or raw posts: accelerate for devices and processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sgmft.models.base import ClosedFormNetwork, Network, Output
from sgmft.models.inference import predict_logits
from sgmft.models.presets import TrainConfig
from sgmft.training.checkpoint import identity_of, load_training_state, save_training_state
from sgmft.training.dataset import LabelledData
from sgmft.utils import distributed
from sgmft.utils.distributed_loss import BatchCrossEntropy, BatchShard
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


class Figures(NamedTuple):
    """Figures of some posts, the same on all ranks; means, unless they are said to be sums."""

    loss: float
    accuracy: float


class Objective:
    """What is logged, and what epochs are chosen by: equation 19's cross-entropy, and accuracy.

    What is minimised is `Network.loss`.

    Attributes:
        selects_initial: whether the state before the first epoch may be chosen too.
        fused: whether the optimizer passes over the weights once, not six times; rounding differs.
    """

    selects_initial = False
    fused = True

    def step_sums(
        self, output: Output, labels: Tensor, loss: Tensor, criterion: BatchCrossEntropy
    ) -> Figures:
        """Figures, summed over the posts of a step, from the own ones and the minimised loss.

        The loss is the cross-entropy alone, whatever else the network minimises.
        """
        logits = output.logits.detach()
        correct = criterion.gather(logits.argmax(-1) == labels)
        return Figures(float(criterion(logits, labels)) * len(correct), float(correct.sum()))

    def validate(self, model: Network, data: LabelledData, device: torch.device) -> Figures:
        """Figures of held-out posts; each rank predicts its shard."""
        shard = BatchShard(len(data.labels), distributed.rank(), distributed.world_size())
        own = shard.take(torch.arange(len(data.labels)))
        logits = predict_logits(model, data.features.take(own)).logits
        return classification_figures(shard.gather(logits.to(device)).cpu(), data.labels)


CLASSIFICATION = Objective()


def train(
    model: Network,
    data: LabelledData,
    validation: LabelledData | None,
    config: TrainConfig,
    *,
    objective: Objective = CLASSIFICATION,
    checkpoint: Path | None = None,
    track: str | Path | None = None,
    device: str | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Minimise the network's loss; `model` ends with the chosen epoch's weights.

    Several processes (`utils.distributed`) all call this with the same arguments, and all end with
    the same weights; the main one writes the checkpoint and the logs.

    Args:
        validation: held-out posts for `config.patience`; None trains all epochs.
        objective: what is logged and chosen by; by default cross-entropy and accuracy.
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
        model.parameter_groups(config.learning_rate),
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=objective.fused and accelerator.device.type in ("cpu", "cuda"),
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    model.to(accelerator.device)
    if distributed.rank():  # each process has dropout of its own; the main one's is as if alone
        torch.manual_seed((torch.initial_seed() + distributed.rank() * 1_000_003) % 2**63)
    history: list[Epoch] = []
    best: dict[str, Tensor] | None = None
    initial_loss = math.inf
    if objective.selects_initial and validation is not None:
        best = _copy_state(model)
        initial_loss = objective.validate(model, validation, accelerator.device).loss
    identity = identity_of(model, (data, validation), config) if checkpoint else ""
    if checkpoint and (
        found := load_training_state(checkpoint, identity, model, optimizer, distributed.rank())
    ):
        best = found[0] or best
        history = [Epoch(*line) for line in found[1]["history"]]
        if on_epoch:
            for line in history:
                on_epoch(line)
    same = f"{config} {len(history)}".encode() + data.labels.numpy().tobytes()
    distributed.require_agreement(same, accelerator.device)
    distributed.broadcast_weights(model)
    wrapped = accelerator.prepare_model(model, evaluation_mode=True)  # gradients are averaged below
    optimizer = accelerator.prepare_optimizer(optimizer)
    criterion = _criterion(data.labels, model.config.classes, config, accelerator.device)
    while len(history) < config.epochs and not _stops_early(history, config.patience):
        figures, guidance = _train_epoch(
            (model, wrapped),
            (optimizer, rates),
            data,
            config,
            len(history),
            objective,
            criterion,
            accelerator,
        )
        val_figures = Figures(math.nan, math.nan)
        if validation is not None:
            val_figures = objective.validate(model, validation, accelerator.device)
            if val_figures.loss < min([initial_loss, *(line.val_loss for line in history)]):
                best = _copy_state(model)
        history.append(Epoch(len(history) + 1, config.epochs, *figures, *val_figures, *guidance))
        accelerator.log(history[-1]._asdict(), step=len(history))
        if checkpoint:
            random = distributed.gather(torch.get_rng_state(), accelerator.device)
            if distributed.is_main():
                progress = {"identity": identity, "history": history}
                tracked = best if config.patience else None
                save_training_state(checkpoint, model, optimizer, tracked, random, progress)
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
    data: LabelledData,
    config: TrainConfig,
    epoch: int,
    objective: Objective,
    criterion: BatchCrossEntropy,
    accelerator: Any,
) -> tuple[Figures, tuple[float, float]]:
    """One pass with a model and what accelerate wraps it in: figures, and guidance entropies.

    All are of the posts of all processes. The optimizer comes with the learning rate of each of its
    groups, which the schedule scales.
    """
    model, wrapped = models
    optimizer, rates = optimizing
    wrapped.train()
    rng = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(data.labels), generator=rng)
    steps = math.ceil(len(order) / config.batch_size)
    total_loss = total_accuracy = 0.0
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
        loss = model.loss(output, labels, criterion)
        optimizer.zero_grad()
        accelerator.backward(loss)
        distributed.average_gradients(model)
        optimizer.step()
        sums = objective.step_sums(output, labels, loss.detach(), criterion)
        total_loss, total_accuracy = total_loss + sums.loss, total_accuracy + sums.accuracy
        if output.guidance is not None:
            whole = [shard.gather(x.detach()) for x in output.guidance]
            entropies += torch.stack([x.sum() for x in whole]).cpu()
        else:
            entropies += math.nan
    gate, elements = (entropies / len(order)).tolist()
    return Figures(total_loss / len(order), total_accuracy / len(order)), (gate, elements)


def _solve(
    model: ClosedFormNetwork,
    data: LabelledData,
    validation: LabelledData | None,
    on_epoch: Callable[[Epoch], None] | None,
) -> Epoch:
    """Solve a network without epochs, and return its one line of log.

    Without validation posts, its predictions for training posts by folds without them stand in.
    """

    def figures(labelled: LabelledData) -> Figures:
        logits = predict_logits(model, labelled.features).logits
        return classification_figures(logits, labelled.labels)

    model.held_out = model.solve(data.features.batch(None, model.uses_ngrams), data.labels)
    train_figures, val_figures = figures(data), Figures(math.nan, math.nan)
    if validation is not None:
        val_figures = figures(validation)
    elif model.held_out is not None:
        val_figures = classification_figures(model.held_out, data.labels)
    line = Epoch(1, 1, *train_figures, *val_figures, math.nan, math.nan)
    if on_epoch:
        on_epoch(line)
    return line


def classification_figures(logits: Tensor, labels: Tensor) -> Figures:
    """Cross-entropy and accuracy of logits (N, K) for labels (N,)."""
    accuracy = (logits.argmax(-1) == labels).float().mean()
    return Figures(float(cross_entropy(logits, labels)), float(accuracy))


def schedule(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Share of the learning rate at a step: it rises evenly to 1, and falls from there."""
    steps = steps_per_epoch * config.epochs
    rising = math.ceil(steps * config.warmup)
    if step < rising:
        return (step + 1) / rising
    if config.schedule == "none":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def _stops_early(history: list[Epoch], patience: int) -> bool:
    """Whether so many epochs have passed since the one with the least validation loss."""
    if not patience or not history or math.isnan(history[0].val_loss):
        return False
    best = min(range(len(history)), key=lambda i: history[i].val_loss)
    return len(history) - 1 - best >= patience


def _criterion(
    labels: Tensor, classes: int, config: TrainConfig, device: torch.device
) -> BatchCrossEntropy:
    """Cross-entropy with label smoothing, classes weighted by inverse frequency if asked for."""
    weights = None
    if config.class_weights:
        counts = torch.bincount(labels, minlength=classes).clamp(min=1)
        weights = (len(labels) / (classes * counts.float())).to(device)
    return BatchCrossEntropy(weights, config.label_smoothing)


def _copy_state(model: Network) -> dict[str, Tensor]:
    return {name: x.detach().clone() for name, x in model.state_dict().items()}
