"""The training loop, on cached features or raw posts, and its checkpoints.

A checkpoint is one file of safetensors and JSON: no pickle, and whole or not there at all.
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from sgmft.errors import warn
from sgmft.features.features import LabelledData
from sgmft.models.arrays import most_probable
from sgmft.models.base import Output, predict_logits
from sgmft.models.network import Network
from sgmft.models.presets import TrainConfig
from sgmft.training.history import UNKNOWN, Epoch, Figures, classification_figures, selected_epoch
from sgmft.utils import distributed
from sgmft.utils.distributed import BatchCrossEntropy, BatchShard
from sgmft.utils.files import make_file

FILE = "checkpoint.safetensors"


class Objective:
    """Figures that are logged and choose an epoch: cross-entropy, eq. 19, and accuracy."""

    selects_initial = False  # whether the state before the first epoch may be chosen too
    fused = True  # whether the optimizer passes over the weights once, not six times

    def step_sums(
        self, output: Output, labels: Tensor, loss: Tensor, criterion: BatchCrossEntropy
    ) -> Figures:
        """Figures, summed over the posts of a step; the loss is the cross-entropy alone."""
        logits = output.logits.detach()
        correct = criterion.gather(logits.argmax(-1) == most_probable(labels))
        return Figures(float(criterion(logits, labels)) * len(correct), float(correct.sum()))

    def validate(self, model: Network, data: LabelledData, device: torch.device) -> Figures:
        """Figures of held-out posts; each rank predicts its shard."""
        shard = BatchShard(len(data.labels), distributed.rank(), distributed.world_size())
        own = shard.take(torch.arange(len(data.labels))).numpy()
        logits = torch.from_numpy(predict_logits(model, data.features.take(own)).logits)
        return classification_figures(shard.gather(logits.to(device)).cpu().numpy(), data.labels)


CLASSIFICATION = Objective()


def train(
    model: Network,
    data: LabelledData,
    validation: LabelledData | None,  # for `config.patience`; None trains all epochs
    config: TrainConfig,
    *,
    objective: Objective = CLASSIFICATION,  # what is logged and chosen by
    checkpoint: Path | None = None,  # folder for the state after each epoch, which stays there
    device: str | None = None,  # by default what accelerate finds: a GPU if there is one
    on_epoch: Callable[[Epoch], None] | None = None,  # also for those restored from a checkpoint
    on_step: object = None,  # of `RunOptions`; only models without epochs call it
) -> list[Epoch]:
    """Minimise the network's loss; `model` ends with the chosen epoch's weights; return the log.

    Several processes (`utils.distributed`) all call this with the same posts and settings, else
    SgmftError; the main one writes. A run with the same ones continues from a checkpoint to the
    same weights as an uninterrupted run.
    """
    from accelerate import Accelerator

    distributed.join(device)
    accelerator = Accelerator(cpu=distributed.on_cpu(device))
    fused = objective.fused and accelerator.device.type in ("cpu", "cuda")
    groups, betas = model.parameter_groups(config.learning_rate), (config.beta1, config.beta2)
    optimizer = optim.AdamW(groups, betas=betas, weight_decay=config.weight_decay, fused=fused)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    model.to(accelerator.device)
    if config.teacher != "none":  # the main process's, for others may have rounded differently
        answers = distributed.gather(torch.from_numpy(data.targets), accelerator.device)
        data = data._replace(soft=answers[0].numpy())
    if distributed.rank():  # each process has dropout of its own; the main one's is as if alone
        torch.manual_seed((torch.initial_seed() + distributed.rank() * 1_000_003) % 2**63)
    history: list[Epoch] = []
    best: dict[str, Tensor] | None = None
    initial_loss = math.inf
    if objective.selects_initial and validation is not None:
        best = copy.deepcopy(model.state_dict())
        initial_loss = objective.validate(model, validation, accelerator.device).loss
    identity = identity_of(model, (data, validation), config) if checkpoint else ""
    state = model, optimizer, distributed.rank()
    if checkpoint and (found := load_training_state(checkpoint, identity, *state)):
        best = found[0] or best
        history = [Epoch(*line) for line in found[1]["history"]]
        if on_epoch:
            for line in history:
                on_epoch(line)
    same = f"{config} {len(history)}".encode() + data.targets.tobytes()
    distributed.require_agreement(same, accelerator.device)
    distributed.broadcast_weights(model)
    wrapped = accelerator.prepare_model(model, evaluation_mode=True)  # gradients are averaged below
    optimizer = accelerator.prepare_optimizer(optimizer)
    data = data.balanced() if config.class_weights else data
    criterion = BatchCrossEntropy(label_smoothing=config.label_smoothing)

    def run_epoch(epoch: int) -> tuple[Figures, tuple[float, float]]:
        """Pass over all posts once; return figures, and mean entropies."""
        wrapped.train()
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        order = torch.randperm(len(data.labels), generator=rng)
        steps = math.ceil(len(order) / config.batch_size)
        total_loss = total_accuracy = 0.0
        entropies = torch.zeros(2)
        for step, rows in enumerate(order.split(config.batch_size)):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(epoch * steps + step, steps, config)
            shard = BatchShard(len(rows), distributed.rank(), distributed.world_size())
            own_loss = replace(criterion, shard=shard)
            if data.weights is not None:
                weight = torch.from_numpy(data.weights[rows.numpy()]).float()
                own_loss = replace(own_loss, weight=weight.to(accelerator.device))
            own = shard.take(rows).numpy()
            labels = torch.from_numpy(data.targets[own]).to(accelerator.device)
            batch = data.features.batch(own, model.uses_ngrams).to(accelerator.device)
            if config.modality_dropout:
                draws = torch.rand(2, len(rows), generator=rng)
                own_draws = shard.take(draws.T).T.to(accelerator.device)
                batch = batch.drop_modalities(config.modality_dropout, own_draws)
            output: Output = wrapped(batch)
            for loss in model.losses(output, labels, own_loss):
                optimizer.zero_grad()
                accelerator.backward(loss)
                distributed.average_gradients(model)
                optimizer.step()
            sums = objective.step_sums(output, labels, loss.detach(), own_loss)
            total_loss, total_accuracy = total_loss + sums.loss, total_accuracy + sums.accuracy
            guidance = [shard.gather(x.detach()).sum() for x in output.guidance or ()]
            entropies += torch.stack(guidance).cpu() if guidance else math.nan
        gate, elements = (entropies / len(order)).tolist()
        return Figures(total_loss / len(order), total_accuracy / len(order)), (gate, elements)

    while len(history) < config.epochs:
        last = selected_epoch(history, config.patience).epoch if history else math.inf
        if config.patience and len(history) - last >= config.patience:
            break
        figures, guidance = run_epoch(len(history))
        val_figures = UNKNOWN
        if validation is not None:
            val_figures = objective.validate(model, validation, accelerator.device)
            if val_figures.loss < min([initial_loss, *(line.val_loss for line in history)]):
                best = copy.deepcopy(model.state_dict())
        history.append(Epoch(len(history) + 1, config.epochs, *figures, *val_figures, *guidance))
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
    model.eval()
    return history


def schedule(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Share of the learning rate at a step: it rises evenly to 1, and falls from there."""
    steps = steps_per_epoch * config.epochs
    if step < (rising := math.ceil(steps * config.warmup)):
        return (step + 1) / rising
    if config.schedule == "none":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def identity_of(model: Network, parts: Iterable[LabelledData | None], config: TrainConfig) -> str:
    """Digest of all that decides a run of a new model, so that only the same run is continued."""
    digest = hashlib.sha256(json.dumps([asdict(model.config), asdict(config)]).encode())
    for part in filter(None, parts):
        weights = [] if part.weights is None else [part.weights]
        for x in (part.targets, *part.features.contents(), *weights):
            digest.update(np.ascontiguousarray(x).data)
    for x in model.state_dict().values():
        digest.update(x.detach().float().cpu().flatten()[:64].numpy().tobytes())
    return digest.hexdigest()


