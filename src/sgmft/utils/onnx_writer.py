"""Write a network as an ONNX file."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from sgmft.errors import SgmftError
from sgmft.utils.extras import needs_extra
from sgmft.utils.runtime import PARSING


def write_graph(
    module: nn.Module,
    inputs: Mapping[str, tuple[Tensor, int]],
    outputs: Sequence[str],
    path: Path,
    *,
    apart: bool | None = None,
) -> None:
    """Write a module as a graph, for inputs of any length along their first axes.

    Args:
        module: takes the inputs' tensors in their order, returns one tensor per output.
        inputs: name to an example, and how many of its axes are of any length. The example must be
            at least 2 long along them, and no two lengths equal that are so by chance only.
        outputs: names.
        path: whole or not at all.
        apart: whether the weights stand beside it in a file whose name ends in .data; None for
            where they are more than the 2 GB that an ONNX file can hold.

    Raises:
        SgmftError: the packages that it takes are not installed, or the module does something that
            ONNX cannot.
    """
    with needs_extra("torch", "The export of a network"):
        import onnxscript  # noqa: F401
    open_axis = torch.export.Dim.DYNAMIC
    shapes = tuple(dict.fromkeys(range(axes), open_axis) for _, axes in inputs.values())
    tensors = tuple(example.clone() for example, _ in inputs.values())  # one object would be one
    try:
        quiet = warnings.catch_warnings(action="ignore")  # the exporter's, on its own future
        with PARSING, quiet, torch.no_grad(), _quiet_and_plain():
            program = torch.onnx.export(
                _Positional(module),
                tensors,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=(shapes,),
                dynamo=True,
                optimize=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise SgmftError(f"This network cannot be written as ONNX: {reason}") from error
    assert program is not None
    with TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        program.save(Path(folder) / path.name, external_data=apart)
        for file in sorted(Path(folder).iterdir(), reverse=True):  # the graph last
            file.replace(path.with_name(file.name))


@contextmanager
def _quiet_and_plain() -> Iterator[None]:
    """Switch off torch's fused encoder layer, an operation that ONNX does not have, and the
    exporter's warnings of packages that no network here needs.
    """
    log = logging.getLogger("torch.onnx")
    before, level = torch.backends.mha.get_fastpath_enabled(), log.level
    torch.backends.mha.set_fastpath_enabled(False)
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        log.setLevel(level)


class _Positional(nn.Module):
    """A module whose dynamic shapes can be given as one tuple, whatever its arguments' names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> object:
        return self.module(*tensors)
