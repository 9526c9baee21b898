"""What scikit-learn and pickle ask of a classifier; neither's estimators are imported."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from huggingface_hub import ModelHubMixin
from numpy.typing import NDArray

from sgmft.data.frames import to_cell
from sgmft.data.posts import BAD_LABEL, Post
from sgmft.data.source import soften
from sgmft.data.tables.cells import NO_LABEL, says_nothing, to_label
from sgmft.errors import TEXTS, SgmftError, check_name, raising
from sgmft.features.encoder_handle import EncoderHandle
from sgmft.locator.prediction import Predictor


class Estimator(EncoderHandle, Predictor, ModelHubMixin):
    """Parameters as they were given, classes, score and pickling of a `SemanticLocator`."""

    given: dict[str, Any]  # arguments of the constructor

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return dict(self.given)

    def set_params(self, **params: Any) -> Self:
        """Replace arguments of the constructor; what was learned is forgotten."""
        for name in params:
            check_name(name, self.given, "SemanticLocator has no parameter")
        self.__init__(**self.given | params)  # type: ignore[misc]
        return self

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels as they were given to `fit`, in the order of the probabilities."""
        if not self.labels:
            raise AttributeError("This SemanticLocator is not fitted: it has no classes_.")
        return np.array([self.values.get(label, label) for label in self.labels])

    def score(self, posts: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy on labelled posts, or on `y`; one that cannot be read is wrong."""
        read = with_labels([*self._read(posts, y is None)], y, sample_weight)[0]
        if unlabelled := sum(post.label is None for post in read):
            raise SgmftError(f"{unlabelled} of {len(read)} posts have no label to score against.")
        right = [x.label == x.post.label for x in self.predictions(read)]
        return float(np.average(right, weights=sample_weight))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        given = InputTags(two_d_array=False, string=True, dict=True, allow_nan=True)
        target = TargetTags(required=False, one_d_labels=True)
        return Tags("classifier", target, classifier_tags=ClassifierTags(), input_tags=given)

    def __sklearn_is_fitted__(self) -> bool:
        return bool(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        """Return the parameters and, of a trained one, the files that `save_pretrained` writes."""
        with TemporaryDirectory() as folder:
            if self.labels:
                self.save_pretrained(folder)
            found = filter(Path.is_file, Path(folder).rglob("*"))
            files = {x.relative_to(folder).as_posix(): x.read_bytes() for x in found}
        return {"given": self.given, "values": self.values, "files": files}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state["given"])  # type: ignore[misc]
        if not state["files"]:
            return
        keeper = TemporaryDirectory()
        for name, data in state["files"].items():
            file = Path(keeper.name, name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
        kept = ("features", "device", "trust_remote_code", "columns", "root")  # by no saved file
        own = {name: self.given[name] for name in kept}
        own["encoder"] = self.given["encoder"] if self.is_table else None
        found = vars(type(self).from_pretrained(keeper.name, **own))
        self.__dict__ |= found | {"given": self.given, "values": state["values"]}
        self._keeper = keeper  # deletes the folder, which may hold a fine-tuned encoder


def check_labelled(posts: Sequence[Post]) -> None:
    """Raise SgmftError for the rows of a table without labels, unless bad ones say why."""
    told = any(x.label or getattr(x.error, "template", "") == BAD_LABEL for x in posts)
    if not told and any(post.row for post in posts):
        raise SgmftError(TEXTS["no label"])


def with_labels(
    posts: list[Post], y: Any, sample_weight: Any = None
) -> tuple[list[Post], dict[str | None, Any]]:
    """Return posts with weights and the labels `y`, and these in order, by the labels as text."""
    with raising("sample_weight must be numbers, one for each post.", TypeError, ValueError):
        weights = None if sample_weight is None else np.asarray(sample_weight, float)
    if weights is not None and weights.ndim != 1:
        raise SgmftError(f"sample_weight has {weights.ndim} dimensions; give a number a post.")
    given = None if y is None else np.asarray(y, object).ravel()
    for found, what in ((given, "labels y"), (weights, "weights")):
        if found is not None and len(found) != len(posts):
            raise SgmftError(f"{len(posts)} posts with {len(found)} {what}: give one each.")
    if weights is not None:
        if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
            raise SgmftError("sample_weight has numbers below 0 or not finite, or is 0 everywhere.")
        posts = [replace(x, weight=y) for x, y in zip(posts, weights.tolist(), strict=True)]
    if given is None:
        return [*map(soften, posts)], {}
    cells = [*map(to_cell, given)]
    soft = [cell if isinstance(cell, Mapping) else None for cell in cells]
    plain = [None if isinstance(cell, Mapping) else cell for cell in cells]
    names = [None if says_nothing(x, NO_LABEL) else to_label(x).strip() for x in plain]
    rows = zip(posts, names, soft, strict=True)
    softened = [soften(replace(post, label=name, soft=probs)) for post, name, probs in rows]
    for i, (post, before) in enumerate(zip(softened, posts, strict=True)):
        if post.error != before.error:
            raise SgmftError(f"y: post {i}: {post.error}.")
    values = {name: x for name, x in zip(names, cells, strict=True) if name}.items()
    return softened, dict(sorted(values, key=lambda pair: (isinstance(pair[1], str), pair[1])))
