"""What must import without torch does, and starting the command imports next to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic.sample import write_sample

from sgmft.data.posts import Post

ROOT = Path(__file__).parents[1] / "src" / "sgmft"

NEEDS_TORCH = (  # or what comes with it, in sgmft[torch], or with sgmft[serve]
    "evaluation/compare/*",
    "features/encoders/chinese_clip.py",
    "features/encoders/library_encoders.py",
    "jobs/align.py",
    "jobs/compare.py",
    "locator/onnx/writer.py",
    "models/attention.py",
    "models/baselines/compared_transformers.py",
    "models/baselines/unimodal_heads.py",
    "models/baselines/word_systems.py",
    *(f"models/{x}.py" for x in ("fusions", "network", "sgmft")),
    "serving/**/*",
    "training/align.py",
    "training/finetune/network.py",
    "training/trainer.py",
    "__main__.py",  # which runs
)

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
    needing = [set(ROOT.glob(pattern)) for pattern in NEEDS_TORCH]
    assert all(needing)
    files = set(ROOT.rglob("*.py")) - set().union(*needing)
    names = {".".join(file.relative_to(ROOT.parent).with_suffix("").parts) for file in files}
    blocked = "torch transformers accelerate sklearn pandas fastapi"
    modules = sorted(name.removesuffix(".__init__") for name in names)
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
import json, sys
from sgmft.cli.main import main
loaded = {}
for name, words in json.loads(sys.argv[1]).items():
    sys.argv = ["sgmft", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    loaded[name] = [*sys.modules]
print("LOADED", json.dumps(loaded))
"""
SELDOM = "accelerate captum mapie matplotlib onnxscript openpyxl pandas scipy sklearn sympy torch"
SELDOM += " transformers"
COMMANDS = {  # one after another in one process: what a command needs more than those before
    "predict exported": f"predict {EXPORTED} {TABLE} -o out.csv --coverage 0.6",
    "predict": f"predict {MODEL} {TABLE} -o out.csv --coverage 0.6",
    "encode": f"encode {TABLE} -o encoded",
    "suggest": f"suggest {TABLE} -o tasks.csv -n 2",
    "explain": f"explain {MODEL} {TABLE} -o why.html --posts 1",
    "evaluate": f"evaluate {MODEL} {TABLE} -o evaluation",
}
NEEDED = {"evaluate": {"matplotlib", "pandas"}}  # a figure; and pyarrow tries it, for a table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, a model of it with the real encoder, and the same exported."""
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


@pytest.fixture(scope="module")
def loaded(folder: Path) -> dict[str, list[str]]:
    """What is imported after each of the commands."""
    done = subprocess.run(
        [sys.executable, "-c", LISTED, json.dumps(COMMANDS)],
        **{"capture_output": True, "text": True, "cwd": folder},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("LOADED")[2])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_what_it_needs_only(loaded: dict[str, list[str]], name: str) -> None:
    unwanted = set(SELDOM.split()) - NEEDED.get(name, set())
    if name == "predict exported":
        unwanted |= {"huggingface_hub", "pyarrow", "jinja2"}
    assert "numpy" in loaded[name]
    assert not set(loaded[name]) & unwanted


PLAIN = """
import json, sys
from importlib.machinery import PathFinder

ABSENT = {"accelerate", "torch", "transformers"}

class Plain(PathFinder):
    @classmethod
    def find_spec(cls, name, *more):
        return None if name.partition(".")[0] in ABSENT else super().find_spec(name, *more)

sys.meta_path = [Plain if finder is PathFinder else finder for finder in sys.meta_path]
from sgmft.cli.main import main
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["sgmft", *words.split()]
    try:
        codes.append(main())
    except SystemExit as end:
        codes.append(end.code)
assert not ABSENT & sys.modules.keys()
print("CODES", *(code or 0 for code in codes))
"""


def plain(folder: Path, *commands: str) -> tuple[list[int], list[str]]:
    """Commands one after another in a process of the plain installation, as far as torch goes.

    Returns their exit codes and the lines of the standard error.
    """
    environment = {**os.environ, "SGMFT_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, json.dumps(commands)],
        **{"capture_output": True, "text": True, "cwd": folder, "env": environment},
    )
    assert done.returncode == 0, done.stderr
    codes = done.stdout.rpartition("CODES")[2].split()
    return [int(code) for code in codes], [*filter(None, done.stderr.splitlines())]


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Posts with pictures, half of them without a label."""
    folder = tmp_path_factory.mktemp("plain")
    table = write_sample(folder / "posts", posts=14, seed=1, several=0)
    rows = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    half = [row | {"label": None} if i % 2 else row for i, row in enumerate(rows)]
    for name, some in (("half.jsonl", half), (TABLE, rows)):
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in some)
        (folder / "posts" / name).write_text(text + "\n", "utf-8")
    return folder


def test_the_default_needs_no_torch(pictured: Path) -> None:
    table, half = f"posts/{TABLE}", "posts/half.jsonl"
    codes, said = plain(
        pictured,
        f"train {table} -o model",
        f"predict model {table} -o out.csv",
        f"evaluate model {table} -o evaluation",
        f"explain model {table} -o why.html --posts 1",
        f"suggest {half} -o tasks.csv -n 2 --model model",
        f"encode {table} -o encoded",
        "export model -o exported",
        f"predict exported {table} -o exported.csv --coverage 0.6",
        f"train {table} -o probe --method late-average",
        f"predict probe {table} -o probe.csv",
    )
    assert not any(codes), said
    for name in ("out.csv", "tasks.csv", "exported.csv", "probe.csv", "evaluation/report.html"):
        assert (pictured / name).stat().st_size > 100, name
    assert [*(pictured / "cache").rglob("*.onnx")], "pictures were encoded"


@pytest.mark.slow
def test_the_network_of_texts_needs_no_torch(folder: Path) -> None:
    codes, said = plain(
        folder,
        f"train {TABLE} -o e5 --encoder compact-e5",
        f"predict e5 {TABLE} -o e5.csv",
        f"evaluate e5 {TABLE} -o e5-evaluation",
        f"explain e5 {TABLE} -o e5.html --posts 1",
        f"suggest {TABLE} -o e5-tasks.csv -n 2 --model e5",
        "export e5 -o e5-exported",
        f"predict e5-exported {TABLE} -o e5-exported.csv",
    )
    assert not any(codes), said
    assert (folder / "e5.csv").read_text("utf-8") == (folder / "e5-exported.csv").read_text("utf-8")


NEEDS = (
    "--method sgmft",
    "--preset tokens",
    "--encoder chinese-clip-base",
    "--tune lora",
    "--tune lora --encoder chinese-clip-base",
    "--device cuda",
)


def test_what_needs_torch_says_so_before_posts_are_encoded(pictured: Path) -> None:
    commands = (f"train posts/{TABLE} -o refused --features store {words}" for words in NEEDS)
    codes, said = plain(pictured, *commands)
    assert codes == [2] * len(NEEDS) and len(said) == len(NEEDS), said
    for line in said:
        assert line.startswith("sgmft: ") and "pip install 'sgmft[torch]'" in line
    assert not (pictured / "refused").exists() and not (pictured / "store").exists()
