"""An encoder and the network behind it as one, trained from where the network alone ended.

A head that was trained on frozen features first keeps the encoder from being bent by a random one
(Kumar et al. 2022, arXiv 2202.10054).
"""

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sgmft.data.posts import Post, raise_first_error
from sgmft.errors import SgmftError
from sgmft.features.batch import Batch, remaining_modalities
from sgmft.features.encode import EncodedPosts, PreparedPost, prepare_post
from sgmft.features.encoder_handle import TunedEncoder
from sgmft.features.encoders.base import Encoder, EncoderInfo
from sgmft.features.encoders.chinese_clip import ChineseClipEncoder
from sgmft.features.features import Features
from sgmft.features.ragged import Ragged
from sgmft.models.base import Network, NetworkConfig, Output
from sgmft.models.inference import predict_logits
from sgmft.training.finetune.settings import Tuning
from sgmft.training.finetune.towers import Towers, open_towers
from sgmft.training.fit import (
    FitResult,
    HeldOutLogits,
    RunOptions,
    TrainingTask,
    in_subfolder,
    mask_of,
    train_with_validation,
)
from sgmft.training.trainer import hold_out, selected_epoch, train
from sgmft.utils import distributed
from sgmft.utils.distributed_loss import BatchCrossEntropy


class RawBatch(NamedTuple):
    """B posts, T of them with a text, and their P images. A missing modality is not encoded."""

    ids: Tensor  # (T, n) token ids, [CLS] first, padded with 0
    mask: Tensor  # (T, n) 1 where real
    images: Tensor  # (P, s, s, 3) uint8, those of a post one after another
    text_of: Tensor  # (T,) whose text it is
    image_of: Tensor  # (P,) whose image it is
    has_text: Tensor  # (B,) bool
    has_image: Tensor  # (B,)
    ngrams: Tensor | None = None  # (B, g) of the text, padded with -1

    def drop_modalities(self, share: float, draws: Tensor) -> "RawBatch":
        """Modality dropout, as `sgmft.features.batch.Batch.drop_modalities`."""
        has_text, has_image = remaining_modalities(self.has_text, self.has_image, share, draws)
        return self._replace(has_text=has_text, has_image=has_image)

    def to(self, device: torch.device) -> "RawBatch":
        """The same batch on another device."""
        return RawBatch._make(None if x is None else x.to(device) for x in self)


@dataclass(frozen=True)
class RawPosts:
    """N posts whose texts and images are read batch by batch; in the place of `Features`.

    Args:
        posts: that could be encoded.
        keys: content key of each.
        features: those by the encoder before it is tuned: which modalities a post has, n-grams.
        info: of the encoder: how texts and images are prepared.
        tokenize: from cleaned texts to token ids.
    """

    posts: Sequence[Post]
    keys: Sequence[str]
    features: Features
    info: EncoderInfo
    tokenize: Callable[[Sequence[str]], list[list[int]]]

    def __len__(self) -> int:
        return len(self.posts)

    def take(self, rows: Tensor) -> "RawPosts":
        """The posts at these positions, in that order."""
        posts, keys = ([x[i] for i in rows.tolist()] for x in (self.posts, self.keys))
        return replace(self, posts=posts, keys=keys, features=self.features.take(rows))

    def contents(self) -> Iterator[Tensor]:
        """A digest of the posts' content keys, which tells them from others."""
        digest = hashlib.sha256("\n".join(self.keys).encode()).digest()
        yield torch.frombuffer(bytearray(digest), dtype=torch.uint8)

    def batch(self, rows: Tensor | slice | None, ngrams: bool = False) -> RawBatch:
        """The posts at these positions (B,), or all, decoded by several threads.

        Raises:
            SgmftError: a picture cannot be read any more.
        """
        if not isinstance(rows, Tensor):
            rows = torch.arange(len(self))[rows or slice(None)]
        chosen = self.take(rows)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            contents = list(pool.map(lambda post: prepare_post(post, self.info), chosen.posts))
        texts: list[str] = []
        images, text_of, image_of = [], [], []
        for i, content in enumerate(contents):
            if not isinstance(content, PreparedPost):
                raise_first_error([replace(chosen.posts[i], error=content)])
                continue
            if content.text:
                texts.append(content.text)
                text_of.append(i)
            images += content.images
            image_of += [i] * len(content.images)
        tokens = [np.array(ids) for ids in self.tokenize(texts)]
        ids, mask = Ragged.of(tokens, np.zeros(0, np.int64)).pad()
        size, known = self.info.image_size, chosen.features
        pixels = np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8)
        grams = known.ngrams if ngrams else None
        return RawBatch(
            torch.from_numpy(ids),
            torch.from_numpy(mask).long(),
            torch.from_numpy(pixels),
            torch.tensor(text_of, dtype=torch.long),
            torch.tensor(image_of, dtype=torch.long),
            known.has_text,
            known.has_image,
            None if grams is None else torch.from_numpy(grams.pad(fill=-1)[0]),
        )


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
        return self.head(self.encode(batch))  # type: ignore[no-any-return]

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
                # Between [CLS] and [SEP], or of a text that is those two [SEP]: the same as
                # `sgmft.features.encoders.batches.encode_token_ids` keeps.
                at = torch.arange(batch.mask.shape[1], device=device)
                real = (at >= 1) & (at < (batch.mask.sum(1, keepdim=True) - 1).clamp(min=2))
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
        pooled = text, image, batch.has_text, batch.has_image
        if not self._tokens:
            return Batch(*pooled, ngrams=batch.ngrams)
        padded = *_pad(words, word_counts), *_pad(regions, region_counts)
        index = torch.arange(padded[2].shape[1], device=device) // max(1, per_image)
        return Batch(*pooled, *padded, index.expand(posts, -1), batch.ngrams)

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


