"""Cross-validated accuracy of one method on the features of several encoders.

    python benchmarks/encoders.py runs/ masked=place/index_masked.jsonl ... --features features/ \
        [--encoders compact,compact-e5] [--methods gated-experts,linear-probe] \
        [--folds 1] [--trials 1]

Folds are those of cross_validation.py, the same for all encoders; finished ones are kept in runs/.
With `--folds` only the posts of so many folds are test posts, with `--trials` so many learning
rates are tried.
Prints accuracy and macro-F1 in percent, the mean negative log-likelihood, and the difference in
accuracy to the first encoder with its 95 % interval (paired bootstrap) and p (paired randomisation
test, not corrected). Then the processor time that each takes for texts of the first set, in turns
and relative to the first, and the largest memory of a process that encodes them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from cross_validation import FOLDS, TRIALS, cross_validate, title
from measuring import spread
from sklearn.metrics import f1_score

from sgmft import read_posts
from sgmft.evaluation.compare.statistics import difference
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.registry import load_encoder

TEXTS, ROUNDS = 128, 3
PEAK = """
import sys
from pathlib import Path
from sgmft import read_posts
from sgmft.features.encoders.registry import load_encoder
texts = [post.text or "." for post in read_posts(sys.argv[2])]
load_encoder(sys.argv[1]).encode_texts(texts[:128], False)
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--encoders", default="compact,compact-e5")
    parser.add_argument("--methods", default="gated-experts,linear-probe")
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--trials", type=int, default=TRIALS)
    options = parser.parse_args()
    options.train, encoders = 0, options.encoders.split(",")
    print("| set | method | encoder | accuracy | macro-F1 | loss | against the first | p |")
    print(f"|{8 * '---|'}", flush=True)
    for item in options.tables:
        name, table = item.split("=", 1)
        posts = read_posts(table)
        labels = sorted({str(post.label) for post in posts})
        truth = np.array([labels.index(str(post.label)) for post in posts])
        for method in options.methods.split(","):
            first = None
            for options.encoder in encoders:
                kind = method if options.trials == TRIALS else f"{method}-{options.trials}"
                folder = options.runs / options.encoder / name / kind
                probs = cross_validate(method, posts, truth, folder, options)
                tested = ~np.isnan(probs[:, 0])
                probs, right = probs[tested], truth[tested]
                first = probs if first is None else first
                row = [name, title(method).strip("*"), options.encoder, *figures(probs, right)]
                if probs is not first:
                    d = difference(probs[None], first[None], right)
                    row.append(f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]")
                    row.append(f"{d.p:.4f}")
                print(f"| {' | '.join([*row, '—', '—'][:8])} |", flush=True)
    table = options.tables[0].split("=", 1)[1]
    texts = [post.text for post in read_posts(table) if post.text][:TEXTS]
    loaded = {name: load_encoder(name) for name in encoders}
    turns = [{name: seconds(one, texts) for name, one in loaded.items()} for _ in range(ROUNDS + 1)]
    print("\n| encoder | processor time of texts, against the first | MiB |\n|---|---|---|")
    for name in encoders:
        theirs, ours = ([turn[x] for turn in turns[1:]] for x in (name, encoders[0]))
        command = [sys.executable, "-c", PEAK, name, table]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(f"| {name} | {spread(theirs, ours)} | {int(done.stdout) >> 10} |", flush=True)


def seconds(encoder: Encoder, texts: list[str]) -> float:
    """Of the processor; a first turn also reads weights."""
    began = time.process_time()
    encoder.encode_texts(texts, False)
    return time.process_time() - began


def figures(probs: np.ndarray, truth: np.ndarray) -> list[str]:
    """Accuracy, macro-F1 and loss of probabilities (N, K)."""
    told, right = probs.argmax(1), probs[np.arange(len(truth)), truth]
    scores = (told == truth).mean(), f1_score(truth, told, average="macro")
    return [*(f"{100 * x:.1f}" for x in scores), f"{-np.log(np.maximum(right, 1e-7)).mean():.3f}"]


if __name__ == "__main__":
    main()
