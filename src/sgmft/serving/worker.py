"""What runs in the worker process: the model, and nothing of the web."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from sgmft.data.posts import Attachment, Post
from sgmft.errors import SgmftError
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.utils.signals import SIGNALS, end_with_parent

if TYPE_CHECKING:
    from sgmft.evaluation.explain.explanation import Explanation
    from sgmft.locator.prediction import Predictor

_predictor: Predictor | None = None


@dataclass(frozen=True)
class About:
    """What there is to know of a model.

    Attributes:
        labels: K, in the order of the probabilities.
        runtime: "torch" or "onnx".
        method, preset, encoder: names; None where an exported model does not say.
        metrics: on the posts held out in training.
        held_out: how many posts prediction sets and rejecting rest on.
        explains: whether it can be asked why.
        versions: of what decides its numbers, when it was made.
        pid: of the worker process.
    """

    labels: tuple[str, ...]
    runtime: str
    method: str | None
    preset: str | None
    encoder: str
    metrics: dict[str, float | None]
    held_out: int
    explains: bool
    versions: dict[str, str]
    pid: int


class Asked(NamedTuple):
    """A request's posts and when it wants no label."""

    posts: Sequence[Post]
    rules: Abstention


def prepare() -> None:
    """Leave signals to the parent, and end when it does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def load(model: str, runtime: str | None, device: str | None, rules: Abstention) -> About:
    """Load a model with its encoder, ready to answer.

    Raises:
        SgmftError: there is no such model, it is damaged, or has too few held-out posts for
            `rules`.
    """
    from sgmft.locator.loading import load_predictor

    global _predictor
    found = load_predictor(model, runtime, None, device)
    found.predict([Post("warm", [_grey()])], rules)  # loads what is loaded when first asked for
    _predictor = found
    return _about(found)


def _grey() -> Attachment:
    """A small picture."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(file, "PNG")
    return Attachment(file.getvalue())


def _about(found: Any) -> About:
    from sgmft.locator.onnx.locator import OnnxLocator

    exported = isinstance(found, OnnxLocator)
    return About(
        labels=tuple(found.labels),
        runtime="onnx" if exported else "torch",
        method=None if exported else found.method.name,
        preset=None if exported else found.preset.name,
        encoder=found.encoder.info.name if exported else found.encoder_name,
        metrics={} if exported else dict(found.training.metrics),
        held_out=len(found.held_out),
        explains=not exported,
        versions={} if exported else dict(found.training.versions),
        pid=os.getpid(),
    )


def predict(batch: Sequence[Asked]) -> list[list[Prediction] | str]:
    """Answer several requests at once: predictions without their posts, or why there are none."""
    assert _predictor is not None
    said = list(_predictor.predictions(post for asked in batch for post in asked.posts))
    said = [x._replace(post=Post(error=x.post.error)) for x in said]
    answers: list[list[Prediction] | str] = []
    start = 0
    for asked in batch:
        own = said[start : start + len(asked.posts)]
        start += len(asked.posts)
        try:
            answers.append(_predictor.apply_abstention(own, asked.rules))
        except SgmftError as error:
            answers.append(str(error))
    return answers


def explain(post: Post, label: str | None, rules: Abstention) -> tuple[Prediction, Explanation]:
    """What the model says of a post, and why; raises SgmftError where it cannot say."""
    from sgmft.locator.locator import SemanticLocator

    if not isinstance(_predictor, SemanticLocator):
        raise SgmftError("An exported model cannot explain: serve the one it was made of.")
    prediction = next(_predictor.predictions([post], rules))
    try:
        explanation = _predictor.explain(post, label=label)
    except SgmftError as error:  # its own kind has more to it than a pipe between processes takes
        raise SgmftError(str(error)) from None
    bare = replace(post, images=())
    return prediction._replace(post=bare), replace(explanation, post=bare)
