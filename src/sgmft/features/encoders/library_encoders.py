"""Encoders that other libraries load: any dual encoder, text network or image network of theirs.

docs/encoders.md says which features of each kind are pooled, and which are of tokens. A model that
embeds text and image together has joint features, too: of a post's text and all its images in one
message, where the model takes messages; else the mean over its images, each with the text. A text
is cut to a half until all can be read.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import chain
from logging import getLogger
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from sgmft.data.preprocessing.text import get_cleaning
from sgmft.errors import SgmftError, warn
from sgmft.features.encoders import batches
from sgmft.features.encoders.base import Encoded, EncoderInfo, FloatArray, Images, PreparedImage
from sgmft.features.encoders.batches import pick_device, pick_dtype
from sgmft.features.encoders.hub import Checkpoint, find_checkpoint
from sgmft.features.encoders.tuned import digest_weights, read_adapter

SAMPLE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)  # seen once, to measure
BYTES = 64 << 20  # of a layer of a large network, for one image
# Trained on texts padded to one length, of which they read the last token, whatever it is.
PADDED = ("siglip", "tipsv2")
EXTRA = 8  # the most tokens before the patches: of the class, distillation, registers
INPUTS = {"input_ids": ("text",), "pixel_values": ("image",)}  # what names a network's kind
LINEAR = {"text": ("text_projection", "text_model.head"), "image": ("visual_projection",)}
PIXELS = "pixels"  # name of an image as it is, beside what its network reads
Halves = tuple[Tensor, Tensor | None]  # pooled features, of tokens
Batch = tuple[list[int], Any, Any]  # positions, pooled features, tokens


class TorchEncoder:
    """Frozen features of a checkpoint, whose library prepares both sides; one of each is tried."""

    model: Any
    is_dual = True  # whether it is one network of texts and images, which can be trained
    cuts_squares = True  # whether it prepares images as "pictures" (1, s, s, 3), in RGB
    revision: str | None = None  # of its hub repository, where the name does not say it
    max_tokens: int  # of a text; more are cut off
    prepare_image: Callable[[Images], PreparedImage]  # of an array (height, width, 3)
    # Map a batch to features (b, D), and of tokens (b, n, Dw) or regions (b, r, D), if wanted.
    text_features: Callable[[Mapping[str, Tensor], bool], Halves]
    image_features: Callable[[Mapping[str, Tensor], bool], Halves]
    save: Callable[[Any, Path], None]  # writes the checkpoint, with other weights in its network
    _load: Callable[[Checkpoint], Any]  # returns the network, and sets the next two
    _design: str  # digest of what does not show in the weights
    _takes: Sequence[str]  # of "text" and "image"
    _is_by_weights = False  # whether a model knows it by its weights alone, as those of 0.1 do
    tokenizer: Any
    _padding: str | bool = False  # "max_length" for texts of so many tokens always
    processor: Any = None  # of images
    _joint = False  # whether it embeds text and image together
    encode_joint: Callable[[Sequence[str], Sequence[Sequence[Any]]], FloatArray]  # if so

    def __init__(
        self,
        checkpoint: Checkpoint,
        cleaning: str = "light",
        *,
        patch_grid: int = 4,  # image tokens are averaged to patch_grid x patch_grid regions
        # texts or images in one forward pass; by default 16 on a CPU, on a GPU up to 128
        batch_size: int | None = None,
        device: str | None = None,
        dtype: str | None = None,  # "bfloat16" or "float32"; None is what the hardware computes
        base: str | None = None,  # where the checkpoint of a fine-tuned encoder has moved to
        trainable: bool = False,  # leave the weights as they are saved
    ) -> None:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self._patch_grid, self._device = patch_grid, pick_device(device)
        self._dtype: torch.dtype = getattr(torch, dtype) if dtype else pick_dtype(self._device)
        for library in ("transformers", "sentence_transformers"):
            getLogger(library).setLevel("ERROR")
        self._batch_size = batch_size or batches.pick_batch(self._device.type, BYTES, 16)
        self._trusted, self._trainable = checkpoint.trusted, trainable
        with checkpoint.reading():
            model, changed, weights = self._open(checkpoint, base)
            self.model = model = model.eval().to(self._device, self._dtype)
            text = self._try("text", self.encode_texts, ["a", "a b c d"])
            image = self._try("image", self.encode_images, [SAMPLE, SAMPLE[::-1]])
            joint = self.encode_joint(["a"], [[SAMPLE]]).shape[1] if self._joint else 0
        widths = [0 if side is None else side.pooled.shape[1] for side in (text, image)]
        kinds, clean = (type(self), type(self.processor)), repr(get_cleaning(cleaning))
        parts = repr((kinds, self._dtype, self._patch_grid)), self._design + changed
        whole = *parts, clean, *["joint"] * self._joint
        scale = getattr(getattr(model, "transformers_model", model), "logit_scale", None)
        self.info = EncoderInfo(
            name=checkpoint.name,
            fingerprint=digest_weights(model, torch.float32, whole),
            text_width=widths[0],
            image_width=widths[1],
            shared_space=widths[0] == widths[1],
            logit_scale=None if scale is None else float(scale.detach().float().exp()),
            cleaning=cleaning,
            image_key=digest_weights(model, torch.float32, parts),
            word_width=text.tokens[0].shape[1] if text and text.tokens else 0,
            weights=weights,
            has_tokens=all(side is None or side.tokens is not None for side in (text, image)),
            pinned=checkpoint.pinned,
            remote_code=checkpoint.trusted,
            joint_width=joint,
        )

    def _try(self, side: str, encode: Callable[..., Encoded], samples: Any) -> Encoded | None:
        """Encode the first sample; one at a time from now on if another beside it changes it."""
        if side not in self._takes:
            return None
        words = set[str](getattr(self.tokenizer, "get_vocab", dict)() if side == "text" else ())
        # One without files is made up by libraries.
        if words and len(words - {*getattr(self.tokenizer, "all_special_tokens", ())}) < 2:
            raise ValueError("it has no tokenizer files, and every word would be an unknown one")
        alone = encode(samples[:1], True)
        if alone.pooled.ndim != 2:
            raise ValueError("it gives several vectors, and none of a whole text or picture")
        for _ in range(2):
            gap = np.abs(encode(samples, False).pooled[0] - alone.pooled[0]).max()
            if gap <= 0.1 * np.abs(alone.pooled).max():  # bfloat16 makes far less
                return alone
            self._batch_size, self.is_dual = 1, False  # training and exports take batches
        raise ValueError("its features are not finite, or others each time (masked at random?)")

    def _find(self, name: str, revision: str | None) -> Checkpoint:
        return find_checkpoint(f"hf:{name.removeprefix('hf:')}", self._trusted)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """See `Encoder`; batches hold texts of similar length."""
        if not texts:
            return Encoded(np.zeros((0, self.info.text_width), np.float32), [] if tokens else None)
        return _gather(len(texts), self._run_texts(list(texts), tokens))

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Images | PreparedImage], tokens: bool) -> Encoded:
        """See `Encoder`; batches hold images whose arrays have the same shapes."""
        if not len(images):
            return Encoded(np.zeros((0, self.info.image_width), np.float32), [] if tokens else None)
        given = (x if isinstance(x, dict) else self.prepare_image(x) for x in images)
        prepared = [{name: y for name, y in x.items() if name != PIXELS} for x in given]

        def run() -> Iterator[Batch]:
            for rows in batches.alike_batches(prepared, self._batch_size):
                batch = self.batch_images([prepared[i] for i in rows])
                for name, x in batch.items():
                    batch[name] = x.to(self._device, self._dtype if x.is_floating_point() else None)
                yield rows, *self.image_features(batch, tokens)

        return _gather(len(images), run())

    def batch_images(self, prepared: Sequence[PreparedImage]) -> dict[str, Tensor]:
        """Put prepared images of the same shapes together."""
        return {k: torch.from_numpy(np.concatenate([x[k] for x in prepared])) for k in prepared[0]}

    def batch_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return token ids (N, n), their mask, and which are `words`, not special tokens."""
        return self._pad(self._tokenize(texts, self._padding), range(len(texts)))

    def _tokenize(self, texts: Sequence[str], padding: str | bool) -> Any:
        how = {"truncation": True, "max_length": self.max_tokens, "padding": padding}
        return self.tokenizer(list(texts), return_special_tokens_mask=True, **how)

    def _pad(self, given: Mapping[str, list[Any]], rows: Sequence[int]) -> dict[str, Tensor]:
        chosen = {name: [x[i] for i in rows] for name, x in given.items()}
        batch = dict(self.tokenizer.pad(chosen, return_tensors="pt"))
        words = batch.pop("special_tokens_mask") == 0
        # A text of nothing that it knows keeps the token that ends it.
        words[~words.any(1), min(1, words.shape[1] - 1)] = True
        return batch | {"words": words}

    def _run_texts(self, texts: list[str], tokens: bool) -> Iterator[Batch]:
        given = self._tokenize(texts, self._padding)
        for rows in batches.batches_by_length([*map(len, given["input_ids"])], self._batch_size):
            batch = {name: x.to(self._device) for name, x in self._pad(given, rows).items()}
            pooled, hidden = self.text_features(batch, tokens)
            own = None
            if hidden is not None:
                own = [x[y] for x, y in zip(hidden.cpu(), batch["words"].cpu(), strict=True)]
            yield rows, pooled, own

    def _open(self, checkpoint: Checkpoint, base: str | None) -> tuple[Any, str, str]:
        """Return the network, a digest of what fine-tuning has changed, and one of its weights."""
        if (adapter := read_adapter(checkpoint.folder)) is None:
            with checkpoint.reading():
                model = self._load(checkpoint)
            # The same in both precisions of reading.
            design = "" if self._is_by_weights else self._design
            return model, "", digest_weights(model, torch.bfloat16, design)
        where = base or adapter.base
        model, _, weights = self._open(self._find(where, adapter.revision), None)
        model, changed = adapter.merge(model, weights, where)
        return model, changed, changed[:16]

    def save_tokenizer(self, path: Path) -> None:
        """Write the tokenizer with how texts are cut and padded, for the package tokenizers."""
        self._tokenize(["a"], self._padding or True)  # which sets its backend so
        self.tokenizer.backend_tokenizer.save(str(path))


