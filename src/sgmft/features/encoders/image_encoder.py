"""The encoders `compact` and `cnn`: images by EfficientNet-Lite, texts apart."""

from functools import cached_property
from importlib.metadata import distributions, version

from sgmft.data.preprocessing.text import get_cleaning
from sgmft.errors import warn
from sgmft.features.encoders import image_graph
from sgmft.features.encoders.base import Encoded, EncoderInfo, Images, TextEncoder
from sgmft.features.encoders.batches import encode_image_batches, pick_batch, pick_device
from sgmft.utils.checksums import short_digest
from sgmft.utils.onnx_session import Session
from sgmft.utils.runtime import thread_count

IMAGE_BYTES = 16 << 20  # the widest layers of an image, in float32


class ImageEncoder:
    """An encoder of images by EfficientNet-Lite, and of texts by `text_encoder`."""

    class_heads = staticmethod(image_graph.load_class_heads)

    def __init__(
        self,
        name: str,
        text_encoder: TextEncoder,
        *,
        patch_grid: int = 4,  # regions form a grid of so many rows and columns: 16 an image
        # images in one forward pass; by default 8 on a CPU, on a GPU up to 64, as memory allows
        batch_size: int | None = None,
        # "cpu", or a GPU, which needs onnxruntime-gpu; by default a GPU where that is installed.
        # Without it, the CPU is used, with a warning where a GPU was asked for.
        device: str | None = None,
    ) -> None:
        self.text_encoder, self.encode_texts = text_encoder, text_encoder.encode
        self.patch_grid = patch_grid
        self._on_gpu = device != "cpu" and any(distributions(name="onnxruntime-gpu"))
        if device not in (None, "cpu") and not self._on_gpu:
            pick_device(device)  # it may be of a network behind the encoder, if there is one at all
            warn(f"{name} computes on the CPU, not on {device}: pip install onnxruntime-gpu.")
        self._batch_size = batch_size or pick_batch("cpu", IMAGE_BYTES, 64 if self._on_gpu else 8)
        computed = "onnxruntime" + " on a GPU" * self._on_gpu
        image_key = f"{' + '.join(image_graph.network_keys())}, {computed}, {patch_grid}"
        versions = [version(package) for package in text_encoder.packages]
        texts = repr(get_cleaning(text_encoder.cleaning)), text_encoder.max_words
        parts = [f"{name}-2", image_key, *texts, *versions]
        self.info = EncoderInfo(
            name=name,
            fingerprint=short_digest(repr(parts).encode()),
            text_width=text_encoder.width,
            image_width=image_graph.IMAGE_WIDTH,
            image_size=image_graph.IMAGE_SIZE,
            cleaning=text_encoder.cleaning,
            image_key=image_key,
            word_width=text_encoder.word_width,
            texts_apart=True,  # they are NumPy's
        )

    def encode_images(self, images: Images, tokens: bool) -> Encoded:
        """Map RGB images (N, 260, 260, 3) to means: pooled (N, 2560), regions (grid², 2560)."""
        how = self._batch_size, image_graph.IMAGE_WIDTH, tokens
        return encode_image_batches(images, *how, lambda: self._graph)

    @cached_property
    def _graph(self) -> Session:
        return image_graph.open_image_graph(self.patch_grid, thread_count(), self._on_gpu)
