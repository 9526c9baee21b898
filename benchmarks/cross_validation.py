"""Cross-validated accuracy of methods on tables of posts, every post a test post once.

    python benchmarks/cross_validation.py runs/ masked=place/index_masked.jsonl ... \
        --methods gated-experts,linear-probe,unis-mmc --features features/ \
        [--train 200] [--by column]

Five folds, stratified. What a method chooses, it chooses inside each fold's training posts: three
learning rates on a tenth of them, or penalties by cross-validation. Prints accuracy and macro-F1 in
percent over all posts, and the difference to the gated experts with its 95 % interval (paired
bootstrap); ▼ and ▲: below or above it by more than chance (paired randomisation test,
Holm-corrected over the table, p < 0.05). Finished folds are kept in runs/ and not computed again.
With `--train`, so many posts of each fold's training posts are learned from, drawn with the fold's
number as seed. With `--by`, a second table has the accuracy on the posts of each value of a column.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

from sgmft import SemanticLocator, read_posts
from sgmft.data.posts import Post
from sgmft.data.splits import fold_posts, split_posts
from sgmft.evaluation.compare.catalogue import FACTORS
from sgmft.evaluation.compare.statistics import Difference, corrected, difference
from sgmft.features.features import LabelledFeatures
from sgmft.models.arrays import softmax
from sgmft.models.base import predict_logits
from sgmft.models.method import Method
from sgmft.models.registry import METHODS, find_method
from sgmft.training.fit import TrainingTask, train_on_all, train_with_validation
from sgmft.utils.files import write_whole

FOLDS, TRIALS, HELD_OUT = 5, 3, 0.1
REFERENCE = "gated-experts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--methods", default="gated-experts,linear-probe,text-only,image-only")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--by", default="", help="a column of all tables")
    parser.add_argument("--train", type=int, default=0, help="posts to learn from; 0 for all")
    options = parser.parse_args()
    methods = options.methods.split(",")
    print("| set | method | accuracy | macro-F1 | accuracy against gated experts |")
    print("|---|---|---|---|---|", flush=True)
    for item in options.tables:
        name, table = item.split("=", 1)
        posts = read_posts(table)
        labels = sorted({str(post.label) for post in posts})
        truth = np.array([labels.index(str(post.label)) for post in posts])
        found = {}
        for method in methods:
            folder = options.runs / f"{name}-{options.train or 'all'}" / method
            found[method] = cross_validate(method, posts, truth, folder, options)
        differences = {
            method: difference(found[method][None], found[REFERENCE][None], truth)
            for method in methods
            if method != REFERENCE
        }
        differences = dict(zip(differences, corrected(list(differences.values())), strict=True))
        for method, probabilities in found.items():
            told = probabilities.argmax(1)
            score = f"{100 * (told == truth).mean():.1f} | "
            score += f"{100 * f1_score(truth, told, average='macro'):.1f}"
            against = "—"
            if method in differences:
                d = differences[method]
                against = f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]{mark(d)}"
            print(f"| {name} | {title(method)} | {score} | {against} |", flush=True)
        if options.by:
            print_groups(name, found, truth, [str(post.row[options.by]) for post in posts])


def mark(found: Difference) -> str:
    """Whether it is more than chance, after the correction."""
    return "" if found.p_holm >= 0.05 else " ▲" if found.value > 0 else " ▼"


def print_groups(
    name: str, found: Mapping[str, np.ndarray], truth: np.ndarray, groups: Sequence[str]
) -> None:
    """Print the accuracy on the posts of each group."""
    rows = {group: np.array(groups) == group for group in sorted(set(groups))}
    heads = [f"{group} ({there.sum()})" for group, there in rows.items()]
    print(f"\n| {name}: method | {' | '.join(heads)} |\n|---{'|---' * len(rows)}|")
    for method, probabilities in found.items():
        right = 100 * (probabilities.argmax(1) == truth)
        cells = [f"{right[there].mean():.1f}" for there in rows.values()]
        print(f"| {title(method)} | {' | '.join(cells)} |", flush=True)


def parse(name: str) -> tuple[Method, str | None, dict[str, str]]:
    """The method, preset and single settings of "unis-mmc", or of "gated-experts gate=constant"."""
    kind, *pairs = name.split()
    preset = None if kind in METHODS else kind
    method = find_method(None if preset else kind, preset)
    return method, preset, dict(pair.split("=", 1) for pair in pairs)


def title(name: str) -> str:
    """As tables show it; the reference in bold."""
    method, preset, settings = parse(name)
    words = [method.title, *([f"({preset})"] if len(method.presets) > 1 else [])]
    words += [f"{key}={value}" for key, value in settings.items()]
    return f"**{' '.join(words)}**" if name == REFERENCE else " ".join(words)


def cross_validate(
    name: str, posts: list[Post], truth: np.ndarray, folder: Path, options: argparse.Namespace
) -> np.ndarray:
    """Probabilities (N, K) of every post by the run that has not seen it; NaN in folds left out.

    Args:
        name: a method, or a preset that names one, and single settings, such as
            "gated-experts gate=constant".
    """
    method, preset, settings = parse(name)
    locator = SemanticLocator(
        getattr(options, "encoder", None),
        method=method.name,
        preset=preset,
        settings=settings,
        features=options.features,
    )
    folds = fold_posts(posts, FOLDS)
    files = {i: folder / f"fold-{i}.npy" for i in range(getattr(options, "folds", FOLDS))}
    if not all(file.is_file() for file in files.values()):
        encoded = locator.encode(posts)
        assert not encoded.refused, encoded.refused[0].error
        data = LabelledFeatures(encoded.features, truth)
        folder.mkdir(parents=True, exist_ok=True)
        for i, file in files.items():
            if not file.is_file():
                train = [row for fold in folds[:i] + folds[i + 1 :] for row in fold]
                if options.train:
                    _, chosen = split_posts([posts[row] for row in train], options.train, i)
                    train = [train[row] for row in chosen]
                trials = getattr(options, "trials", TRIALS)
                found = run(locator, settings, data, posts, train, folds[i], trials)
                write_whole(file, to_bytes(found))
    probabilities = np.full((len(posts), int(truth.max()) + 1), np.nan, np.float32)
    for i, file in files.items():
        probabilities[folds[i]] = np.load(file)
    return probabilities


def run(
    locator: SemanticLocator,
    given: Mapping[str, str],
    data: LabelledFeatures,
    posts: list[Post],
    train: list[int],
    test: list[int],
    trials: int,
) -> np.ndarray:
    """Probabilities of the test posts; `given` are the settings that the locator was made with."""
    method, preset = locator.method, locator.preset
    labels = sorted({str(post.label) for post in posts})
    prompts = method.encode_prompts(labels, locator.encoder)

    def task(settings: dict[str, float]) -> TrainingTask:
        chosen = method.preset(preset.name, {**given, **settings})
        seen = data.take(np.array(train))
        return TrainingTask(seen, len(labels), locator.encoder.info, method, chosen, prompts)

    settings, epochs = {}, preset.train.epochs
    if preset.val_size:
        _, held = split_posts([posts[i] for i in train], HELD_OUT)
        tried = []
        for factor in FACTORS[:trials]:
            setting = {method.tuned: getattr(preset.train, method.tuned) * factor}
            choice = train_with_validation(task(setting), held)
            tried.append((choice.selected.val_loss, setting, choice.selected.epoch))
        _, settings, epochs = min(tried, key=lambda one: one[0])
    model = train_on_all(task(settings), epochs)
    return softmax(predict_logits(model, data.features.take(np.array(test))).logits)


def to_bytes(values: np.ndarray) -> bytes:
    """As a .npy file."""
    buffer = BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
