"""An encoder and the network behind it as one, so that the training loop trains both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sgmft.features.batch import Batch
from sgmft.models.base import Network, NetworkConfig, Output
from sgmft.training.finetune.batches import RawBatch
from sgmft.training.finetune.towers import Towers
from sgmft.utils.distributed_loss import BatchCrossEntropy


@dataclass(frozen=True)
class TunedConfig(NetworkConfig):
    """Settings of the network, and of the encoder's training beside it.

    Attributes:
        head: the network's own.
        tuning: `Tuning`'s values.
        encoder: fingerprint of the encoder before.
    """

    head: Mapping[str, Any] | None = None
    tuning: Mapping[str, Any] | None = None
    encoder: str = ""


class Tuned(Network):
    """Texts and images to logits.

    Its state, which is saved and restored, is what training changes: the network, and of the
    towers the weights that move.

    Args:
        head: from features to logits.
        towers: from texts and images to features.
        tokens: whether the head reads words and regions.
        encoder: fingerprint of the encoder before.
    """

    def __init__(self, head: Network, towers: Towers, tokens: bool, encoder: str) -> None:
        c = head.config
        widths = (c.classes, c.text_width, c.image_width, c.shared_space, c.word_width)
        super().__init__(TunedConfig(*widths, asdict(c), asdict(towers.tuning), encoder))
        self.head, self.towers, self._tokens = head, towers, tokens
        self.uses_ngrams = head.uses_ngrams

    def forward(self, batch: RawBatch) -> Output:  # type: ignore[override]
        """B posts to logits (B, K)."""
        output: Output = self.head(self.encode(batch))
        return output

    def loss(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Tensor:
        """The head's own objective."""
        return self.head.loss(output, labels, criterion)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The head with this rate, the towers with theirs."""
        moving = [x for x in self.towers.parameters() if x.requires_grad]
        towers = {"params": moving, "lr": self.towers.tuning.encoder_rate}
        return [*self.head.parameter_groups(learning_rate), towers]

    def encode(self, batch: RawBatch) -> Batch:
        """Features of B posts, as the encoder in use would give them but for rounding."""
        posts, device = len(batch.has_text), batch.has_text.device
        text = torch.zeros(posts, self.config.text_width, device=device)
        image = torch.zeros(posts, self.config.image_width, device=device)
        words, regions = text.new_zeros(0, self.config.word_width), image.new_zeros(0, len(image.T))
        word_counts, region_counts = (torch.zeros(posts, dtype=torch.long) for _ in range(2))
        per_image = 0
        if len(batch.ids):
            tokens = self.towers.encode_texts(batch.ids, batch.mask, self._tokens)
            text = text.index_copy(0, batch.text_of, tokens[:, 0])
            if self._tokens:
                real = _words(batch.mask)
                words = tokens[real]
                word_counts[batch.text_of.cpu()] = real.sum(1).cpu()
        if len(batch.images):
            whole, *rest = self.towers.encode_images(batch.images, self._tokens)
            counts = torch.bincount(batch.image_of, minlength=posts)
            image = image.index_add(0, batch.image_of, whole) / counts.clamp(min=1)[:, None]
            if self._tokens:
                per_image = rest[0].shape[1]
                regions = rest[0].flatten(0, 1)
                region_counts = counts.cpu() * per_image
        pooled = Batch(text, image, batch.has_text, batch.has_image, ngrams=batch.ngrams)
        if not self._tokens:
            return pooled
        text_tokens, text_mask = _pad(words, word_counts)
        image_tokens, image_mask = _pad(regions, region_counts)
        index = torch.arange(image_tokens.shape[1]) // max(1, per_image)
        return pooled._replace(
            text_tokens=text_tokens,
            text_mask=text_mask,
            image_tokens=image_tokens,
            image_mask=image_mask,
            image_index=index.expand(posts, -1).to(device),
        )

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The state that training changes."""
        trained = {name for name, x in self.named_parameters() if x.requires_grad}
        return {
            name: x
            for name, x in super().state_dict(*args, **kwargs).items()
            if name in trained or name.startswith("head.")
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], **more: Any) -> Any:  # type: ignore[override]
        """Restore what `state_dict` gave; the rest stays."""
        if state_dict.keys() != self.state_dict().keys():
            raise KeyError("the state is of another model")
        return super().load_state_dict(state_dict, strict=False, **more)


def _words(mask: Tensor) -> Tensor:
    """Which of the tokens (T, n) are between [CLS] and [SEP]; of a text that is those two, [SEP].

    The same as `sgmft.features.encoders.batches.encode_token_ids` keeps.
    """
    length = mask.sum(1, keepdim=True)
    at = torch.arange(mask.shape[1], device=mask.device)
    return (at >= 1) & (at < (length - 1).clamp(min=2))


def _pad(values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Pad sequences that lie one after another, with their gradients; see `Ragged.pad`."""
    mask = torch.arange(max(1, int(counts.max()))) < counts[:, None]
    mask = mask.to(values.device)
    padded = values.new_zeros(*mask.shape, values.shape[1])
    padded[mask] = values
    return padded, mask
