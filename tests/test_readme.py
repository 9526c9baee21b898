"""The documentation holds: its Python runs, its commands parse, its links and references exist."""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sample
import typer

from sgmft.cli.main import app
from sgmft.features.encoders.registry import ENCODERS
from sgmft.models.fusions import FUSIONS
from sgmft.models.registry import METHODS

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "examples" / "notebooks"
NAMES = [
    *("README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
]
ASKS_A_SERVER = "docs/serving.md"  # its Python is run by tests/serving/test_api.py
QUICK = ("README.md", "docs/python.md", "docs/features-table.md")
SHELL = ("bash", "console", "sh", "shell", "")
FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def blocks(name: str, *languages: str) -> list[str]:
    text = (ROOT / name).read_text("utf-8")
    return [body for _, language, body in FENCE.findall(text) if language in languages]


def commands(name: str) -> list[list[str]]:
    """Every `sgmft ...` of the shell blocks as its words, also behind a prompt, `|` or `&&`."""
    found = []
    for block in blocks(name, *SHELL):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
            for part in " ".join(map(shlex.quote, words)).split("'|'"):
                for command in part.split("'&&'"):
                    if (words := shlex.split(command)) and words[0] == "sgmft":
                        found.append(words[1:])
    return found


def programs() -> dict[str, list[str]]:
    """Python blocks by README; a translation whose code is the same is not run twice."""
    found: dict[str, list[str]] = {}
    for name in NAMES:
        if name == ASKS_A_SERVER:
            continue
        code = blocks(name, "python")
        meant = [ast.dump(ast.parse(block)) for block in code]
        if meant not in [[ast.dump(ast.parse(b)) for b in other] for other in found.values()]:
            found[name] = code
    return found


def paragraphs(text: str) -> list[str]:
    """Paragraphs and list items of Markdown, without code, tables and headings."""
    lines = FENCE.sub("\n", text).splitlines()
    kept = ["" if line.startswith(("|", "#", "<!--")) else line for line in lines]
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", "\n".join(kept))
    return [" ".join(part.split()) for part in parts if part.strip()]


def length(paragraph: str) -> float:
    """Words; a Chinese one is taken to have two characters."""
    text = re.sub(r"\]\([^)]*\)|`[^`]*`", " code ", paragraph)
    return (
        len(re.findall(r"[^\W\u4e00-\u9fff]+", text))
        + len(re.findall(r"[\u4e00-\u9fff]", text)) / 2
    )


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def group() -> Any:
    """The commands with their options."""
    return typer.main.get_command(app)


@pytest.fixture
def registries() -> Iterator[None]:
    """What examples register is taken away again."""
    before = [(registry, dict(registry)) for registry in (ENCODERS, FUSIONS, METHODS)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.mark.parametrize("page", ["commands.md", "settings.md", "http-api.md", "python.md"])
def test_reference_pages_are_what_the_code_says(reference, page):
    written = (ROOT / "docs" / page).read_text("utf-8")
    assert written == reference.PAGES[page](), "run `python docs/reference.py`"


def test_the_readmes_are_short_and_have_examples():
    for name in ("README.md", "README.zh.md"):
        assert len((ROOT / name).read_text("utf-8").splitlines()) <= 130
        assert blocks(name, "python") and commands(name)


@pytest.mark.parametrize("name", NAMES)
def test_paragraphs_are_short(name):
    for paragraph in paragraphs((ROOT / name).read_text("utf-8")):
        assert length(paragraph) <= 70, paragraph


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name):
    text = (ROOT / name).read_text("utf-8")
    for path in re.findall(r"(?<![\w/.])(?:src|tests|benchmarks|docs)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), f"{name} names {path}"
    for path in re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", text):
        assert any((folder / path).exists() for folder in (ROOT, ROOT / "src" / "sgmft")), path


def test_command_lines_are_found(tmp_path, monkeypatch):
    text = (
        "```bash\n$ sgmft a x \\\n  -o 'y z'  # why\ncat f | sgmft b - && sgmft c\nls sgmft\n```\n"
    )
    (tmp_path / "R.md").write_text(text)
    monkeypatch.setattr("test_readme.ROOT", tmp_path)
    assert commands("R.md") == [["a", "x", "-o", "y z"], ["b", "-"], ["c"]]


@pytest.mark.parametrize(
    ("name", "words"),
    [(name, words) for name in NAMES for words in commands(name)],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_commands_and_options_exist(name, words, group):
    if words[0] in ("--help", "--plugin"):
        assert any(words[0] in option.opts for option in group.get_params(typer.Context(group)))
        words = words[2:] if words[0] == "--plugin" else []
    if not words:
        return
    assert words[0] in group.commands, f"{name}: there is no command {words[0]}"
    with group.make_context("sgmft", list(words), resilient_parsing=True) as context:
        group.commands[words[0]].make_context(words[0], list(words[1:]), parent=context).close()


@pytest.mark.parametrize("name", NAMES)
def test_options_named_in_the_text_exist(name, group):
    known = {"--help", *(f"--{option}" for option in signature(sample.run).parameters)}
    for command in (group, *group.commands.values()):
        for option in command.params:
            known |= {*option.opts, *option.secondary_opts}
    prose = FENCE.sub("", (ROOT / name).read_text("utf-8"))
    code = re.findall(r"`([^`\n]+)`", prose)
    named = {
        word.partition("=")[0]
        for text in code
        if text.startswith(("--", "sgmft "))
        for word in text.split()
        if word.startswith("--")
    }
    assert named <= known


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    text = FENCE.sub("", (ROOT / name).read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            path, _, anchor = target.partition("#")
            page = (ROOT / name).parent / path if path else ROOT / name
            assert page.exists(), f"{name} links to {target}"
            assert not anchor or anchor in anchors(page), f"{name} links to {target}"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param(*item, id=item[0], marks=[] if item[0] in QUICK else [pytest.mark.slow])
        for item in programs().items()
    ],
)
def test_python_runs(name, code, sample, trained, registries, tmp_path, monkeypatch):
    """In order, in a folder with a table of posts and a trained model."""
    shutil.copytree(sample.parent / "images", tmp_path / "images")
    shutil.copytree(trained, tmp_path / "model")
    with (tmp_path / "posts.csv").open("w", encoding="utf-8", newline="") as file:
        columns = ["id", "user", "text", "images", "label"]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for line in sample.read_text("utf-8").splitlines():
            row = json.loads(line)
            if len(row["images"]) < 3:  # drawing out what many pictures cost
                writer.writerow(row | {"images": "|".join(row["images"])})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(code, 1):
        if "import mlflow" in block:
            pytest.importorskip("mlflow")
        exec(compile(block, f"{name}, Python block {number}", "exec"), names)


def cells(name: str, kind: str) -> list[str]:
    notebook = json.loads((NOTEBOOKS / name).read_text("utf-8"))
    return ["".join(x["source"]) for x in notebook["cells"] if x["cell_type"] == kind]


@pytest.mark.slow  # what they show is made by `make notebooks`
@pytest.mark.parametrize("name", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def test_notebooks_run(name, registries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(name, "code"), 1):
        first, _, rest = cell.partition("\n")
        if first == "%%bash":
            subprocess.run(["bash", "-e", "-c", rest], check=True)
        elif first.startswith("%%writefile "):
            (tmp_path / first.split()[1]).write_text(rest, "utf-8")
        else:
            exec(compile(cell, f"{name}, cell {number}", "exec"), names)


def test_notebooks_have_outputs_and_links_that_lead_somewhere():
    for path in NOTEBOOKS.glob("*.ipynb"):
        made = [x for x in json.loads(path.read_text("utf-8"))["cells"] if x.get("outputs")]
        assert made and not re.search(r"/(tmp|home|work)/|Traceback", json.dumps(made))
        for target in re.findall(r"\]\((\.\.[^)]+)\)", "\n".join(cells(path.name, "markdown"))):
            assert (NOTEBOOKS / target).exists(), f"{path.name} links to {target}"
