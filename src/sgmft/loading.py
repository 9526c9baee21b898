"""A saved or an exported model, whichever a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sgmft.errors import SgmftError
from sgmft.runtime.manifest import is_exported

if TYPE_CHECKING:
    from sgmft.prediction import Predictor


def load_predictor(
    model: str,
    runtime: str | None = None,
    features: Path | None = None,
    device: str | None = None,
) -> Predictor:
    """What predicts as a folder's model does.

    Args:
        model: a folder that `sgmft train` or `sgmft export` wrote, or a hub repository.
        runtime: "torch" or "onnx"; None is what the folder holds.
        features: folder of a feature store; an exported model keeps none.
        device: "cpu", "cuda", ...; an exported model runs on the CPU.

    Raises:
        SgmftError: there is no such model or runtime, or the model is damaged.
    """
    runtime = runtime or ("onnx" if is_exported(model) else "torch")
    if runtime == "torch":
        from sgmft.locator import SemanticLocator

        return SemanticLocator.from_pretrained(model, features=features, device=device)
    if runtime != "onnx":
        raise SgmftError(f"There is no runtime {runtime!r}: use torch or onnx.")
    if device is not None:
        raise SgmftError("An exported model runs on the CPU: leave out --device.")
    from sgmft.runtime import OnnxLocator

    return OnnxLocator.load(model)
