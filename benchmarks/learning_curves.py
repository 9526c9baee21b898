"""Accuracy on a table's test posts against the number of posts learned from.

    python benchmarks/learning_curves.py runs/ masked=place/index_masked.jsonl ... \
        --features features/ --sizes 100,200,400,800,all --draws 3 --figures docs/figures

A table has a column `split`; so many of its `train` posts are drawn, stratified by label, and all
its `test` posts are predicted. A draw is the seed of the subset, and of the network's weights.
Networks with epochs choose their number on a tenth of the subset, out of at least 300 steps, and
are then trained on all of it, at their preset's learning rate; probes and gated experts choose
their penalties inside the subset. Finished runs are kept in runs/ and not computed again.

Prints three Markdown tables for each set (test accuracy; training beside test accuracy; how alive
the guidance of `elements` is) and draws `learning-NAME.svg`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from cross_validation import parse
from torch import nn

from sgmft import SemanticLocator, read_posts
from sgmft.data.posts import Post
from sgmft.data.splits import split_posts
from sgmft.evaluation.compare.figures import COLOURS
from sgmft.evaluation.figures import svg_text
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Batch, LabelledFeatures
from sgmft.features.ragged import Ragged
from sgmft.models.base import Model, NetworkConfig, Output, predict_logits
from sgmft.models.method import Method
from sgmft.models.network import Network, Normalizer
from sgmft.models.registry import METHODS
from sgmft.training.fit import TrainingTask, fit_network
from sgmft.utils.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELD_OUT = 0.1
PARTS = ("train", "test")
LEAST_STEPS = 300  # of a network with epochs: with few posts, more epochs and more patience
SYSTEMS = {  # what is trained, its title, and how it is drawn: colour, marker, line
    "text-only": ("Text only", COLOURS[5], "v", ":"),
    "image-only": ("Image only", COLOURS[4], "D", ":"),
    "linear-probe": ("Linear probe", COLOURS[1], "s", "--"),
    "late-average": ("Late averaging", COLOURS[6], "P", "--"),
    "linear-probe lexical=true": ("Linear probe + n-grams", COLOURS[1], "s", "-"),
    "late-average lexical=true": ("Late averaging + n-grams", COLOURS[6], "P", "-"),
    "unis-mmc": ("UniS-MMC", COLOURS[4], "X", "--"),
    "balance-mla": ("BalanceMLA (reconstruction)", COLOURS[5], "P", "--"),
    "mplug": ("mPLUG", COLOURS[6], "<", "--"),
    "bridgetower": ("BridgeTower", COLOURS[3], ">", "--"),
    "paper": ("SG-MFT (paper)", COLOURS[2], "v", ":"),
    "tokens": ("SG-MFT (tokens)", COLOURS[2], "D", "--"),
    "mlp": ("MLP", COLOURS[3], "X", "--"),
    "elements sim=False": ("Elements, no guidance", COLOURS[6], "p", "-"),
    "elements": ("SG-MFT (elements)", COLOURS[2], "^", "-"),
    "gated-experts gate=constant": ("Gated experts, one gate", COLOURS[2], "^", "-"),
    "gated-experts": ("Similarity-gated experts", COLOURS[0], "o", "-"),
}
OTHER = COLOURS[3], ".", ":"  # how any other is drawn, under its own name
CURVES = "text-only,image-only,linear-probe,mlp,elements sim=False,elements,gated-experts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--sizes", default="100,200,400,800,all")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--methods", default=CURVES)
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    for item in options.tables:
        name, file = item.split("=", 1)
        methods = options.methods.split(",")
        table = read_table(file, options.features, tokens=any(map(reads_tokens, methods)))
        train = [i for i, post in enumerate(table.posts) if post.row["split"] == "train"]
        wanted = [len(train) if n == "all" else int(n) for n in options.sizes.split(",")]
        sizes = [n for n in wanted if n <= len(train)]
        cells = {
            (method, size): [
                kept(
                    options.runs / f"curve-{name}" / f"{method.replace(' ', '-')}-{size}-{i}.json",
                    partial(run, table, method, train, size, i),
                )
                for i in range(options.draws)
            ]
            for size in sizes
            for method in methods
        }
        report(name, table, sizes, cells)
        if options.figures:
            figure(options.figures / f"learning-{name}.svg", name, sizes, cells)


class Table(NamedTuple):
    """Encoded posts with their classes."""

    posts: list[Post]
    labels: list[str]
    data: LabelledFeatures
    info: EncoderInfo


def reads_tokens(name: str) -> bool:
    method, preset, settings = parse(name)
    return method.uses_tokens(method.preset(preset, settings))


def read_table(file: str | Path, features: Path, tokens: bool = False) -> Table:
    posts = read_posts(file)
    locator = SemanticLocator(features=features)
    encoded = locator.encode(posts, tokens=tokens)
    assert not encoded.refused, encoded.refused[0].error
    labels = sorted({str(post.label) for post in posts})
    classes = np.array([labels.index(str(post.label)) for post in posts])
    data = LabelledFeatures(encoded.features, classes)
    return Table(posts, labels, data, locator.encoder.info)


class MLP(Network):
    """One hidden layer on the standardised pooled features [t; v]; a missing side is zeros."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.text = Normalizer(config.text_width, "standard")
        self.image = Normalizer(config.image_width, "standard")
        self.hidden = nn.Linear(config.text_width + config.image_width, 256)
        self.output = nn.Linear(256, config.classes)

    def prepare(
        self, text: Ragged, image: Ragged, words: Ragged | None, regions: Ragged | None
    ) -> None:
        self.text.fit(text)
        self.image.fit(image)

    def forward(self, batch: Batch) -> Output:
        text = torch.where(batch.has_text[:, None], self.text(batch.text), 0.0)
        image = torch.where(batch.has_image[:, None], self.image(batch.image), 0.0)
        hidden = self.hidden(torch.cat([text, image], -1)).relu()
        return Output(self.output(hidden), hidden)


