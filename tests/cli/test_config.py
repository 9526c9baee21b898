"""Options from a TOML file: as if typed, and what is typed wins."""

from typing import Annotated

import pytest
import typer
from typer import Option
from typer.testing import CliRunner

from sgmft.cli.options import Config, read_config, write_config
from sgmft.errors import SgmftError

app = typer.Typer(add_completion=False)
seen = {}


@app.command()
def command(
    context: typer.Context,
    table: str,
    output: Annotated[str, Option("--output", "-o")],
    by: Annotated[list[str] | None, Option()] = None,
    settings: Annotated[list[str] | None, Option("--set")] = None,
    split_seed: Annotated[int, Option(min=0)] = 0,
    tables: Annotated[str | None, Option()] = None,
    strict: Annotated[bool, Option()] = False,
    config: Config = None,
) -> None:
    """Note what it is given."""
    seen.update(context=context, **context.params)


def given(path, text, *words):
    path.write_text(text, "utf-8")
    seen.clear()
    done = CliRunner().invoke(app, ["--config", str(path), *words], standalone_mode=False)
    if done.exception:
        raise done.exception
    return {name: value for name, value in seen.items() if name not in ("context", "config")}


TEXT = """
table = "家.csv"
output = "report/"
by = ["user", "week day"]
set = { epochs = 3, joint = false, classifier_widths = [12, 3] }
split-seed = 7
tables = [1, 2]
strict = true
"""


def test_values_are_taken_as_if_typed_and_what_is_typed_wins(tmp_path):
    found = given(tmp_path / "c.toml", TEXT)
    assert found == {
        "table": "家.csv",
        "output": "report/",
        "by": ["user", "week day"],
        "settings": ["epochs=3", "joint=false", "classifier_widths=12,3"],
        "split_seed": 7,
        "tables": "1,2",
        "strict": True,
    }
    typed = given(tmp_path / "c.toml", TEXT, "my.csv", "-o", "x", "--by", "a", "--no-strict")
    assert typed == found | {"table": "my.csv", "output": "x", "by": ["a"], "strict": False}
    one = given(tmp_path / "c.toml", 'table = "t"\noutput = "o"\nby = "user"\n')
    assert one["by"] == ["user"] and one["tables"] is None


def test_a_written_file_gives_the_same_again(tmp_path):
    words = ['"quoted" \\ 家.csv', "-o", "a\nb", "--by", "x", "--split-seed", "3"]
    found = given(tmp_path / "c.toml", "", *words)
    write_config(seen["context"], tmp_path / "again.toml", "sgmft compare\n--by x")
    text = (tmp_path / "again.toml").read_text("utf-8")
    assert text.startswith("# sgmft compare --by x\n")
    assert given(tmp_path / "c.toml", text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("split-sed = 1", "there is no option 'split-sed'.*Did you mean 'split-seed'"),
        ("split-seed = 'x'", "split-seed = 'x': .*integer"),
        ("split-seed = -1", "split-seed = -1: .*0"),
        ("split-seed = true", "split-seed = True: .*integer"),
        ("strict = 'perhaps'", "strict = 'perhaps': .*boolean"),
        ("split-seed = ", r"cannot be read as TOML: .*at end of document"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path, text, message):
    with pytest.raises(SgmftError, match=rf"c\.toml.*{message}"):
        given(tmp_path / "c.toml", text)
    with pytest.raises(SgmftError, match=r"nothing\.toml cannot be read"):
        read_config(seen.get("context"), str(tmp_path / "nothing.toml"))


@pytest.mark.parametrize("name", ["compare", "train"])
def test_the_commands_that_take_a_file(run, tmp_path, name):
    (tmp_path / "c.toml").write_text('table = "posts.csv"\noutput = "model"\nencodr = "x"', "utf-8")
    done = run(name, "--config", "c.toml", cwd=tmp_path)
    assert done.returncode == 2 and "c.toml: there is no option 'encodr'" in done.stderr
    (tmp_path / "c.toml").write_text('table = "posts.csv"\noutput = "model"', "utf-8")
    done = run(name, "--config", "c.toml", cwd=tmp_path)
    assert done.returncode == 2 and "There is no file posts.csv" in done.stderr
