"""The image networks of `compact` and `cnn` as one ONNX graph: pixels to pooled features, regions.

Scaling an image and pooling regions are linear maps of fixed sizes, so that the graph holds them
as matrices: runtimes differ in how they scale, and these are torch's. Exported models hold this
graph, and on a CPU with ONNX Runtime the encoders themselves run it, which takes about half the
time (docs/results.md).
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from sgmft.errors import SgmftError
from sgmft.features.encoders.base import IMAGE_OUTPUTS
from sgmft.features.encoders.efficientnet import IMAGE_SIZE, MEAN, NETWORKS, STD, EfficientNetLite
from sgmft.utils.checksums import file_digest, short_digest
from sgmft.utils.files import cache_folder, write_whole
from sgmft.utils.onnx_session import Session
from sgmft.utils.onnx_writer import write_graph


class ImageGraph(nn.Module):
    """Both networks; see the module. `patch_grid` is the encoder's."""

    def __init__(self, patch_grid: int) -> None:
        super().__init__()
        cpu, sizes = torch.device("cpu"), NETWORKS.values()
        lite = (EfficientNetLite(*each, cpu, torch.float32) for each in NETWORKS.items())
        self.networks = nn.ModuleList(
            one.network.to(memory_format=torch.contiguous_format) for one in lite
        )
        self.scales = nn.ParameterList(map(scaling, sizes))
        self.regions = nn.ParameterList(pooling(math.ceil(x / 32), patch_grid) for x in sizes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map RGB images (N, 260, 260, 3), uint8, to pooled (N, 2560) and regions (N, r, 2560)."""
        pixels = images.permute(0, 3, 1, 2).float()
        networks: list[Any] = list(self.networks)
        maps = []
        for network, scale in zip(networks, self.scales, strict=True):
            scaled = pixels
            if len(scale) != IMAGE_SIZE:
                scaled = (scale @ pixels @ scale.T).clamp(0, 255)
            features: Tensor = network.extract_features((scaled - MEAN) / STD)
            maps.append(features.flatten(2))  # (N, 1280, h²)
        pooled = torch.cat([x.mean(2) for x in maps], -1)
        grids = [part @ x.mT for part, x in zip(self.regions, maps, strict=True)]
        return pooled, torch.cat(grids, -1)


def scaling(size: int) -> Tensor:
    """Return the matrix (size, 260) that scales a column of an image to `size` pixels, bicubic."""
    unit = torch.eye(IMAGE_SIZE)[None, None]
    return interpolate(unit, (size, IMAGE_SIZE), mode="bicubic", antialias=True)[0, 0]


def pooling(side: int, grid: int) -> Tensor:
    """Return the matrix (grid², side²) that averages a map of side² pixels over its regions."""
    unit = torch.eye(side * side).unflatten(1, (1, side, side))
    return adaptive_avg_pool2d(unit, grid).flatten(1).T.contiguous()


def write_image_graph(patch_grid: int, path: Path) -> None:
    """Write the graph as a file."""
    example = torch.zeros(3, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    inputs = {"pictures": (example, 1)}
    write_graph(ImageGraph(patch_grid).eval(), inputs, IMAGE_OUTPUTS, path)


def can_run() -> bool:
    """Return whether the packages that write a graph and run it are installed."""
    return all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def open_image_graph(patch_grid: int, keys: Sequence[str], threads: int) -> Session:
    """Open the graph in the user's cache, or else write it there, which takes ten seconds or so.

    Args:
        keys: of the networks.
        threads: of one run.
    """
    parts = repr((*keys, patch_grid, version("torch"), version("onnxruntime")))
    name = f"pictures-{short_digest(parts.encode())}.onnx"
    path = cache_folder() / "graphs" / name
    digest = path.with_suffix(".sha256")
    with suppress(OSError, ValueError, SgmftError):  # none yet, or a damaged one
        if digest.read_text("ascii") == file_digest(path):
            return Session(path, threads)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image_graph(patch_grid, path)
        write_whole(digest, file_digest(path).encode())
        return Session(path, threads)
    except OSError:  # the cache cannot be written: for this process only
        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            write_image_graph(patch_grid, path)
            return Session(path, threads)