METHODS["mlp"] = Method("mlp", "MLP", "one hidden layer", MLP, NetworkConfig)


def task_of(table: Table, name: str, rows: Sequence[int], seed: int) -> TrainingTask:
    """What a method, or a preset that names one, and single settings, learns from these posts."""
    method, preset, settings = parse(name)
    chosen = method.preset(preset, {"seed": seed, **settings})
    if chosen.val_size:
        train = chosen.train
        steps = math.ceil(len(rows) / train.batch_size)
        more = max(1.0, LEAST_STEPS / (steps * train.epochs))
        longer = {"epochs": round(more * train.epochs), "patience": round(more * train.patience)}
        chosen = dataclasses.replace(chosen, train=dataclasses.replace(train, **longer))
    seen = table.data.take(np.array(rows))
    return TrainingTask(seen, len(table.labels), table.info, method, chosen)


def learn(task: TrainingTask, posts: Sequence[Post]) -> Model:
    """Train on the task's posts as `SemanticLocator.fit` does."""
    held = split_posts(posts, HELD_OUT)[1] if task.preset.val_size else []
    return fit_network(task, held).model


def run(table: Table, name: str, train: list[int], size: int, seed: int) -> dict[str, Any]:
    """Accuracies in 0..1, and the guidance on the test posts before and after training."""
    drawn = train
    if size < len(train):
        _, chosen = split_posts([table.posts[i] for i in train], size, seed)
        drawn = [train[i] for i in chosen]
    task = task_of(table, name, drawn, seed)
    test = [i for i, post in enumerate(table.posts) if post.row["split"] == "test"]
    unseen = table.data.take(np.array(test))
    model = learn(task, [table.posts[i] for i in drawn])
    answers = predict_logits(model, unseen.features)
    found: dict[str, Any] = {
        "test": accuracy(answers.logits, unseen.labels),
        "train": accuracy(predict_logits(model, task.data.features).logits, task.data.labels),
    }
    if np.isfinite(answers.guidance).all():  # both P^m and P^e
        start = predict_logits(task.model(task.data.features), unseen.features)
        found["before"] = start.guidance.mean(0).tolist()
        found["after"] = answers.guidance.mean(0).tolist()
    return found


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(-1) == labels).mean())


