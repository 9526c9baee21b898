"""What the READMEs show does run: their Python as it stands, their commands as they are parsed."""

from __future__ import annotations

import ast
import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from sgmft.cli.main import app
from sgmft.models.fusions import FUSIONS

ROOT = Path(__file__).parents[1]
NAMES = [
    "README.md",
    "README.zh.md",
    *(f"docs/{x}.md" for x in ("abstention", "compare", "export", "fine-tuning", "serving")),
]
ASKS_A_SERVER = "docs/serving.md"  # its Python is run by tests/serving/test_api.py
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


@pytest.mark.parametrize("name", NAMES)
def test_there_are_examples(name):
    if len((ROOT / name).read_text("utf-8").splitlines()) > 20:
        assert blocks(name, "python") and commands(name)


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
def test_commands_and_options_exist(name, words):
    group = typer.main.get_command(app)
    if words[0] in ("--help", "--plugin"):
        assert any(words[0] in option.opts for option in group.get_params(typer.Context(group)))
        words = words[2:] if words[0] == "--plugin" else []
    if not words:
        return
    assert words[0] in group.commands, f"{name}: there is no command {words[0]}"
    with group.make_context("sgmft", list(words), resilient_parsing=True) as context:
        group.commands[words[0]].make_context(words[0], list(words[1:]), parent=context).close()


@pytest.mark.parametrize("name", NAMES)
def test_options_named_in_the_text_exist(name):
    group = typer.main.get_command(app)
    known = {"--help"}
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


@pytest.mark.parametrize("name", NAMES)
def test_links_to_files_lead_somewhere(name):
    text = FENCE.sub("", (ROOT / name).read_text("utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param(*item, id=item[0], marks=[pytest.mark.slow] if item[0] != "README.md" else [])
        for item in programs().items()
    ],
)
def test_python_runs(name, code, sample, trained, tmp_path, monkeypatch):
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
    monkeypatch.setattr("sgmft.models.fusions.FUSIONS", dict(FUSIONS))  # what an example registers
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(code, 1):
        exec(compile(block, f"{name}, Python block {number}", "exec"), names)
