"""An encoder and the network behind it as one, trained from where the network alone ended.

A head that was trained on frozen features first keeps the encoder from being bent by a random one
(Kumar et al. 2022, arXiv 2202.10054).
"""

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sgmft.data.posts import Post, raise_first_error
from sgmft.errors import TEXTS, SgmftError, needs_extra
from sgmft.features.encode import EncodedPosts, PreparedPost, prepare_post
from sgmft.features.encoder_handle import TunedEncoder
from sgmft.features.encoders.batches import pick_device, pick_dtype
from sgmft.features.encoders.library_encoders import TorchEncoder
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.encoders.tuned import lora_library, save_adapter
from sgmft.features.features import Batch, Features, LabelledPosts, keep_modalities
from sgmft.models.arrays import Array, ArrayModule, Integers, cross_entropy
from sgmft.models.base import ClosedFormModel, NetworkConfig, Output
from sgmft.models.network import Losses, Network
from sgmft.training import fit as fitting
from sgmft.training.finetune.settings import Tuning
from sgmft.training.history import selected_epoch
from sgmft.training.trainer import train
from sgmft.utils import distributed
from sgmft.utils.distributed import BatchCrossEntropy
from sgmft.utils.files import writing

EVALUATED = 16  # texts or images at a time where nothing is trained
CROP = (0.6, 1.0)  # share of an image's area that augmentation keeps
COLOURS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}


