"""What must import without torch does, and starting the command imports next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sgmft.data.posts import Post

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


TABLE, MODEL, EXPORTED = "posts.jsonl", "model", "onnx"
LISTED = """
import runpy, sys
try:
    runpy.run_module("sgmft", {}, "__main__", alter_sys=False)
except SystemExit as end:
    assert not end.code, end.code
print("LOADED", *sys.modules)
"""
SELDOM = "captum mapie matplotlib onnxscript openpyxl pandas scipy sklearn sympy torch._dynamo"
SELDOM += " transformers"
COMMANDS = {
    "predict": f"predict {MODEL} {TABLE} -o out.csv --coverage 0.6",
    "predict exported": f"predict {EXPORTED} {TABLE} -o out.csv --coverage 0.6",
    "evaluate": f"evaluate {MODEL} {TABLE} -o evaluation",
    "explain": f"explain {MODEL} {TABLE} -o why.html --posts 1",
    "encode": f"encode {TABLE} -o encoded",
    "suggest": f"suggest {TABLE} -o tasks.csv -n 2",
}
NEEDED = {"evaluate": {"matplotlib", "pandas"}}  # a figure; and pyarrow tries it, for a table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, a model of it with the real encoder, and the same exported."""
    pytest.importorskip("onnxscript")
    from sgmft import SemanticLocator
    from sgmft.locator.onnx.export import export_model

    folder = tmp_path_factory.mktemp("commands")
    posts = [
        Post(f"{text} {i}", label=label)
        for i in range(8)
        for label, text in (("Home", "在家睡觉"), ("School", "去学校上课"))
    ]
    rows = [{"text": post.text, "label": post.label} for post in posts]
    rows += [{"text": "今天去电影院看电影"}, {"text": "爬山看风景"}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / TABLE).write_text(text + "\n", "utf-8")
    locator = SemanticLocator(features=folder / "features").fit(posts)
    locator.save_pretrained(folder / MODEL)
    export_model(locator, folder / EXPORTED)
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_what_it_needs_only(folder: Path, name: str) -> None:
    words = COMMANDS[name].split()
    start = f"import sys; sys.argv = {['sgmft', *words]!r}\n{LISTED}"
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    unwanted = set(SELDOM.split()) - NEEDED.get(name, set())
    if name == "predict exported":
        unwanted |= {"torch", "huggingface_hub", "pyarrow", "jinja2"}
    assert "onnxruntime" in loaded or "torch" in loaded
    assert not loaded & unwanted
