"""Fine-tuning by two processes, as torchrun starts them, against one alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from clip_posts import clip as clip
from clip_posts import clip_posts as clip_posts
from sgmft.data.posts import Post
from training.test_processes import launched

FLOAT32 = Path(__file__).parents[2] / "float32_plugin.py"


def table(folder: Path, posts: list[Post]) -> Path:
    path = folder / "posts.jsonl"
    rows = [{"text": p.text, "images": [*map(str, p.images)], "label": p.label} for p in posts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.slow
def test_two_processes_reach_what_one_reaches(run: Any, clip, clip_posts, tmp_path):
    """With LoRA; there is no dropout, and pictures are shown as they are."""
    words = (
        *("train", table(tmp_path, clip_posts), "--encoder", clip, "--preset", "tokens"),
        *("--set", "width=16", "--set", "heads=2", "--set", "epochs=2", "--set", "dropout=0"),
        *("--tune", "lora", "--set", "tune.epochs=2", "--set", "tune.patience=2"),
        *("--set", "tune.augment=false", "--set", "tune.batch_size=9", "--allow-outside"),
    )
    alone = run(*words, "-o", tmp_path / "one", "--features", tmp_path / "f1")
    assert alone.returncode == 0, alone.stderr
    more = ("-o", tmp_path / "two", "--features", tmp_path / "f2")
    both = launched("-m", "sgmft", "--plugin", FLOAT32, *words, *more)
    assert both.returncode == 0, both.stderr
    for name in ("encoder/adapter_model.safetensors", "model.safetensors"):
        one, two = (load_file(tmp_path / x / name) for x in ("one", "two"))
        assert one.keys() == two.keys()
        for key, x in one.items():
            np.testing.assert_allclose(two[key], x, rtol=1e-3, atol=2e-5, err_msg=key)