class Towers(nn.Module):
    """Texts and images to an encoder's features, with gradients."""

    def __init__(
        self, encoder: TorchEncoder, tuning: Tuning, dtype: torch.dtype = torch.float32
    ) -> None:  # the `trainable` encoder is changed in place; the towers compute in `dtype`
        super().__init__()
        self.encoder, self.tuning, self._low = encoder, tuning, dtype
        model = self.adapted = encoder.model.requires_grad_(False)
        layers = tuple(f"{name}." for name in _last_layers(model, tuning.last))
        if tuning.kind == "lora":
            modules = dict(model.named_modules())
            kind = "Attention" if tuning.maps == "attention" else ""
            inside = tuple(f"{n}." for n, x in modules.items() if kind in type(x).__name__)
            linear = [n for n, x in modules.items() if isinstance(x, nn.Linear)]
            maps = [n for n in linear if n.startswith(layers) and n.startswith(inside)]
            with lora_library() as peft:
                lora = peft.LoraConfig(r=tuning.rank, lora_alpha=tuning.alpha, target_modules=maps)
                self.adapted = peft.get_peft_model(model, lora)
        else:
            # Parameters are in the order in which they are used, as far as this matters.
            waiting = {name.split(".")[0] for name in layers if tuning.last is not None}
            for name, x in model.named_parameters():
                tower = name.split(".")[0]
                if name.startswith(layers):
                    waiting.discard(tower)
                x.requires_grad_(tower not in waiting and not tower.startswith("logit_"))
        if tuning.gradient_checkpointing:  # by the library's own switch, which it renamed
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
        self._augment = augmentation() if tuning.augment else None

    def encode_texts(self, batch: Mapping[str, Tensor], words: bool) -> tuple[Tensor, ...]:
        """Map T texts, see `batch_texts`, to features (T, D), and of their tokens (T, n, Dw)."""
        return self._in_parts(lambda part: self.encoder.text_features(part, words), batch)

    def encode_images(self, batch: Mapping[str, Tensor], regions: bool) -> tuple[Tensor, ...]:
        """Map P images, see `batch_images`, to features (P, D), and of regions (P, r, D)."""
        if self.training and self._augment is not None:
            batch = {"pictures": self._augment(batch["pictures"])}
        return self._in_parts(lambda part: self.encoder.image_features(part, regions), batch)

    def save(self, folder: Path) -> None:
        """Write the encoder as it is now; LoRA as matrices, or merged, and then not to be used."""
        lora, info = self.tuning.kind == "lora", self.encoder.info
        if lora and not self.tuning.merge:
            base = info.pinned or info.name
            save_adapter(self.adapted, folder, base, self.encoder.revision, info.weights)
            return
        with writing(folder):
            self.encoder.save(self.adapted.merge_and_unload() if lora else self.adapted, folder)

    def _in_parts(self, run: Callable[..., Any], batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run on a few rows at a time; in training their activations are computed again later."""
        count, device = next((len(x), x.device.type) for x in batch.values())
        size = self.tuning.micro_batch or (count if self.training else EVALUATED)
        columns = zip(*(x.split(size) for x in batch.values()), strict=True)
        parts = [dict(zip(batch, column, strict=True)) for column in columns]
        low = self._low == torch.bfloat16
        with torch.autocast(device, torch.bfloat16) if low else nullcontext():
            if self.training and len(parts) > 1:
                run = partial(checkpoint, run, use_reentrant=False)
            outputs = [[x for x in run(part) if x is not None] for part in parts]
        return tuple(torch.cat(x).float() for x in zip(*outputs, strict=True))


def check_tunable(encoder: Any, tuning: Tuning) -> None:
    """Raise SgmftError if this kind of encoder cannot be fine-tuned so."""
    if not getattr(encoder, "is_dual", False):
        raise SgmftError(TEXTS["not dual"], name=encoder.info.name)
    if tuning.kind == "lora":
        with lora_library():  # SgmftError where it is missing
            pass
    if tuning.augment and not encoder.cuts_squares:
        raise SgmftError(TEXTS["own proportions"], name=encoder.info.name)


def open_towers(settings: Mapping[str, Any], tuning: Tuning, device: str | None) -> Towers:
    """The towers of an encoder, by arguments of `load_encoder`; the device decides precision."""
    low = pick_dtype(pick_device(device))
    if tuning.precision != "auto":
        low = getattr(torch, tuning.precision)
    dtype = low if tuning.kind == "lora" else torch.float32  # weights that are trained
    how: dict[str, Any] = {"device": device, "dtype": str(dtype).removeprefix("torch.")}
    encoder: Any = load_encoder(**settings, **how, trainable=True)
    return Towers(encoder, tuning, low)


def _last_layers(model: nn.Module, last: int | None) -> list[str]:
    """Return the names of each tower's last layers, or of all: they are the items of its lists."""
    lists = {n: len(x) for n, x in model.named_modules() if isinstance(x, nn.ModuleList)}
    outer = [n for n in lists if not any(n.startswith(f"{other}.") for other in lists)]
    return [f"{n}.{i}" for n in outer for i in range(lists[n])[-(last or lists[n]) :]]


def augmentation() -> Callable[[Tensor], Tensor]:
    """A function that changes RGB images (P, s, s, 3), uint8, each by torch's random numbers."""
    with needs_extra("tune", "Changing pictures (--set tune.augment=true)"):
        from kornia import augmentation as kornia

    def augment(images: Tensor) -> Tensor:
        if not len(images):
            return images
        change = kornia.AugmentationSequential(
            kornia.RandomResizedCrop(tuple(images.shape[1:3]), scale=CROP, p=1.0),
            kornia.RandomHorizontalFlip(p=0.5),
            kornia.ColorJiggle(**COLOURS, p=0.8),
            data_keys=["input"],
        )
        changed: Tensor = change(images.permute(0, 3, 1, 2).float() / 255)
        return changed.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)

    return augment


class RawBatch(NamedTuple):
    """B posts, T of them with a text, and their P images. A missing modality is not encoded."""

    texts: dict[str, Tensor]  # (T, n) as `batch_texts` of the encoder returns them
    images: dict[str, Tensor]  # (P, ...) as `batch_images` does, those of a post one after another
    text_of: Tensor  # (T,) whose text it is
    image_of: Tensor  # (P,) whose image it is
    has_text: Tensor  # (B,) bool
    has_image: Tensor  # (B,)
    ngrams: Any = None  # (B, g) of the text, padded with -1; an array

    def drop_modalities(self, share: float, draws: Tensor) -> "RawBatch":
        """See `sgmft.features.features.Batch`."""
        has_text, has_image = keep_modalities(self.has_text, self.has_image, share, draws)
        return self._replace(has_text=has_text, has_image=has_image)

    def to(self, device: torch.device) -> "RawBatch":
        """The same batch on another device."""
        texts, images = ({k: x.to(device) for k, x in part.items()} for part in self[:2])
        return RawBatch._make([texts, images, *[x.to(device) for x in self[2:-1]], self.ngrams])


