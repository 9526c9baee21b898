"""The second stage of a fine-tuning: head and encoder together, from where the head alone ended.

A head that was trained on frozen features first keeps the encoder from being bent by a random one
(Kumar et al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Unpack

import torch
from torch.nn.functional import cross_entropy

from sgmft.errors import SgmftError
from sgmft.features.encode import EncodedPosts
from sgmft.features.encoder_handle import TunedEncoder
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.chinese_clip import ChineseClipEncoder
from sgmft.models.base import Network
from sgmft.models.inference import predict_logits
from sgmft.training.dataset import hold_out
from sgmft.training.finetune.batches import RawPosts
from sgmft.training.finetune.network import Tuned
from sgmft.training.finetune.settings import Tuning
from sgmft.training.finetune.towers import open_towers
from sgmft.training.fit import (
    FitResult,
    HeldOutLogits,
    RunOptions,
    TrainingTask,
    in_subfolder,
    mask_of,
    selected_epoch,
    train_with_validation,
)
from sgmft.training.trainer import train
from sgmft.utils import distributed


def check_tunable(encoder: Encoder) -> None:
    """Raise SgmftError if this kind of encoder cannot be fine-tuned."""
    if not isinstance(encoder, ChineseClipEncoder):
        raise SgmftError(
            f"The encoder {encoder.info.name} cannot be fine-tuned: use --tune head, or an encoder "
            "of the Chinese-CLIP family."
        )


@dataclass(frozen=True)
class FineTuning:
    """A head and an encoder to be trained.

    Attributes:
        task: of the head; see `sgmft.training.fit`.
        encoded: its posts.
        settings: arguments of `load_encoder` that made the encoder, as it is before.
        tuning: how.
    """

    task: TrainingTask
    encoded: EncodedPosts
    settings: Mapping[str, Any]
    tuning: Tuning

    def run(
        self, held_out: Sequence[int], **run: Unpack[RunOptions]
    ) -> tuple[FitResult, TunedEncoder]:
        """Train the head alone, then both, which stay as they were where no epoch is better.

        Args:
            held_out: positions of the validation posts.
            run: of both trainings. The encoder is written into the checkpoint's folder too; without
                one into a temporary folder, which is deleted with the encoder that is returned.

        Returns:
            The head, the log of both trainings and the logits of the held-out posts; the encoder.
        """
        head = train_with_validation(self.task, held_out, **in_subfolder(run, "head"))
        temporary = None
        if (folder := run.get("checkpoint")) is None:
            temporary = TemporaryDirectory(prefix="sgmft-tuned-")
            folder = Path(temporary.name)
        model = self._model(head.network, run.get("device"))
        posts, _, keys, features, _ = self.encoded
        raw = RawPosts(posts, keys, features, self.task.info, model.towers.tokenize)
        labels = self.task.data.labels
        data, validation = hold_out(raw, labels, mask_of(held_out, len(labels)))
        before = {name: x.clone() for name, x in model.state_dict().items()}
        config = self.tuning.config(self.task.preset.train)
        history = train(model, data, validation, config, **in_subfolder(run, "both"))
        selected = selected_epoch(history, config.patience)
        better = selected.val_loss < float(cross_entropy(*head.held_out))  # NaN is never less
        if not better:
            model.load_state_dict(before)
        logits = predict_logits(model, validation.features).logits
        if temporary is not None or distributed.is_main():
            model.towers.save(folder / "encoder")
        distributed.wait()
        result = head._replace(
            network=model.head,
            history=[*head.history, *history],
            held_out=HeldOutLogits(logits, validation.labels),
            selected=selected if better else head.selected,
        )
        base = str(self.settings["name"])
        return result, TunedEncoder(folder / "encoder", base, better, temporary)

    def _model(self, head: Network, device: str | None) -> Tuned:
        torch.manual_seed(self.task.preset.train.seed)
        towers = open_towers(self.settings, self.tuning, device)
        tokens = self.task.method.uses_tokens(self.task.preset)
        return Tuned(head, towers, tokens, self.task.info.fingerprint)
