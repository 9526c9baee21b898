"""Models that several benchmarks judge, trained once and kept."""

from __future__ import annotations

import argparse
from pathlib import Path

from sgmft import Post, SemanticLocator, read_posts


def arguments(description: str | None, methods: str) -> argparse.ArgumentParser:
    """The arguments of a benchmark that judges models: where they are kept, tables, methods."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--methods", default=methods)
    parser.add_argument("--features", type=Path, required=True)
    return parser


def halves(table: str) -> tuple[list[Post], list[Post]]:
    """The rows of a table with split=train and those with split=test."""
    posts = read_posts(table)
    train, test = (
        [post for post in posts if str(post.row["split"]) == name] for name in ("train", "test")
    )
    return train, test


def trained(method: str, train: list[Post], folder: Path, features: Path) -> SemanticLocator:
    """A locator trained on these posts, or the one that is kept in the folder."""
    if not (folder / "config.json").is_file():
        SemanticLocator(method=method, features=features).fit(train).save_pretrained(folder)
    return SemanticLocator.from_pretrained(folder, features=features)
