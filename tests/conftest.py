"""What several tests share: a small sample, a store of its features, a trained model, commands."""

from __future__ import annotations

import gc
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from unittest import mock

import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, settings
from PIL import Image

from sgmft.data.posts import Post
from tiny_encoder import TinyEncoder

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # when mlflow is
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background, as by nohup
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # nothing of what is imported will go: one look at all of it takes seconds

pytest_plugins = ("clip_posts", "plugins", "recording_encoder", "small_networks", "small_tables")

UNHURRIED = {  # other work may hold the processors
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("quick", max_examples=30, derandomize=True, database=None, **UNHURRIED)
settings.register_profile("thorough", max_examples=300, **UNHURRIED)  # make test-all
settings.load_profile("quick")
SGMFT = Path(sys.executable).with_name("sgmft")
TINY = {"epochs": 3, "width": 16, "heads": 2, "learning_rate": 3e-3, "classifier_widths": (12,)}
WORDS = {"Home": "sofa kitchen bed", "School": "teacher exam desk", "Work": "boss meeting office"}
COLOURS = {"Home": "red", "School": "green", "Work": "blue"}


def pytest_collection_finish() -> None:
    """Leave what the test modules have imported out of all later collections of garbage."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keep features out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGMFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _float32() -> None:
    """Compute as processors without bfloat16 do, so that no test depends on the hardware."""
    import_module("float32_plugin")


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
        options = {"features": None} | options  # what is shown is not of an earlier test's store
        return SemanticLocator("tiny", preset=preset, settings=settings, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "tiny", TinyEncoder)
        yield make


@pytest.fixture(scope="session")
def small_posts(tmp_path_factory: pytest.TempPathFactory) -> list[Post]:
    """36 easy posts of three labels and six users; some lack text, most lack a picture."""
    folder, rng, posts = tmp_path_factory.mktemp("small"), np.random.default_rng(0), []
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
def small_model(tiny: Callable[..., Any], small_posts: list[Post]) -> Any:
    """A locator trained on the toy posts in twelve epochs, good at them."""
    settings = {"epochs": 12, "dropout": 0.0, "patience": 0}
    return tiny(settings, val_size=0.0).fit(small_posts)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of 28 generated posts."""
    from synthetic.sample import write_sample

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
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `sgmft` in this process, which costs no start of Python and torch.

    The result is that of `subprocess.run`; `cwd` and `input` as there. Plugins are forgotten
    afterwards. Not for threads, and not for what ends the process: see `run_process`.
    """
    built = cache(typer.main.get_command)  # from hundreds of options

    def run(
        *words: Any, input: str = "", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        from sgmft.cli.main import main
        from sgmft.models.registry import LOADED

        command = [str(SGMFT), *map(str, words)]
        with ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            files = {x: stack.enter_context(TemporaryFile()) for x in ("stdout", "stderr")}
            for name, file in files.items():
                patch.setattr(sys, name, io.TextIOWrapper(file, "utf-8", write_through=True))
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode()), "utf-8"))
            patch.setattr(sys, "argv", command)
            patch.setattr(typer.main, "get_command", built)
            patch.setenv("COLUMNS", "200")
            if cwd is not None:
                patch.chdir(cwd)
            if "--plugin" in command:
                for registry in registries():
                    stack.enter_context(mock.patch.dict(registry))
                stack.callback(LOADED.__setitem__, slice(None), list(LOADED))
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
            found = {}
            for name, file in files.items():
                file.seek(0)
                found[name] = file.read().decode().replace("\r\n", "\n")
        return subprocess.CompletedProcess(command, code, **found)

    return run


def registries() -> list[dict[str, Any]]:
    """What a plugin can add to."""
    from sgmft.features.encoders.registry import ENCODERS, PLUGINS
    from sgmft.models.fusions import FUSIONS
    from sgmft.models.registry import METHODS

    return [ENCODERS, PLUGINS, FUSIONS, METHODS]


@pytest.fixture(scope="session")
def run_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `sgmft` as a user does; `cwd` and `input` as in `subprocess.run`."""

    def run_process(*words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [SGMFT, *map(str, words)]
        environment = {**os.environ, "PYTHONUTF8": "1", "COLUMNS": "200"}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, env=environment, **options
        )

    return run_process


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts `sgmft` and does not wait; the pipes are text."""

    def start(*words: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([SGMFT, *map(str, words)], text=True, **pipes)

    return start
