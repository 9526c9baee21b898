"""Networks, trained in epochs, and the layers that several of them have."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from sgmft.errors import TEXTS, SgmftError
from sgmft.features.features import Batch
from sgmft.features.ragged import Ragged
from sgmft.models.base import Guidance, NetworkConfig, Output, mean_and_divisor
from sgmft.utils.distributed import BatchCrossEntropy


def layer_config(width: int, heads: int, hidden: int, dropout: float = 0.1) -> Any:
    """The shape of BridgeTower layers for `transformers`: post-norm, GELU, bridges that add."""
    from transformers import BridgeTowerTextConfig  # takes seconds: only who needs it waits

    # the one kind of attention that every supported version has for these layers
    settings: dict[str, Any] = {"attn_implementation": "eager", "link_tower_type": "add"}
    settings |= {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": hidden}
    settings |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BridgeTowerTextConfig(**settings)


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Make of a mask (B, m), True where a key is real, one to add to scores, (B, 1, 1, m)."""
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]


class CrossModalLayer(nn.Module):
    """BridgeTower's cross-modal layer (Xu et al. 2023), one set of weights for each stream.

    Self-attention, cross-attention to the other stream, feed-forward block (`hidden` wide), each
    followed by residual and LayerNorm. Both streams are updated from the same inputs.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.1) -> None:
        from transformers.models.bridgetower.modeling_bridgetower import BridgeTowerBertCrossLayer

        super().__init__()
        config = layer_config(width, heads, hidden, dropout)
        self.text, self.image = (BridgeTowerBertCrossLayer(config) for _ in "tv")

    def forward(
        self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both streams, (B, n, D) and (B, m, D); masks are True where a token is real."""
        words = additive_mask(text_mask, text.dtype)
        regions = additive_mask(image_mask, image.dtype)
        x = self.text(text, image, attention_mask=words, encoder_attention_mask=regions)[0]
        y = self.image(image, text, attention_mask=regions, encoder_attention_mask=words)[0]
        return x, y


