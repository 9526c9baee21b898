"""What is refused of a model's folder before it is loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgmft.errors import SgmftError
from sgmft.locator.loading import check_model, load_predictor

LARGE = ("torch", "transformers", "uvicorn", "fastapi")


@pytest.fixture
def saved(small_model: Any, tmp_path: Path) -> Path:
    small_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def cut(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[:100])


def without(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def changed(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        text = (model / name).read_text("utf-8")
        assert old in text
        (model / name).write_text(text.replace(old, new), "utf-8")

    return change


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut weights": cut("model.safetensors"),
    "no weights": without("model.safetensors"),
    "cut config": cut("config.json"),
    "no config": without("config.json"),
    "changed config": changed("config.json", '"epochs": 12', '"epochs": 13'),
    "newer": changed("config.json", '"format": 1', '"format": 99'),
    "another's": lambda model: (model / "config.json").write_text("{}"),
    "exported": lambda model: (model / "onnx.json").write_text('{"sgmft": {"format": 1}}'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_refused_as_loading_would(saved: Path, damage: str) -> None:
    check_model(str(saved))
    DAMAGE[damage](saved)
    with pytest.raises(SgmftError) as wanted:
        load_predictor(str(saved))
    with pytest.raises(SgmftError) as found:
        check_model(str(saved))
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize(("name", "runtime"), [("nowhere", None), ("", "onnx"), ("", "tensorflow")])
def test_so_is_what_is_none(tmp_path: Path, name: str, runtime: str | None) -> None:
    model = str(tmp_path / name)
    with pytest.raises(SgmftError) as wanted:
        load_predictor(model, runtime)
    with pytest.raises(SgmftError) as found:
        check_model(model, runtime)
    assert str(found.value) == str(wanted.value)


def test_a_repository_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    check_model("someone/model")


def test_serving_refuses_a_damaged_model_without_what_it_takes_to_serve_one(saved: Path) -> None:
    cut("model.safetensors")(saved)
    program = f"""
import sys
sys.modules.update(dict.fromkeys({LARGE}))  # none of them can be imported
from sgmft.errors import SgmftError
from sgmft.cli.serve import serve_command
try:
    serve_command(sys.argv[1])
except SgmftError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, saved], capture_output=True, text=True, check=True
    )
    assert "model.safetensors is damaged" in done.stdout


def test_a_path_that_the_system_refuses_is_no_model() -> None:
    with pytest.raises(SgmftError, match=r"x cannot be read|There is no model"):
        check_model("x" * 300)
    with pytest.raises(SgmftError, match=r"x cannot be read|There is no model"):
        load_predictor("x" * 300, "torch")
