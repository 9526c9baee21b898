"""Made-up features that are easy to learn from, and a model that is solved at once."""

import numpy as np

from sgmft.features.encoders.base import EncoderInfo, PostFeatures
from sgmft.features.features import Batch, Features, LabelledFeatures
from sgmft.models.base import ClosedFormModel, NetworkConfig, Output

INFO = EncoderInfo("made up", "0" * 16, 12, 10, False, None, 8, "light")


def make_features(
    count: int = 45, classes: int = 3, seed: int = 0, *, noise: float = 0.3, lacking: str = ""
) -> LabelledFeatures:
    """Posts whose class shows in both sides; `lacking` "text" or "image" leaves that side out."""
    centres = np.random.default_rng(1)
    text, image = centres.standard_normal((classes, 12)), centres.standard_normal((classes, 10))
    rng = np.random.default_rng([seed, 7])
    rows, labels = [], []
    for i in range(count):
        k = i % classes
        words = (text[k] + noise * rng.standard_normal((1 + i % 3, 12))).astype(np.float32)
        regions = (image[k] + noise * rng.standard_normal((4, 10))).astype(np.float32)
        rows.append(
            PostFeatures(
                None if lacking == "text" else words.mean(0),
                None if lacking == "text" else words.astype(np.float16),
                None if lacking == "image" else regions.mean(0, keepdims=True),
                None if lacking == "image" else regions.astype(np.float16),
                None if lacking == "text" else np.array([100 + k, i, i, 200 + k], np.int32),
            )
        )
        labels.append(k)
    return LabelledFeatures(Features.of(rows, INFO, True), np.array(labels))


class NearestMean(ClosedFormModel):
    """The nearest class mean of the texts."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.means = np.zeros((config.classes, config.text_width), np.float32)

    def fit(
        self, batch: Batch, labels: np.ndarray, rng: np.random.RandomState, weights: object = None
    ) -> None:
        for k in range(self.config.classes):
            self.means[k] = batch.text[labels == k].mean(0)

    def forward(self, batch: Batch) -> Output:
        far = np.linalg.norm(batch.text[:, None] - self.means, axis=-1)
        return Output(-far.astype(np.float32), batch.text)
