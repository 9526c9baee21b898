"""MLflow's flavour of a locator: a logged model names this module, which loads it."""

import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sgmft.data.frames import to_posts
from sgmft.errors import SgmftError, needs_extra
from sgmft.locator.abstention import Abstention
from sgmft.locator.loading import load_predictor
from sgmft.locator.prediction import OutputColumns, Predictor


def log_model(locator: Any, name: str = "model", **options: Any) -> Any:
    """Log a model with signature, example and requirements, and return MLflow's `ModelInfo`.

    The model is the files that `save_pretrained` writes, without pickle. As `mlflow.pyfunc` loads
    it, it predicts a DataFrame as `predict_frame` does, but follows no path, since requests come
    from anyone: pictures are data: addresses, Base64 or bytes. `locator` is a trained one, or the
    folder of a saved or exported one, and `options` are others of `mlflow.pyfunc.log_model`.
    """
    return _write("log_model", locator, {"name": name} | options)


def save_model(locator: Any, path: str | Path, **options: Any) -> None:
    """Write to a new folder what `log_model` logs."""
    _write("save_model", locator, {"path": str(path)} | options)


def _write(way: str, locator: Any, options: dict[str, Any]) -> Any:
    with needs_extra("mlflow", "sgmft.mlflow"):
        from mlflow import models, pyfunc
        from mlflow.types.schema import AnyType, ColSpec, Schema
        from pandas import DataFrame
    model: Any = locator if isinstance(locator, Predictor) else load_predictor(str(locator))
    # Any type: MLflow would refuse a request where one row has no list of pictures.
    known = dict.fromkeys(("text", "image", "images", "time", *model.attributes.names))
    given = [ColSpec(AnyType(), x, False) for x in known]
    added = OutputColumns.of((), model.labels, Abstention()).types({}).items()
    found = [ColSpec(str(kind), name, False) for name, kind in added]
    picture = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    extras = "mlflow,torch" if model.encoder and "torch" in sys.modules else "mlflow"
    with TemporaryDirectory() as folder:
        path = f"{folder}/model" if model is locator else str(locator)
        if model is locator:
            model.save_pretrained(path)
        own: dict[str, Any] = {"loader_module": __name__, "data_path": path}
        own["signature"] = models.ModelSignature(Schema(given), Schema(found))
        own["input_example"] = DataFrame({"text": ["做完饭了"], "images": [[picture]]})
        own["pip_requirements"] = [f"sgmft[{extras}]=={version('sgmft')}"]
        return getattr(pyfunc, way)(**own | options)


class LoggedModel:
    """A locator as MLflow calls it."""

    def __init__(self, path: str) -> None:
        self.locator = load_predictor(path)

    def predict(self, frame: Any, params: Any = None) -> Any:
        """Return the columns of `predict_frame`."""
        if not len(frame.columns):  # as MLflow leaves others out
            raise SgmftError("Posts need a column text, image or images.")
        found = self.locator.predict_frame(to_posts(frame, root=False))
        return type(frame)(found, frame.index, dtype=object)  # None, not NaN, which is no JSON


_load_pyfunc = LoggedModel  # called by MLflow
