"""The worker process: it holds the model, and knows nothing of the web."""

import io
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from PIL import Image

from sgmft.data.posts import Attachment, Post
from sgmft.errors import SgmftError
from sgmft.evaluation.explain.explanation import Explanation
from sgmft.jobs.predict import ModelFolder
from sgmft.locator.abstention import Abstention
from sgmft.locator.onnx.locator import OnnxLocator
from sgmft.locator.prediction import Prediction, Predictor
from sgmft.models.registry import load_plugin
from sgmft.serving.responses import ServedModel
from sgmft.utils.runtime import SIGNALS, end_with_parent

_predictor: Predictor | None = None


class WorkItem(NamedTuple):
    """The posts of one request, and when their labels are withheld."""

    posts: Sequence[Post]
    rules: Abstention


def start_worker(plugins: Sequence[str]) -> None:
    """Leave signals to the parent process, and end when it does; load its plugins."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    for plugin in plugins:
        load_plugin(plugin)


def load_served_model(model: ModelFolder, rules: Abstention) -> tuple[ServedModel, int]:
    """Load a model with its encoder; return facts about it, and the number of this process."""
    global _predictor
    found = model.load()
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(picture, "PNG")
    found.predict([Post("warm", [Attachment(picture.getvalue())])], rules)  # loads what is lazy
    _predictor = found
    own: Any = found  # the two kinds share no attributes for what follows
    if isinstance(found, OnnxLocator):
        facts: dict[str, Any] = {"runtime": "onnx", "encoder": own.encoder.info.name}
        facts |= {"method": None, "preset": None, "metrics": {}, "versions": {}, "explains": False}
    else:
        facts = {"runtime": "torch", "encoder": own.encoder_name, "explains": True}
        facts |= {"method": own.method.name, "preset": own.preset.name}
        facts |= {"metrics": own.training.metrics, "versions": own.training.versions}
    facts |= {"labels": found.labels, "held_out": len(found.held_out), "traits": found.traits}
    return ServedModel(attributes=own.attributes.names, **facts), os.getpid()


def predict_items(items: Sequence[WorkItem]) -> list[list[Prediction] | str]:
    """Predict several requests together: predictions without their posts, or why there are none."""
    assert _predictor is not None
    found = list(_predictor.predictions(post for item in items for post in item.posts))
    bare = iter([x._replace(post=Post(error=x.error, warnings=x.post.warnings)) for x in found])
    results: list[list[Prediction] | str] = []
    for item in items:
        own = list(islice(bare, len(item.posts)))
        try:
            results.append(_predictor.apply_abstention(own, item.rules))
        except SgmftError as error:
            results.append(str(error))
    return results


def explain_item(item: WorkItem, label: str | None) -> tuple[Prediction, Explanation]:
    """Predict the only post of an item and explain it; SgmftError where that is not possible."""
    from sgmft.locator.locator import SemanticLocator

    if not isinstance(_predictor, SemanticLocator):
        raise SgmftError("An exported model cannot explain: serve the one it was made of.")
    (post,) = item.posts
    prediction = next(_predictor.predictions([post], item.rules))
    try:
        explanation = _predictor.explain(post, label=label)
    except SgmftError as error:  # subclasses need not survive the pipe between processes
        raise SgmftError(str(error)) from None
    bare, explained = (replace(x.post, images=()) for x in (prediction, explanation))
    return prediction._replace(post=bare), replace(explanation, post=explained)
