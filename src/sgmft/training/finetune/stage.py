"""The second stage of a fine-tuning: head and encoder together, from where the head alone ended.

A head that was trained on frozen features first keeps the encoder from being bent by a random one
(Kumar et al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from sgmft.errors import SgmftError
from sgmft.features.encode import EncodedPosts
from sgmft.features.encoder_handle import TunedEncoder
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.chinese_clip import ChineseClipEncoder
from sgmft.features.features import LabelledFeatures
from sgmft.models.base import Network
from sgmft.models.inference import predict_logits
from sgmft.training.finetune.batches import Numbers, RawPosts
from sgmft.training.finetune.network import Tuned
from sgmft.training.finetune.settings import Tuning
from sgmft.training.finetune.towers import open_towers
from sgmft.training.fit import FitResult, HeldOutLogits, TrainingTask, choose, kept_epoch
from sgmft.training.trainer import Epoch, train
from sgmft.utils import distributed


def check_tunable(encoder: Encoder) -> None:
    """Raise SgmftError if this kind of encoder cannot be fine-tuned."""
    if not isinstance(encoder, ChineseClipEncoder):
        raise SgmftError(
            f"The encoder {encoder.info.name} cannot be fine-tuned: use --tune head, or an encoder "
            "of the Chinese-CLIP family."
        )


@dataclass(frozen=True)
class Stage:
    """What is fine-tuned.

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
        self,
        held_out: Sequence[int],
        *,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        **run: Any,
    ) -> tuple[FitResult, TunedEncoder]:
        """The head alone, then both, which stay as they were where no epoch is better.

        Args:
            held_out: positions of the validation posts.
            checkpoint: as in `trainer.train`; the encoder is written there too. Without one
                it is in a temporary folder, which is deleted with what is returned.
            on_epoch: called after each epoch of both.
            run: track, device; see `sgmft.training.trainer.train`.

        Returns:
            The head, the log of both trainings and what is said of the held-out posts; the encoder.
        """
        run["on_epoch"] = on_epoch
        choice = choose(self.task, held_out, checkpoint=checkpoint and checkpoint / "head", **run)
        keeper = None
        if (folder := checkpoint) is None:
            keeper = TemporaryDirectory(prefix="sgmft-tuned-")
            folder = Path(keeper.name)
        model = self._model(choice.network, run.get("device"))
        data, watched = self._data(held_out, model.towers.numbers)
        before = {name: x.clone() for name, x in model.state_dict().items()}
        config = self.tuning.config(self.task.preset.train)
        saved = checkpoint and checkpoint / "both"
        history = train(model, data, watched, config, checkpoint=saved, **run)
        least = float(cross_entropy(*choice.unseen))
        kept = kept_epoch(history, config.patience)
        better = kept.val_loss < least  # NaN is less than nothing
        if not better:
            model.load_state_dict(before)
        unseen = HeldOutLogits(predict_logits(model, watched.features).logits, watched.labels)
        if keeper is not None or distributed.is_main():
            model.towers.save(folder / "encoder")
        distributed.wait()
        base = str(self.settings["name"])
        tuned = TunedEncoder(folder / "encoder", base, better, keeper)
        kept = kept if better else choice.kept
        return FitResult(model.head, [*choice.history, *history], unseen, kept), tuned

    def _model(self, head: Network, device: str | None) -> Tuned:
        torch.manual_seed(self.task.preset.train.seed)
        towers = open_towers(self.settings, self.tuning, device)
        tokens = self.task.method.uses_tokens(self.task.preset)
        return Tuned(head, towers, tokens, self.task.info.fingerprint)

    def _data(
        self, held_out: Sequence[int], numbers: Numbers
    ) -> tuple[LabelledFeatures, LabelledFeatures]:
        """Posts to train on, and those held out."""
        posts, _, keys, features, _ = self.encoded
        raw: Any = RawPosts(posts, keys, features, self.task.info, numbers)
        everything = LabelledFeatures(raw, self.task.data.labels)
        out = torch.zeros(len(raw), dtype=torch.bool)
        out[list(held_out)] = True
        return everything.take(~out), everything.take(out)