def _pad(values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Pad sequences that lie one after another, with their gradients; see `Ragged.pad`."""
    mask = (torch.arange(max(1, int(counts.max()))) < counts[:, None]).to(values.device)
    padded = values.new_zeros(*mask.shape, values.shape[1])
    padded[mask] = values
    return padded, mask


def check_tunable(encoder: Encoder) -> None:
    """Raise SgmftError if this kind of encoder cannot be fine-tuned."""
    if not isinstance(encoder, ChineseClipEncoder):
        raise SgmftError(
            f"The encoder {encoder.info.name} cannot be fine-tuned: use --tune head, or an encoder "
            "of the Chinese-CLIP family."
        )


def fine_tune(
    task: TrainingTask,
    encoded: EncodedPosts,
    settings: Mapping[str, Any],
    tuning: Tuning,
    held_out: Sequence[int],
    **run: Unpack[RunOptions],
) -> tuple[FitResult, TunedEncoder]:
    """Train the head alone, then both, which stay as they were where no epoch is better.

    Args:
        task: of the head; see `sgmft.training.fit`.
        encoded: its posts.
        settings: arguments of `load_encoder` that made the encoder, as it is before.
        tuning: how both are trained.
        held_out: positions of the validation posts.
        run: of both trainings. The encoder is written into the checkpoint's folder too; without
            one into a temporary folder, which is deleted with the encoder that is returned.

    Returns:
        The head, the log of both trainings and the logits of the held-out posts; the encoder.
    """
    head = train_with_validation(task, held_out, **in_subfolder(run, "head"))
    temporary = None
    if (folder := run.get("checkpoint")) is None:
        temporary = TemporaryDirectory(prefix="sgmft-tuned-")
        folder = Path(temporary.name)
    torch.manual_seed(task.preset.train.seed)
    towers = open_towers(settings, tuning, run.get("device"))
    tokens = task.method.uses_tokens(task.preset)
    model = Tuned(head.network, towers, tokens, task.info.fingerprint)
    raw = RawPosts(encoded.posts, encoded.keys, encoded.features, task.info, towers.tokenize)
    labels = task.data.labels
    data, validation = hold_out(raw, labels, mask_of(held_out, len(labels)))
    before = copy.deepcopy(model.state_dict())
    config = tuning.config(task.preset.train)
    history = train(model, data, validation, config, **in_subfolder(run, "both"))
    selected = selected_epoch(history, config.patience)
    better = selected.val_loss < float(cross_entropy(*head.held_out))  # NaN is never less
    if not better:
        model.load_state_dict(before)
    logits = predict_logits(model, validation.features).logits
    if temporary is not None or distributed.is_main():
        towers.save(folder / "encoder")
    distributed.wait()
    result = head._replace(
        network=model.head,
        history=[*head.history, *history],
        held_out=HeldOutLogits(logits, validation.labels),
        selected=selected if better else head.selected,
    )
    return result, TunedEncoder(folder / "encoder", str(settings["name"]), better, temporary)
