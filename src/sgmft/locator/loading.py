"""Load a saved or an exported model, whichever a folder holds."""

from pathlib import Path

from sgmft.errors import SgmftError, check_name
from sgmft.locator.onnx.locator import Manifest, OnnxLocator, is_exported
from sgmft.locator.prediction import Predictor
from sgmft.locator.state import REPOSITORY, read_state


def load_predictor(
    model: str, runtime: str | None = None, features: Path | None = None, device: str | None = None
) -> Predictor:
    """Load the model of a folder that `sgmft train` or `export` wrote, or of a hub repository.

    `runtime` is "torch" or "onnx", by default what the folder holds; `features` the folder of a
    feature store, and `device` "cpu", "cuda", ...: an exported model keeps no store and runs on the
    CPU. SgmftError where there is no such model or runtime, or it is damaged.
    """
    if _runtime(model, runtime) == "torch":
        from sgmft.locator.locator import SemanticLocator

        return SemanticLocator.from_pretrained(model, features=features, device=device)
    if device is not None:
        raise SgmftError("An exported model runs on the CPU: leave out --device.")
    return OnnxLocator.load(model)


def check_model(model: str, runtime: str | None = None) -> None:
    """Refuse a folder that holds no whole model, without importing what it takes to load one."""
    if _runtime(model, runtime) == "onnx":
        Manifest.read(Path(model))
    elif not REPOSITORY.fullmatch(model) or Path(model).is_dir():
        read_state(model, {})


def _runtime(model: str, wanted: str | None) -> str:
    runtime = wanted or ("onnx" if is_exported(model) else "torch")
    check_name(runtime, ("torch", "onnx"), "There is no runtime")
    return runtime
