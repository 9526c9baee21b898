"""Python files of a user's own that register a fusion module, a method or an encoder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from sgmft.errors import SgmftError

LOADED: list[str] = []
"""Absolute paths of the files loaded so far; a comparison's workers load them too."""


def load_plugin(path: str | Path) -> None:
    """Run a Python file once, so that its methods and modules are known by name.

    It runs with all the rights of this process: only load files you trust.

    Raises:
        SgmftError: there is no such file, or it cannot be run.
    """
    file = Path(path).absolute()
    if str(file) in LOADED:
        return
    spec = importlib.util.spec_from_file_location(f"sgmft_plugin_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise SgmftError(f"There is no Python file {path} to load.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        moved = (error.name or "").startswith("sgmft.")
        hint = "; modules moved after sgmft 0.1, see CHANGELOG.md" if moved else ""
        raise SgmftError(f"{path} cannot be loaded: {error}{hint}.") from error
    except Exception as error:
        raise SgmftError(f"{path} cannot be loaded: {type(error).__name__}: {error}.") from error
    LOADED.append(str(file))
