"""Write networks of torch as ONNX, and heads, from features to calibrated probabilities."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from sgmft.errors import SgmftError, needs_extra
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Batch
from sgmft.locator.onnx.locator import HEAD_OUTPUTS
from sgmft.models.network import Network
from sgmft.utils.runtime import PARSING

POSTS, WORDS, REGIONS = 1_013, 17, 19  # an example's, lengths nothing else has


def write_graph(
    module: nn.Module,
    inputs: Mapping[str, tuple[Tensor, int]],
    outputs: Sequence[str],
    path: Path,
    run: Callable[..., object] | None = None,
) -> None:
    """Write a module as a graph, whole or not at all, for inputs of any length along first axes.

    Inputs of the module, or of a function `run` of it, are by name and in order an example and how
    many of its axes are of any length, at least 2 along them, no two equal by chance. Weights of
    more than the 2 GB that an ONNX file can hold stand beside it, in `path`.data. SgmftError where
    its packages are not installed, or the module does what ONNX cannot.
    """
    with needs_extra("torch", "The export of a network"):
        import onnxscript  # noqa: F401
    open_axis = torch.export.Dim.DYNAMIC
    shapes = tuple(dict.fromkeys(range(axes), open_axis) for _, axes in inputs.values())
    tensors = tuple(example.clone() for example, _ in inputs.values())  # one object would be one
    how: dict[str, Any] = {"dynamo": True, "optimize": True, "verbose": False}
    how |= {"input_names": list(inputs), "output_names": list(outputs), "dynamic_shapes": (shapes,)}
    try:
        quiet = warnings.catch_warnings(action="ignore")  # the exporter's, on its own future
        with PARSING, quiet, torch.no_grad(), _quiet_and_plain():
            program: Any = torch.onnx.export(_Positional(module, run or module), tensors, **how)
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise SgmftError(f"This network cannot be written as ONNX: {reason}") from error
    with TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        program.save(Path(folder) / path.name)
        for file in sorted(Path(folder).iterdir(), reverse=True):  # the graph last
            file.replace(path.with_name(file.name))


@contextmanager
def _quiet_and_plain() -> Iterator[None]:
    """Switch off torch's fused encoder layer, which ONNX does not have, and exporter's warnings."""
    log, mha = logging.getLogger("torch.onnx"), torch.backends.mha
    with ExitStack() as stack:
        stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        stack.callback(log.setLevel, log.level)
        mha.set_fastpath_enabled(False)
        log.setLevel(logging.ERROR)
        yield


class _Positional(nn.Module):
    """A module whose dynamic shapes can be given as one tuple, whatever its arguments' names."""

    def __init__(self, module: nn.Module, run: Callable[..., object]) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *tensors: Tensor) -> object:
        return self.run(*tensors)


def write_head(
    network: Network, temperatures: Sequence[float], info: EncoderInfo, tokens: bool, path: Path
) -> None:
    """Write a head; the graph's inputs are those fields of `Batch` that the network reads."""
    network = deepcopy(network).cpu().eval()
    B, n, m = POSTS, WORDS, REGIONS
    has, words, regions = (torch.ones(x, dtype=torch.bool) for x in (B, (B, n), (B, m)))
    given = Batch(torch.rand(B, info.text_width), torch.rand(B, info.image_width), has, has)
    if tokens:
        texts, images = torch.rand(B, n, info.word_width), torch.rand(B, m, info.image_width)
        given = Batch(*given[:4], texts, words, images, regions, regions.long())
    if A := network.config.attributes_width:
        given = given._replace(attributes=torch.rand(B, A))
    known = {name: x for name, x in given._asdict().items() if x is not None}
    # posts are of any number, and of words and regions, too
    inputs = {x: (y, 1 + x.startswith(("text_", "image_"))) for x, y in known.items()}
    write_graph(Head(network, temperatures, list(inputs)), inputs, HEAD_OUTPUTS, path)


class Head(nn.Module):
    """A network, which reads the `fields` of a `Batch`, and the temperatures of its logits."""

    def __init__(self, network: Network, temperatures: Sequence[float], fields: list[str]) -> None:
        super().__init__()
        self.network, self.fields = network, fields
        self.register_buffer("temperatures", torch.tensor(temperatures))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Fields of a batch to probabilities (B, K) and relative guidance entropies (B, 2)."""
        batch = Batch(**dict(zip(self.fields, tensors, strict=True)))
        output = self.network(batch)
        temperature = self.get_buffer("temperatures")[batch.has_text.long() + 2 * batch.has_image]
        probabilities = (output.logits / temperature[:, None]).softmax(-1)
        if output.guidance is None:
            return probabilities, torch.full_like(probabilities[:, :2], torch.nan)
        return probabilities, torch.stack(tuple(output.guidance), 1)
