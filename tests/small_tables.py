"""Toy posts as tables, and what is found in tables and folders."""

from __future__ import annotations

import csv
import json

import pyarrow.parquet as pq
import pytest

from sgmft.data.tables import open_writer
from sgmft.jobs.train import train_best


def train_table(source, output, locator, **options):
    """Train one locator as the command does; its summary."""
    return train_best(source, output, [locator], **options)[0]


def read_rows(path):
    """Rows as lists of name and value; an empty CSV cell is None, as null is."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def rows(small_posts):
    """Twelve toy posts as rows of a table; the fourth is broken and the last has no label."""
    folder = small_posts[0].images[0].parent
    rows = [
        {
            "id": post.id,
            "text": post.text,
            "image": str(post.images[0].relative_to(folder)) if post.images else "",
            "label": post.label,
            "城市": "北京" if i % 2 else "=1+1",
            "likes": str(i * 10),
        }
        for i, post in enumerate(small_posts[:12])
    ]
    rows[3] |= {"image": "gone.jpg"}
    rows[11] |= {"label": ""}
    return rows


def write_rows(rows, path):
    with open_writer(path, list(rows[0])) as writer:
        writer.write(rows)
    return path


@pytest.fixture
def table(rows, small_posts):
    return write_rows(rows, small_posts[0].images[0].parent / "posts.jsonl")


def file_names(folder):
    return sorted(path.name for path in folder.rglob("*"))
