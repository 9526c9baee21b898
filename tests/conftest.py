"""What several tests share: a small sample, a store of its features, a trained model, commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sgmft.data.posts import Post
from tiny_encoder import TinyEncoder

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported

SGMFT = Path(sys.executable).with_name("sgmft")
TINY = {"epochs": 3, "width": 16, "heads": 2, "learning_rate": 3e-3, "classifier_widths": (12,)}
WORDS = {"Home": "sofa kitchen bed", "School": "teacher exam desk", "Work": "boss meeting office"}
COLOURS = {"Home": "red", "School": "green", "Work": "blue"}


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keep features out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGMFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny() -> Any:
    """Makes locators with the tiny encoder: `tiny(preset=..., settings=..., seed=...)`.

    The preset is "elements", which is trained in epochs; those that are, are small and quick here.
    """
    from sgmft import SemanticLocator
    from sgmft.features.encoders.registry import ENCODERS

    def make(
        settings: dict[str, Any] | None = None, preset: str = "elements", **options: Any
    ) -> SemanticLocator:
        settings = (TINY if preset != "default" else {}) | (settings or {})
        return SemanticLocator("tiny", preset=preset, settings=settings, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "tiny", TinyEncoder)
        yield make


@pytest.fixture(scope="session")
def toy_posts(tmp_path_factory: pytest.TempPathFactory) -> list[Post]:
    """36 easy posts of three labels and six users; some lack text, most lack a picture."""
    folder, rng, posts = tmp_path_factory.mktemp("toy"), np.random.default_rng(0), []
    for i in range(36):
        label = list(WORDS)[i % 3]
        text, images = " ".join([*rng.choice(WORDS[label].split(), 3), f"day{i}"]), []
        if i % 4 == 0:
            noise = rng.integers(-20, 20, (16, 16, 3))
            colour = np.asarray(Image.new("RGB", (16, 16), COLOURS[label]), int)
            images = [folder / f"{i}.png"]
            Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(images[0])
        text = "" if i % 12 == 0 else text
        posts.append(Post(text, images, id=f"p{i}", label=label, user=f"u{i % 6}"))
    return posts


@pytest.fixture(scope="session")
def toy_model(tiny: Callable[..., Any], toy_posts: list[Post]) -> Any:
    """A locator trained on the toy posts in twelve epochs, good at them."""
    settings = {"epochs": 12, "dropout": 0.0, "patience": 0}
    return tiny(settings, val_size=0.0).fit(toy_posts)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of 28 generated posts."""
    from sgmft.data.synthetic.sample import write_sample

    return write_sample(tmp_path_factory.mktemp("sample") / "posts", posts=28, seed=1)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature store of the compact encoder; what one test encodes another finds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def trained(sample: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model trained with the compact encoder, everything by default."""
    from sgmft import SemanticLocator, read_posts

    folder = tmp_path_factory.mktemp("trained") / "model"
    locator = SemanticLocator(features=store)
    locator.fit(read_posts(sample)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts `sgmft` and does not wait; the pipes are text."""

    def start(*words: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also in the background
        return subprocess.Popen([SGMFT, *map(str, words)], text=True, preexec_fn=hear, **pipes)

    return start


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `sgmft` as a user does; `cwd` and `input` as in `subprocess.run`."""

    def run(*words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [SGMFT, *map(str, words)]
        environment = {**os.environ, "PYTHONUTF8": "1", "COLUMNS": "200"}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, env=environment, **options
        )

    return run