@dataclass(frozen=True)
class RawPosts:
    """N posts whose texts and images are read batch by batch; in place of `Features`."""

    posts: Sequence[Post]  # that could be encoded
    keys: Sequence[str]
    features: Features  # by the encoder before it is tuned: which modalities a post has, n-grams
    encoder: TorchEncoder  # which prepares them

    def __len__(self) -> int:
        return len(self.posts)

    def take(self, rows: Integers) -> "RawPosts":
        """The posts at these positions, in that order."""
        posts, keys = ([x[i] for i in rows.tolist()] for x in (self.posts, self.keys))
        return replace(self, posts=posts, keys=keys, features=self.features.take(rows))

    @property
    def parts(self) -> NDArray[np.int8]:
        """See `Features.parts`."""
        return self.features.parts

    def with_parts(self, parts: int) -> "RawPosts":
        """See `Features.with_parts`."""
        return replace(self, features=self.features.with_parts(parts))

    def contents(self) -> Iterator[Array]:
        """A digest of the posts' content keys, which tells them from others."""
        yield np.frombuffer(hashlib.sha256("\n".join(self.keys).encode()).digest(), np.uint8)

    def batch(self, rows: Integers | slice | None = None, ngrams: bool = False) -> RawBatch:
        """The posts at these positions (B,), or all, decoded by several threads."""
        if not isinstance(rows, np.ndarray):
            rows = np.arange(len(self))[rows or slice(None)]
        chosen = self.take(rows)
        how: dict[str, Any] = {"info": self.encoder.info, "prepare": self.encoder.prepare_image}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = [*pool.map(partial(prepare_post, **how), chosen.posts)]
        read = [x for x in found if isinstance(x, PreparedPost)]
        if len(read) < len(found):
            pairs = zip(chosen.posts, found, strict=True)
            raise_first_error([replace(x, error=y) for x, y in pairs if isinstance(y, str)])
        texts = {i: x.text for i, x in enumerate(read) if x.text}
        images = [(i, image) for i, x in enumerate(read) for image in x.images]
        known = chosen.features
        grams = known.ngrams.pad(fill=-1)[0] if ngrams and known.ngrams is not None else None
        own = self.encoder.batch_texts([*texts.values()]) if texts else {}
        seen = self.encoder.batch_images([image for _, image in images]) if images else {}
        at = np.array([*texts], np.int64), np.array([i for i, _ in images], np.int64)
        rest = map(torch.from_numpy, (*at, known.has_text, known.has_image))
        return RawBatch._make([own, seen, *rest, grams])


class TrainableModel(Network):
    """A closed-form model as a network, but for parts that read arrays alone, as n-grams."""

    def __init__(self, model: ClosedFormModel) -> None:
        super().__init__(model.config)
        self.uses_ngrams = model.uses_ngrams
        self._model = copy.deepcopy(model)
        self._owners: list[tuple[ArrayModule, str]] = []  # of the arrays that become tensors
        for name in self._model.state_dict():
            owner, own_name = self._model.owner(name)
            if owner.arrays_only:
                continue
            x = torch.from_numpy(getattr(owner, own_name).copy())
            if own_name in owner.learned:
                self.register_parameter(f"x{len(self._owners)}", nn.Parameter(x))
            else:
                self.register_buffer(f"x{len(self._owners)}", x)
            self._owners.append((owner, own_name))

    def forward(self, batch: Batch) -> Output:
        """See `Network`."""
        for i, (owner, name) in enumerate(self._owners):
            setattr(owner, name, getattr(self, f"x{i}"))
        return self._model.forward(batch)

    def trained(self) -> ClosedFormModel:
        """Return the model with the weights as they are now."""
        for i, (owner, name) in enumerate(self._owners):
            setattr(owner, name, getattr(self, f"x{i}").detach().cpu().numpy())
        return self._model


@dataclass(frozen=True)
class TunedConfig(NetworkConfig):
    """Settings of the network, and of the encoder's training beside it."""

    head: Mapping[str, Any] | None = None
    tuning: Mapping[str, Any] | None = None
    encoder: str = ""  # fingerprint of the encoder before