def save_training_state(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    best: dict[str, Tensor] | None,
    random: Tensor,
    progress: dict[str, Any],
) -> None:
    """Write one file: weights, optimiser, best weights, random states (P, S), progress."""
    tensors = {f"random/{i}": state for i, state in enumerate(random)}
    tensors |= {f"model/{name}": x for name, x in model.state_dict().items()}
    tensors |= {f"best/{name}": x for name, x in (best or {}).items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{name}": torch.as_tensor(x) for name, x in state.items()}
    tensors = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
    metadata = {"progress": json.dumps(progress), "digest": _digest(tensors)}
    make_file(folder / FILE, lambda path: save_file(tensors, path, metadata=metadata))


def load_training_state(
    folder: Path, identity: str, model: nn.Module, optimizer: Optimizer, process: int = 0
) -> tuple[dict[str, Tensor] | None, dict[str, Any]] | None:
    """Restore what `save_training_state` wrote; None if there is none, or of another `identity`.

    Of one that is damaged, too, with a warning. The random state is left as it is where there was
    no such process: other numbers of processes go on with the same weights and other dropout.
    Returns the best weights so far, and progress.
    """
    if not (path := folder / FILE).is_file():
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
        warn(f"{path} is damaged: training starts from the first epoch.")
        return None
    model.load_state_dict(_under(tensors, "model/"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, x in _under(tensors, "optimizer/").items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = x
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
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