class TransformersEncoder(TorchEncoder):
    """A network of transformers, see the module."""

    max_tokens = 100_000  # where it names no limit
    _values: Tensor | None = None  # see `_find_values`

    def _load(self, checkpoint: Checkpoint) -> Any:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        self._design = checkpoint.digest()
        folder, given = checkpoint.folder, {"trust_remote_code": checkpoint.trusted}
        how: dict[str, Any] = {"dtype": self._dtype, "output_loading_info": True}
        model, found = AutoModel.from_pretrained(folder, **given, **how)
        missing = found["missing_keys"]  # the library makes up random ones
        if bad := [name for name in missing if "pooler" not in name]:
            raise SgmftError(f"The encoder {checkpoint.name} has no weights for {min(bad)}.")
        self._has_pooler, config = not missing, model.config
        if getattr(config, "is_encoder_decoder", False):
            model = model.get_encoder()
        dual = hasattr(model, "get_text_features") and hasattr(model, "get_image_features")
        self.is_dual = self._both = dual
        self._takes = tuple(LINEAR) if dual else INPUTS.get(model.main_input_name, ())
        if "text" in self._takes:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **given)
            text = getattr(config, "text_config", config)
            most = getattr(text, "max_position_embeddings", self.max_tokens)
            for name, x in model.named_modules():
                if name.endswith("position_embeddings") and isinstance(x, nn.Embedding):
                    most -= 0 if x.padding_idx is None else x.padding_idx + 1  # are before a text's
            self.max_tokens = int(min(self.tokenizer.model_max_length, most, self.max_tokens))
            self._padding = "max_length" if config.model_type.startswith(PADDED) else False
            if not self._padding:  # some count positions from the left, those of padding, too
                self.tokenizer.padding_side = "right"
        if "image" in self._takes:  # of the two kinds of processors, that without torchvision
            self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **given)
            self._values = _find_values(self.processor)
            self.cuts_squares = self._values is not None
        self._maps: dict[str, nn.Module | None] = {}
        patch = getattr(getattr(config, "vision_config", config), "patch_size", None)
        self._patch = patch if isinstance(patch, int) else 1
        return model

    def text_features(self, batch: Mapping[str, Tensor], tokens: bool) -> Halves:
        """See `TorchEncoder`."""
        run = self.model.get_text_features if self._both else self.model.forward
        known = inspect.signature(run).parameters
        output = run(**{name: x for name, x in batch.items() if name in known})
        if self._both:
            pooled = output.pooler_output
        else:
            mask = batch["attention_mask"][..., None].to(self._dtype)
            pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
        return pooled, self._map("text", output.last_hidden_state, pooled) if tokens else None

    def prepare_image(self, pixels: Images) -> PreparedImage:
        """See `TorchEncoder`."""
        image = Image.fromarray(pixels)
        if self._values is None:
            return dict(self.processor(images=image, return_tensors="np"))
        return {"pictures": _cut_out(self.processor, image)}

    def image_features(self, images: Mapping[str, Tensor], tokens: bool) -> Halves:
        """See `TorchEncoder`."""
        if self._values is not None:
            pixels = look_up(self._values, images["pictures"])
            images = {"pixel_values": pixels.contiguous().to(self._dtype)}
        output = (self.model.get_image_features if self._both else self.model)(**images)
        pooled = getattr(output, "pooler_output", None) if self._has_pooler else None
        hidden = output.last_hidden_state
        if pooled is None and hidden.ndim == 3:
            patches = math.prod(self._grid(hidden, images))
            pooled = hidden[:, 0] if patches < hidden.shape[1] else hidden.mean(1)
        elif pooled is None or pooled.ndim == 4:
            pooled = (hidden if pooled is None else pooled).mean((2, 3))
        hidden = self._map("image", hidden, pooled) if tokens else None
        return pooled, None if hidden is None else self._regions(hidden, images)

    def _map(self, side: str, hidden: Tensor, pooled: Tensor) -> Tensor | None:
        """Map hidden states (b, n, W) as `__init__` found one to become the pooled feature."""
        if side not in self._maps:
            self._maps[side] = self._find_map(side, hidden, pooled)
        run = self._maps[side]
        return None if run is None else run(hidden)

    def _find_map(self, side: str, hidden: Tensor, pooled: Tensor) -> nn.Module | None:
        parts: dict[str, Any] = dict(self.model.named_modules())
        norm = parts.get("vision_model.post_layernorm", nn.Identity())
        before_it = (nn.Identity(), norm) if side == "image" else (nn.Identity(),)
        for linear in (parts[name] for name in LINEAR[side] if name in parts):
            shape = getattr(getattr(linear, "weight", None), "shape", ())
            for before in before_it if shape == (pooled.shape[-1], hidden.shape[-1]) else ():
                gap = (linear(before(hidden)) - pooled[:, None]).abs().amax(-1).amin(1).max()
                if gap <= 0.01 * pooled.abs().max():
                    return nn.Sequential(before, linear)
        same = hidden.shape[1 if hidden.ndim == 4 else 2] == pooled.shape[1]
        return nn.Identity() if same else None

    def save(self, model: Any, folder: Path) -> None:
        """See `TorchEncoder`."""
        for part in (model, self.tokenizer, self.processor):
            part.save_pretrained(folder)

    def _regions(self, hidden: Tensor, images: Mapping[str, Tensor]) -> Tensor | None:
        """Average patches (b, n, D), or a map (b, D, h, w), to (b, patch_grid², D) if they can."""
        maps = [hidden]  # of all, or for each
        if "spatial_shapes" in images:
            pairs = zip(hidden, images["spatial_shapes"].tolist(), strict=True)
            maps = [x[: h * w].T.unflatten(1, (h, w))[None] for x, (h, w) in pairs]
        elif hidden.ndim == 3:
            h, w = self._grid(hidden, images)
            if not h * w:
                return None
            maps = [hidden[:, -h * w :].transpose(1, 2).unflatten(2, (h, w))]
        pools = [adaptive_avg_pool2d(x, self._patch_grid) for x in maps]
        return torch.cat(pools).flatten(2).transpose(1, 2)

    def _grid(self, hidden: Tensor, images: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return the rows and columns of patches, the last hidden states; 0, 0 if unknown."""
        count, (height, width) = hidden.shape[1], images["pixel_values"].shape[-2:]
        h, w = height // self._patch, width // self._patch
        if h * w > count:  # merged on their way
            h = w = math.isqrt(count) if height == width else 0
        return (h, w) if count - h * w <= EXTRA else (0, 0)


class SentenceTransformersEncoder(TorchEncoder):
    """A model of sentence-transformers, see the module."""

    is_dual = False

    def _load(self, checkpoint: Checkpoint) -> Any:
        from sentence_transformers import SentenceTransformer

        self._design = checkpoint.digest()
        how: dict[str, Any] = {"model_kwargs": {"dtype": self._dtype}, "local_files_only": True}
        how |= {"device": str(self._device), "trust_remote_code": checkpoint.trusted}
        model: Any = SentenceTransformer(checkpoint.folder, **how)
        self._takes = [kind for kind in LINEAR if model.supports(kind)]
        self._joint = len(self._takes) == 2 and model.supports(("image", "text"))
        self._prompt = model.prompts.get(model.default_prompt_name)
        self.tokenizer = getattr(model, "tokenizer", None)
        if not (Path(checkpoint.folder) / "modules.json").is_file():
            warn(f"{checkpoint.name} has no modules.json: texts are the means of their words.")
        # A chat's template is filled in by the tokenizer, which is not for several threads.
        self._lock = Lock() if "message" in model.modalities else nullcontext()
        processor = getattr(model, "processor", None)  # a static model has none
        self.processor = getattr(processor, "image_processor", processor)
        return model

    def _run_texts(self, texts: list[str], tokens: bool) -> Iterator[Batch]:
        # As strings, addresses and paths of pictures would be opened by a model that takes those.
        given = [{"text": text} for text in texts] if "image" in self._takes else texts
        own = None
        output = None if tokens else "sentence_embedding"
        found = self._encode(given, output_value=output, convert_to_numpy=False)
        if tokens and {"token_embeddings", "attention_mask", "input_ids"} <= found[0].keys():
            marks = torch.tensor(self.model.tokenizer.all_special_ids, device=self._device)
            own = []
            for row in found:
                kept = row["attention_mask"].bool() & ~torch.isin(row["input_ids"], marks)
                own.append(row["token_embeddings"][kept if kept.any() else slice(1)])
        pooled = torch.stack([x["sentence_embedding"] if tokens else x for x in found])
        yield [*range(len(texts))], pooled, own

    def prepare_image(self, pixels: Images) -> PreparedImage:
        """See `TorchEncoder`."""
        with self._lock:
            found = self.model.preprocess([{"image": Image.fromarray(pixels)}], prompt=self._prompt)
        self._modality = found["modality"]
        prepared = {name: x.numpy() for name, x in found.items() if isinstance(x, Tensor)}
        return prepared | ({PIXELS: pixels} if self._joint else {})

    @torch.inference_mode()
    def encode_joint(self, texts: Sequence[str], images: Sequence[Sequence[Any]]) -> FloatArray:
        """See `Encoder`, and the module."""
        whole, given = "message" in self.model.modalities, list[list[dict[str, Any]]]()
        for text, some in zip(texts, images, strict=True):
            shown = [Image.fromarray(x[PIXELS] if isinstance(x, dict) else x) for x in some]
            given.append([{"text": text, "image": x} for x in ([shown] if whole else shown)])
        found = self._encode_pairs([*chain.from_iterable(given)])
        parts = found.float().cpu().split([len(some) for some in given])
        return np.stack([x.mean(0).numpy() for x in parts])

    def _encode_pairs(self, pairs: list[dict[str, Any]]) -> Tensor:
        """Encode texts with images; one that is too long for both to be read is halved."""
        try:
            return cast("Tensor", self._encode(pairs, convert_to_tensor=True))
        except ValueError:
            if len(pairs) > 1:
                return torch.cat([self._encode_pairs([pair]) for pair in pairs])
            text, image = pairs[0].values()
            if len(text) < 2:
                raise
            return self._encode_pairs([{"text": text[: len(text) // 2], "image": image}])

    def _encode(self, given: list[Any], **how: Any) -> Any:
        with self._lock:
            how |= {"batch_size": self._batch_size, "show_progress_bar": False}
            return self.model.encode(given, **how)

    def image_features(self, images: Mapping[str, Tensor], tokens: bool) -> Halves:
        """See `TorchEncoder`."""
        return self.model({**images, "modality": self._modality})["sentence_embedding"], None


def _cut_out(processor: Any, image: Image.Image) -> Images:
    """Return the square (1, s, s, 3) of an image that a processor goes on with."""
    found = processor(images=image, do_rescale=False, do_normalize=False, return_tensors="np")
    return np.ascontiguousarray(found["pixel_values"].transpose(0, 2, 3, 1))


def look_up(values: Tensor, pictures: Tensor) -> Tensor:
    """Map pixels (N, s, s, 3) to what a network reads (N, 3, s, s), see `_find_values`."""
    at = pictures.long() + values.shape[1] * torch.arange(3, device=pictures.device)
    return values.to(at.device).flatten()[at].permute(0, 3, 1, 2)


def _find_values(processor: Any) -> Tensor | None:
    """Return what a processor makes of each value of a channel (3, 256); None if it does more."""
    every = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    how = {"do_resize": False, "do_center_crop": False, "return_tensors": "np"}
    with suppress(Exception):  # whatever a processor raises that knows no such steps
        values = processor(images=Image.fromarray(every), **how)["pixel_values"][0, :, 0]
        values = torch.from_numpy(values)
        for image in map(Image.fromarray, (SAMPLE, SAMPLE.transpose(1, 0, 2))):
            found = look_up(values, torch.from_numpy(_cut_out(processor, image))).numpy()
            expected = processor(images=image, return_tensors="np")
            np.testing.assert_equal({"pixel_values": found}, dict(expected))
        return values
    return None


def _gather(count: int, found: Iterator[Batch]) -> Encoded:
    pooled: dict[int, FloatArray] = {}
    tokens: dict[int, FloatArray] = {}
    for rows, features, own in found:
        pooled.update(zip(rows, features.float().cpu().numpy(), strict=True))
        if own is not None:
            tokens.update(zip(rows, (x.float().cpu().numpy() for x in own), strict=True))
    kept = [tokens[i] for i in range(count)] if tokens else None
    return Encoded(np.stack([pooled[i] for i in range(count)]), kept)
