"""The command `sgmft export`: parse, call, print."""

from __future__ import annotations

import sys

from sgmft.options import Model, Output


def export(model: Model, output: Output) -> None:
    """Write a model as ONNX, for `sgmft predict` without PyTorch or for any other runtime."""
    from sgmft.export.folder import export_model
    from sgmft.locator import SemanticLocator

    files = export_model(SemanticLocator.from_pretrained(model), output)
    for path in files:
        print(f"{path.stat().st_size / 1e6:8.1f} MB  {path}", file=sys.stderr)
