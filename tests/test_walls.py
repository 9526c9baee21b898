"""What must import without torch does, and starting the command imports next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "sgmft"

TORCH_FREE = (
    "data",
    "features/encode.py",
    "features/post_features.py",
    "features/ragged.py",
    "features/store.py",
    "features/encoders/base.py",
    "features/encoders/batches.py",
    "features/encoders/registry.py",
    "features/encoders/sentence_encoder.py",
    "features/encoders/word_hashes.py",
    "locator/onnx",
    "locator/state.py",
    "utils",
)

NEEDS_TORCH = {
    "sgmft.locator.onnx.export",
    "sgmft.utils.distributed_loss",
    "sgmft.utils.onnx_writer",
}

RUN = """
import importlib, sys
for name in sys.argv[1].split():
    sys.modules[name] = None  # importing it raises ImportError
failed = []
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed.append(f"{name}: {error}")
sys.exit("\\n".join(failed) or None)
"""


def test_what_runs_without_torch_imports_without_it() -> None:
    files = [
        file
        for place in map(ROOT.joinpath, TORCH_FREE)
        for file in (place.rglob("*.py") if place.is_dir() else [place])
    ]
    names = {".".join(file.relative_to(ROOT.parent).with_suffix("").parts) for file in files}
    assert names >= NEEDS_TORCH
    blocked = "torch transformers pandas fastapi"
    modules = sorted(name.removesuffix(".__init__") for name in names - NEEDS_TORCH)
    done = subprocess.run(
        [sys.executable, "-c", RUN, blocked, *modules], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


HELP = "import runpy; sys.argv = ['sgmft', '--help']; runpy.run_module('sgmft', {}, '__main__')"


@pytest.mark.parametrize("start", ["import sgmft", HELP], ids=["package", "help"])
def test_starting_imports_next_to_nothing(start: str) -> None:
    listing = "import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules));"
    command = [sys.executable, "-c", f"{listing} {start}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "sgmft" in loaded and not loaded & {"torch", "numpy", "pyarrow", "PIL"}