class Tuned(Network):
    """Texts and images to logits, by towers and a `head`; its state is what training changes."""

    def __init__(self, head: Network, towers: Towers, tokens: bool, encoder: str) -> None:
        c = head.config
        widths = (c.classes, c.text_width, c.image_width, c.shared_space, c.word_width)
        super().__init__(TunedConfig(*widths, asdict(c), asdict(towers.tuning), encoder))
        self.head, self.towers, self._tokens = head, towers, tokens
        self.uses_ngrams = head.uses_ngrams

    def forward(self, batch: RawBatch) -> Output:  # type: ignore[override]
        """B posts to logits (B, K)."""
        return self.head(self.encode(batch))  # type: ignore[no-any-return]

    def losses(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Losses:
        """The head's own objective."""
        return self.head.losses(output, labels, criterion)

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
        if batch.texts:
            pooled, *rest = self.towers.encode_texts(batch.texts, self._tokens)
            text = text.index_copy(0, batch.text_of, pooled)
            if self._tokens:
                real = batch.texts["words"]
                words = rest[0][real]
                word_counts[batch.text_of.cpu()] = real.sum(1).cpu()
        if batch.images:
            whole, *rest = self.towers.encode_images(batch.images, self._tokens)
            counts = torch.bincount(batch.image_of, minlength=posts)
            image = image.index_add(0, batch.image_of, whole) / counts.clamp(min=1)[:, None]
            if self._tokens:
                per_image = rest[0].shape[1]
                regions = rest[0].flatten(0, 1)
                region_counts = counts.cpu() * per_image
        parts = text, image, batch.has_text, batch.has_image
        if not self._tokens:
            return Batch(*parts, ngrams=batch.ngrams)
        padded = *_pad(words, word_counts), *_pad(regions, region_counts)
        index = torch.arange(padded[2].shape[1], device=device) // max(1, per_image)
        return Batch(*parts, *padded, index.expand(posts, -1), batch.ngrams)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The state that training changes."""
        trained = {name for name, x in self.named_parameters() if x.requires_grad}
        state = super().state_dict(*args, **kwargs).items()
        return {name: x for name, x in state if name in trained or name.startswith("head.")}

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


def fine_tune(
    task: fitting.TrainingTask,  # of the head
    encoded: EncodedPosts,  # its posts
    settings: Mapping[str, Any],  # of `load_encoder`, by which the encoder is as it is before
    tuning: Tuning,
    held_out: Sequence[int],  # positions of the validation posts
    **run: Unpack[fitting.RunOptions],  # of both trainings
) -> tuple[fitting.FitResult, TunedEncoder]:
    """Train the head alone, then both, which stay as they were where no epoch is better.

    The encoder is written into the checkpoint's folder too, or into a temporary one, which lives as
    long as it. Returns the head with the log of both trainings and held-out logits; the encoder.
    """
    head = fitting.train_with_validation(task, held_out, **fitting.in_subfolder(run, "head"))
    temporary = None
    if (folder := run.get("checkpoint")) is None:
        temporary = TemporaryDirectory(prefix="sgmft-tuned-")
        folder = Path(temporary.name)
    torch.manual_seed(task.preset.train.seed)
    towers = open_towers(settings, tuning, run.get("device"))
    network: Any = head.model
    if isinstance(network, ClosedFormModel):
        network = TrainableModel(network)
    model = Tuned(network, towers, task.method.uses_tokens(task.preset), task.info.fingerprint)
    raw = RawPosts(encoded.posts, encoded.keys, encoded.features, towers.encoder)
    labelled = LabelledPosts(raw, *task.data[1:])
    out = np.isin(np.arange(len(raw)), held_out)
    data, validation = labelled.take(~out), labelled.take(out)
    before = copy.deepcopy(model.state_dict())
    config = tuning.config(task.preset.train)
    if config.teacher != "none":
        data = data._replace(soft=fitting.taught(task, task.data.take(~out), run).soft)
    history = train(model, data, validation, config, **fitting.in_subfolder(run, "both"))
    selected = selected_epoch(history, config.patience)
    before_loss = cross_entropy(head.held_out.logits, head.held_out.labels)
    better = selected.val_loss < before_loss  # NaN is never less
    if not better:
        model.load_state_dict(before)
    held_out_logits = fitting.predict_by_parts(model, validation) if better else head.held_out
    if temporary is not None or distributed.is_main():
        towers.save(folder / "encoder")
    distributed.wait()
    trained = network.trained() if isinstance(network, TrainableModel) else network
    chosen, whole = selected if better else head.selected, [*head.history, *history]
    tuned = TunedEncoder(folder / "encoder", task.info.pinned or task.info.name, better, temporary)
    return fitting.FitResult(trained, whole, held_out_logits, chosen), tuned
