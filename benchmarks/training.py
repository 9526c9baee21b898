"""Training: the whole of the default; SG-MFT as printed and its tokens view against plain loops.

    python benchmarks/training.py

Made-up features in the sizes of `compact` (default) and Chinese-CLIP ViT-H (the others). Plain
loops are the same networks with a `DataLoader` over single posts, PyTorch's Adam as it comes, and,
for the elements view, the D x D softmax; for the default, scikit-learn's regressions fold by fold.
Both start from the same weights, without dropout, and see the posts in the same order, so that
their losses can be compared.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import rank_one
import torch
from measuring import in_turns, print_row
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Batch, Features, LabelledFeatures, Ragged
from sgmft.models import sgmft as feed_forward
from sgmft.models.network import Network
from sgmft.models.registry import get_method
from sgmft.training.fit import TrainingTask, train_with_validation
from sgmft.training.trainer import train

POSTS, CLASSES = 17_000, 7
COMPACT = EncoderInfo("compact", "0" * 16, 1536, 2560, False, None, 260, "light", word_width=512)
CLIP = EncoderInfo("clip", "0" * 16, 1024, 1024, True, 100.0, 224, "light")
NARROW = EncoderInfo("clip", "0" * 16, 512, 512, True, 100.0, 224, "light")
SGMFT, EXPERTS = get_method("sgmft"), get_method("gated-experts")


def made(posts: int, info: EncoderInfo, tokens: bool = False) -> LabelledFeatures:
    """Features of which three in four say something of the label; n-grams of Zipf's frequencies."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (posts,), generator=rng)

    def side(width: int) -> np.ndarray:
        size = torch.arange(1, width + 1).pow(-0.5)
        centre = 0.35 * size * torch.randn(CLASSES, width, generator=rng)
        tells = torch.rand(posts, 1, generator=rng) < 0.75
        return (size * torch.randn(posts, width, generator=rng) + centre[labels] * tells).numpy()

    numpy = np.random.default_rng(0)
    chance = 1 / np.arange(1, 200_001)
    grams = numpy.choice(len(chance), (posts, 60), p=chance / chance.sum()).astype(np.int32)

    def several(count: int, width: int) -> Ragged:
        values = torch.randn(posts * count, width, generator=rng).half().numpy()
        return Ragged.packed(values, np.full(posts, count))

    there = np.ones(posts, bool)
    features = Features(
        side(info.text_width),
        side(info.image_width),
        there,
        there,
        several(32, info.text_width) if tokens else None,
        several(16, info.image_width) if tokens else None,
        16,
        Ragged.of(list(grams), np.zeros(0, np.int32)),
    )
    return LabelledFeatures(features, labels.numpy())


def default() -> None:
    """The whole run; `experts.py` compares one expert's regressions."""
    data = made(POSTS, COMPACT)
    task = TrainingTask(data, CLASSES, COMPACT, EXPERTS, EXPERTS.preset())
    began = time.perf_counter()
    (line,) = train_with_validation(task, []).history
    seconds = f"{time.perf_counter() - began:.0f} s"
    told = f"accuracy on left-out posts {100 * line.val_accuracy:.1f} %"
    print_row(f"training gated experts, {POSTS:,} posts, whole run", "–", seconds, "< 180 s", told)


def plain(network: Network, data: LabelledFeatures, order: Tensor, settings: Any) -> float:
    """One pass as a tutorial writes it: the mean loss."""
    rows = [data.features.batch(np.array([i])).to("cpu") for i in range(len(data.labels))]
    posts = [(rows[i], data.labels[i]) for i in order.tolist()]

    def collate(some: list[tuple[Batch, Tensor]]) -> tuple[Batch, Tensor]:
        columns = zip(*(batch for batch, _ in some), strict=True)
        batch = Batch._make(None if x[0] is None else torch.cat(x) for x in columns)
        return batch, torch.tensor([label for _, label in some])

    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    network.train()
    losses = []
    for batch, labels in DataLoader(posts, settings.batch_size, collate_fn=collate):
        loss = cross_entropy(network(batch).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() * len(labels))
    return sum(losses) / len(posts)


def epochs(title: str, preset: str, info: EncoderInfo, posts: int, wanted: str) -> None:
    """A pass over some posts, again and again; others cost as much."""
    data = made(posts, info, tokens=preset == "tokens")
    settings = {"epochs": 1, "dropout": 0.0, "weight_decay": 0.0, "width": info.text_width}
    chosen = SGMFT.preset(preset, settings)
    task = TrainingTask(data, CLASSES, info, SGMFT, chosen)
    order = torch.randperm(posts, generator=torch.Generator().manual_seed(0))
    networks = [task.model(data.features) for _ in range(2)]
    networks[0]._guidance = lambda *_: None  # is for our log only
    interpolated = feed_forward.rank_one_attention

    def theirs() -> float:
        feed_forward.rank_one_attention = rank_one.exact
        try:
            return plain(networks[0], data, order, chosen.train)
        finally:
            feed_forward.rank_one_attention = interpolated

    def ours() -> float:
        return train(networks[1], data, None, chosen.train)[0].loss

    found = in_turns(theirs, ours, 3)
    a, b = found.answers
    agreement = f"losses {a:.4f} and {b:.4f}"
    print_row(title, "DataLoader, Adam, exact softmax", found.ratio, wanted, agreement)


def main() -> None:
    default()
    epochs("training `paper`, D = 1024", "paper", CLIP, 400, "≥ 3")
    epochs("training `tokens`, 32 words, 16 regions, width 512", "tokens", NARROW, 640, "≥ 2")


if __name__ == "__main__":
    main()