def lookup(vocabulary: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return places of numbers x in a vocabulary (V,), ascending, V >= 1, and which are known."""
    if torch.compiler.is_exporting():
        place = _bisect(vocabulary, x)
    else:
        place = torch.searchsorted(vocabulary, x).clamp(max=len(vocabulary) - 1)
    return place, vocabulary[place] == x


def _bisect(vocabulary: Tensor, x: Tensor) -> Tensor:
    """The last place whose number is at most x, or 0: log2 V gathers, since ONNX has no search."""
    size = len(vocabulary)
    place = torch.zeros_like(x, dtype=torch.long)
    step = 1 << (size - 1).bit_length()
    while step := step // 2:
        ahead = place + step
        reached = (ahead < size) & (vocabulary[ahead.clamp(max=size - 1)] <= x)
        place = torch.where(reached, ahead, place)
    return place


# Both are called with x (B, n, D), and masks that are True where there is no token.
# x = LN(x + SA(x)); x = LN(x + FFN(x)), FFN = GELU(x W1 + b1) W2 + b2
self_attention_layer = partial(nn.TransformerEncoderLayer, activation="gelu", batch_first=True)
# mPLUG's asymmetric co-attention, x = LN(x + CA(x, V)) before the FFN; V (B, m, D) is read only
asymmetric_layer = partial(nn.TransformerDecoderLayer, activation="gelu", batch_first=True)


def classifier(
    width: int, classes: int, hidden: Sequence[int] = (512, 256, 128, 64), dropout: float = 0.1
) -> nn.Sequential:
    """Layers with ReLU and dropout between, (B, width) to (B, classes): eq. 18, no softmax."""
    sizes = (width, *hidden)
    blocks = ((nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)) for a, b in pairwise(sizes))
    return nn.Sequential(*chain.from_iterable(blocks), nn.Linear(sizes[-1], classes))


Scale = Literal["none", "unit", "standard"]
Losses = Iterator[Tensor]  # scalars; each is stepped on before the next is made
Tokens = Ragged | None  # of words or regions; None without token features


class Normalizer(nn.Module):
    """Feature scale: as the encoder gives it, unit length, or standardised on the training set."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, kind: Scale) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def fit(self, x: Ragged) -> None:
        """Take mean and standard deviation from real training features (N, width)."""
        if self.kind == "standard" and len(x) > 1:
            mean, deviation = mean_and_divisor(x)
            self.mean.copy_(torch.from_numpy(mean))
            self.deviation.copy_(torch.from_numpy(deviation))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, rescaled over the last axis."""
        if self.kind == "unit":
            return nn.functional.normalize(x, dim=-1)
        return (x - self.mean) / self.deviation if self.kind == "standard" else x


class ModalityInput(nn.Module):
    """One modality's way in.

    One learned, unmasked null token stands in for a missing modality, and the same vector for its
    pooled feature; masking every key would make a softmax undefined. Pooled and token features of
    one width are taken to D by one linear map, or by none; of two widths, by one map each.
    """

    def __init__(
        self,
        source: int,  # the encoder's width of pooled features
        width: int,  # the model's D
        projected: bool = True,  # whether a learned linear map takes source to D
        scale: Scale = "standard",
        tokens: bool = False,  # whether token features come in
        max_images: int = 0,  # of one post that have an index of their own; 0 for the text
        token_source: int = 0,  # the encoder's width of one token; 0 for the same as `source`
        pooled: bool = True,  # whether pooled features come in
    ) -> None:
        super().__init__()
        token_source = token_source or source
        separate = tokens and token_source != source
        self.pooled_scale = Normalizer(source, scale)
        self.token_scale = Normalizer(token_source, scale) if tokens else None
        self.reads_pooled = pooled
        used = projected and (pooled or not separate)
        self.project = nn.Linear(source, width) if used else nn.Identity()
        self.project_tokens = nn.Linear(token_source, width) if separate else None
        self.null = nn.Parameter(torch.randn(width) * width**-0.5)
        self.index = nn.Embedding(max_images, width) if max_images and tokens else None
        if self.index is not None:
            nn.init.zeros_(self.index.weight)

    def fit(self, pooled: Ragged, tokens: Ragged | None) -> None:
        """Take the scales from training features (N, source) and tokens (M, token_source)."""
        self.pooled_scale.fit(pooled)
        if self.token_scale is not None and tokens is not None:
            self.token_scale.fit(tokens)

    def pooled(self, x: Tensor, present: Tensor) -> Tensor:
        """(B, source) -> (B, D), the null vector where absent."""
        if not self.reads_pooled:
            raise ValueError("this model was built without pooled features")
        return torch.where(present[:, None], self.project(self.pooled_scale(x)), self.null)

    def tokens(
        self, x: Tensor | None, mask: Tensor | None, present: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, n, token_source), mask -> (B, n, D), mask, the null token first where absent."""
        if self.token_scale is None:
            raise ValueError("this model was built without token features")
        if x is None or mask is None:
            raise SgmftError(TEXTS["pooled only"])
        project = self.project if self.project_tokens is None else self.project_tokens
        tokens = project(self.token_scale(x))
        if self.index is not None and index is not None:
            tokens = tokens + self.index(index.clamp(max=self.index.num_embeddings - 1))
        mask = mask & present[:, None]
        first = torch.zeros_like(mask)
        first[:, 0] = ~mask.any(1)
        tokens = torch.where(first[..., None], self.null, tokens)
        return tokens * (mask | first)[..., None], mask | first


class Network(nn.Module, ABC):
    """A network that `sgmft.training.trainer` can train, and `sgmft.locator.locator` can save."""

    config: NetworkConfig
    uses_ngrams: bool = False  # whether its batches must have n-grams

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def measure(cls, words: Ragged | None) -> dict[str, int]:
        """Fields of the config that the training posts decide, from their word features (., Dw)."""
        return {}

    def prepare(self, text: Ragged, image: Ragged, words: Tokens, regions: Tokens) -> None:
        """Take scales, vocabulary and the like from the training features.

        Pooled ones are of the texts (N, Dt) and of the posts with images (M, Dv) there are, tokens
        (., Dw) and (., Dv) are all, if any. None need fit into memory; see `Ragged`.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""

    def loss(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Tensor:
        """The scalar that training minimises; `criterion` is the cross-entropy of equation 19.

        With several processes, output and labels are those of this one's posts. The criterion is
        of all processes' posts; whatever else compares posts gets them by `criterion.gather`.
        """
        return criterion(output.logits, labels)

    def losses(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Losses:
        """Yield what each step of the optimizer on a batch minimises; by default one, `loss`."""
        yield self.loss(output, labels, criterion)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The weights that are trained, by learning rate, as torch's optimizers take them."""
        return [{"params": [x for x in self.parameters() if x.requires_grad], "lr": learning_rate}]

    @property
    def parameter_count(self) -> int:
        """See `sgmft.models.base.Model`."""
        return sum(x.numel() for x in self.parameters() if x.requires_grad)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> Output:
        """See `sgmft.models.base.Model`; the network is in evaluation mode afterwards."""
        self.eval()
        output: Output = self(batch.to(next(iter(self.state_dict().values())).device))
        found = *output[:2], *(output.guidance or ())
        logits, fused, *guidance = (x.float().cpu().numpy() for x in found)
        return Output(logits, fused, Guidance(*guidance) if guidance else None)

    def save(self, path: Path) -> None:
        """See `sgmft.models.base.Model`."""
        save_model(self, str(path))

    def load(self, path: Path) -> None:
        """See `sgmft.models.base.Model`."""
        load_model(self, str(path))


class BimodalNetwork(Network):
    """A network whose modalities come in through a `ModalityInput` each, made of `inputs`."""

    def __init__(self, c: NetworkConfig, width: int, *, max_images: int = 16, **inputs: Any):
        super().__init__(c)
        self.text = ModalityInput(c.text_width, width, token_source=c.word_width, **inputs)
        self.image = ModalityInput(c.image_width, width, max_images=max_images, **inputs)

    def prepare(self, text: Ragged, image: Ragged, words: Tokens, regions: Tokens) -> None:
        """Take the feature scales; see `Network.prepare`."""
        self.text.fit(text, words)
        self.image.fit(image, regions)

    def pooled_inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pooled features of text and image, each (B, D)."""
        image = self.image.pooled(batch.image, batch.has_image)
        return self.text.pooled(batch.text, batch.has_text), image

    def token_inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Words (B, n, D) and regions (B, m, D), a null token for none; masks, True where real."""
        text, text_mask = self.text.tokens(batch.text_tokens, batch.text_mask, batch.has_text)
        regions = batch.image_tokens, batch.image_mask, batch.has_image, batch.image_index
        image, image_mask = self.image.tokens(*regions)
        return text, image, text_mask, image_mask