def kept(file: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was found before, or else is computed and kept."""
    if not file.is_file():
        found = compute()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(found).encode())
    return dict(json.loads(file.read_text("utf-8")))


Cells = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]


def report(name: str, table: Table, sizes: Sequence[int], cells: Cells) -> None:
    methods = list(dict.fromkeys(method for method, _ in cells))
    test = sum(post.row["split"] == "test" for post in table.posts)
    heading = f"{' | '.join(f'{n:,}' for n in sizes)} |\n|---{'|---' * len(sizes)}|"
    print(f"\n| {name}: accuracy on {test} test posts | {heading}")
    for method in methods:
        line = [spread([c["test"] for c in cells[method, n]]) for n in sizes]
        print(f"| {title(method)} | {' | '.join(line)} |")
    print(f"\n| {name}: training / test accuracy | {heading}")
    for method in methods:
        line = [
            " / ".join(spread([np.mean([c[part] for c in cells[method, n]])]) for part in PARTS)
            for n in sizes
        ]
        print(f"| {title(method)} | {' | '.join(line)} |")
    print(f"\n| {name}: guidance entropy, before → after training | {heading}")
    for method in methods:
        if all("before" in c for n in sizes for c in cells[method, n]):
            for place, side in enumerate(("P^m", "P^e")):
                line = [
                    " → ".join(
                        f"{np.mean([c[when][place] for c in cells[method, n]]):.3f}"
                        for when in ("before", "after")
                    )
                    for n in sizes
                ]
                print(f"| {title(method)}, {side} | {' | '.join(line)} |", flush=True)


def title(method: str) -> str:
    return SYSTEMS.get(method, (method,))[0]


def spread(values: Sequence[float]) -> str:
    """Percent: mean ± standard deviation over draws."""
    mean = f"{100 * np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.1f}"


def figure(path: Path, name: str, sizes: Sequence[int], cells: Cells) -> None:
    """Lines over the number of posts, and a legend; bars show the range of the draws."""
    from matplotlib.figure import Figure

    def drawn() -> Figure:
        drawing = Figure(figsize=(6.5, 3.2), layout="constrained")
        axes = drawing.subplots()
        draw_lines(axes, sizes, cells)
        axes.set_title(name, fontsize=9.5, loc="left", fontweight="bold")
        axes.set_xlabel("posts learned from")
        axes.set_ylabel("accuracy on test posts, %")
        axes.grid(axis="y", alpha=0.15)
        found, titles = axes.get_legend_handles_labels()
        look = {"loc": "outside right center", "fontsize": 8.5}
        drawing.legend(found[::-1], titles[::-1], **look)
        return drawing

    save(path, svg_text(drawn, "sgmft"))


def draw_lines(axes: Axes, sizes: Sequence[int], cells: Cells) -> None:
    methods = list(dict.fromkeys(method for method, _ in cells))
    for order, method in enumerate(methods):
        colour, marker, line = SYSTEMS.get(method, (method, *OTHER))[1:]
        values = 100 * np.array([[c["test"] for c in cells[method, n]] for n in sizes])
        x = np.asarray(sizes, float) * (1 + 0.006 * (order - len(methods) / 2))
        axes.vlines(x, values.min(1), values.max(1), color=colour, lw=1)
        look = {"marker": marker, "markersize": 5, "lw": 2.2 if method == "gated-experts" else 1.3}
        axes.plot(x, values.mean(1), line, color=colour, label=title(method), **look)
    axes.set_xscale("log")
    axes.set_xticks(list(sizes), [f"{n:,}" for n in sizes])
    axes.minorticks_off()


def save(path: Path, svg: str) -> None:
    """On a white ground, so that it can be read on a dark page too."""
    ground = '<rect width="100%" height="100%" fill="white"/>'
    head = svg.index(">", svg.index("<svg")) + 1
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (svg[:head] + ground + svg[head:]).encode())


if __name__ == "__main__":
    main()
