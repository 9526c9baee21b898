"""The encoders `compact` and `cnn`: images by EfficientNet-Lite, texts apart."""

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from sgmft.data.preprocessing.text import get_cleaning
from sgmft.features.encoders.base import (
    ClassifierHeads,
    Encoded,
    EncoderInfo,
    FloatArray,
    Images,
    TextEncoder,
)
from sgmft.features.encoders.batches import encode_image_batches, graph_runner
from sgmft.features.encoders.device import pick_batch, pick_device, pick_dtype
from sgmft.features.encoders.efficientnet import (
    IMAGE_SIZE,
    IMAGE_WIDTH,
    NETWORKS,
    EfficientNetLite,
    imagenet_names,
)
from sgmft.features.encoders.image_graph import can_run, open_image_graph
from sgmft.utils.checksums import short_digest
from sgmft.utils.onnx_session import Session

IMAGE_BYTES = 16 << 20  # the widest layers of an image, in float32


class ImageEncoder:
    """An encoder of images by EfficientNet-Lite, and of texts by `text_encoder`.

    Args:
        name: of the encoder.
        text_encoder: of its texts.
        patch_grid: regions form a grid of so many rows and columns; 4 gives 16 an image.
        batch_size: images in one forward pass; by default 8 on a CPU, and on a GPU up to 128, as
            memory allows.
        device: a torch device; by default a GPU if there is one.
        dtype: "bfloat16" or "float32" for torch; by default ONNX Runtime on a CPU where it is
            installed, and else whichever the hardware computes natively.
    """

    def __init__(
        self,
        name: str,
        text_encoder: TextEncoder,
        *,
        patch_grid: int = 4,
        batch_size: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        self.text_encoder = text_encoder
        self.patch_grid = patch_grid
        where = pick_device(device)
        self._batch_size = batch_size or pick_batch(where, IMAGE_BYTES, 8)
        self._runs_graph = dtype is None and where.type == "cpu" and can_run()
        precision: torch.dtype = getattr(torch, dtype) if dtype else pick_dtype(where)
        self._networks = [
            EfficientNetLite(number, size, where, precision) for number, size in NETWORKS.items()
        ]
        keys = [network.key for network in self._networks]
        computed = "onnxruntime" if self._runs_graph else str(precision)
        image_key = f"{' + '.join(keys)}, {computed}, {patch_grid}"
        versions = [version(package) for package in text_encoder.packages]
        parts = [
            f"{name}-2",
            image_key,
            repr(get_cleaning(text_encoder.cleaning)),
            text_encoder.max_words,
            *versions,
        ]
        self.info = EncoderInfo(
            name=name,
            fingerprint=short_digest(repr(parts).encode()),
            text_width=text_encoder.width,
            image_width=IMAGE_WIDTH,
            shared_space=False,
            logit_scale=None,
            image_size=IMAGE_SIZE,
            cleaning=text_encoder.cleaning,
            image_key=image_key,
            word_width=text_encoder.word_width,
            texts_apart=True,  # they are NumPy's
        )

    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode texts by the text encoder."""
        return self.text_encoder.encode(texts, tokens)

    def encode_images(self, images: Images, tokens: bool) -> Encoded:
        """Map RGB images (N, 260, 260, 3) to pooled (N, 2560) and regions (patch_grid², 2560).

        Each network's last feature map is averaged over the whole image, and over each region of
        a grid of `patch_grid` by `patch_grid`.
        """

        def run(some: Images) -> Sequence[FloatArray]:  # opens the graph where there are images
            if self._runs_graph:
                return graph_runner(self._graph, tokens)(some)
            return self._network_runner(tokens)(some)

        return encode_image_batches(images, self._batch_size, IMAGE_WIDTH, tokens, run)

    @cached_property
    def _graph(self) -> Session:
        keys = [network.key for network in self._networks]
        return open_image_graph(self.patch_grid, keys, torch.get_num_threads())

    def _network_runner(self, tokens: bool) -> Callable[[Images], list[FloatArray]]:
        """Return the `run` of `encode_image_batches` where torch computes."""

        @torch.inference_mode()
        def run(images: Images) -> list[FloatArray]:
            maps = [network.maps(images) for network in self._networks]  # (b, 1280, h, h)
            outputs = [torch.cat([x.mean((2, 3)) for x in maps], -1)]
            if tokens:
                grids = [adaptive_avg_pool2d(x, self.patch_grid).flatten(2) for x in maps]
                outputs.append(torch.cat(grids, 1).transpose(1, 2))
            return [x.cpu().numpy() for x in outputs]

        return run

    def class_heads(self) -> ClassifierHeads:
        """Return the published heads of both networks for the 1,000 classes of ImageNet."""
        heads = [network.head() for network in self._networks]
        weight, bias = (np.stack(part) for part in zip(*heads, strict=True))
        return ClassifierHeads(weight, bias, imagenet_names())
