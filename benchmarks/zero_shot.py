"""Accuracy without labels: descriptions written by hand, by text, by picture and by both.

    python benchmarks/zero_shot.py original=place/index.jsonl masked=place/index_masked.jsonl \
        --features features/

A table has a column `split` and the seven labels below. The descriptions were written once, from
what the labels are and what kinds of text the set's README says there are; accuracy on train posts
was looked at, and nothing was changed after it. *Alone*: no posts to standardise by. *Adapted*: to
the posts that are predicted, as `sgmft predict --zero-shot` does. In percent,
with 95 % bootstrap intervals over posts for the adapted ones.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
from learning_curves import read_table

from sgmft import SemanticLocator
from sgmft.features.features import Features
from sgmft.models.base import predict_logits
from sgmft.models.baselines.zero_shot import Described, parse_descriptions

DESCRIPTIONS = (
    "Home=在家里|宅在家不出门|躺在床上|卧室、客厅和厨房;"
    "School=在学校上课|在教室或图书馆自习|写作业,准备考试|老师和同学;"
    "Work=在公司上班|在办公室加班工作|和同事、老板开会|办公桌和电脑;"
    "Shopping Center=在商场逛街购物|在店里买衣服|逛超市买东西|衣服的质量、尺码和价格;"
    "Cinema=在电影院看电影|影院里的银幕和座位|这部电影的剧情、导演和演员;"
    "Travel=出门旅游|在景区游玩爬山|住酒店|在机场等飞机;"
    "Restaurant=在餐厅吃饭|和朋友聚餐|这家店的菜很好吃,服务也好|桌上的美食"
)
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--features", type=Path, required=True)
    options = parser.parse_args()
    locator = SemanticLocator.zero_shot(parse_descriptions(DESCRIPTIONS))
    network = locator.network
    assert isinstance(network, Described)
    print("| set, posts | sides | alone | adapted |\n|---|---|---|---|")
    for item in options.tables:
        name, file = item.split("=", 1)
        table = read_table(file, options.features)
        order = np.array([locator.labels.index(label) for label in table.labels])
        for part in ("test", "train", "all"):
            rows = [i for i, p in enumerate(table.posts) if part in ("all", p.row["split"])]
            data = table.data.take(np.array(rows))
            classes = order[data.labels]
            for sides in ("text", "picture", "both"):
                report(f"{name}, {len(rows)} {part}", network, data.features, classes, sides)


def report(name: str, network: Described, posts: Features, classes: np.ndarray, sides: str) -> None:
    none = np.zeros(len(posts), bool)
    read = Features(
        *posts.pooled(),
        none if sides == "picture" else posts.has_text,
        none if sides == "text" else posts.has_image,
    )
    alone = (predict_logits(network, read).logits.argmax(-1) == classes).mean()
    hits = _adapted(network, read).argmax(-1) == classes
    rng = np.random.default_rng(0)
    means = [hits[rng.integers(len(hits), size=len(hits))].mean() for _ in range(RESAMPLES)]
    low, high = 100 * np.quantile(means, [0.025, 0.975])
    print(
        f"| {name} | {sides} | {100 * alone:.1f} | {100 * hits.mean():.1f} "
        f"[{low:.1f}, {high:.1f}] |",
        flush=True,
    )


def _adapted(network: Described, posts: Features) -> np.ndarray:
    network = copy.deepcopy(network)
    network.adapt(posts.batch())
    return predict_logits(network, posts).logits


if __name__ == "__main__":
    main()
