"""Every method by name: the default, SG-MFT and those compared with it; and users' plugins."""

import importlib.util
import pkgutil
import sys
from collections import UserDict
from pathlib import Path
from typing import Any

from sgmft.errors import SgmftError, check_name, needs_extra
from sgmft.features.encoders.registry import ENCODERS, PLUGINS
from sgmft.models.baselines.zero_shot import DESCRIBED
from sgmft.models.method import LISTED, Method
from sgmft.utils.checksums import file_digest


class _Methods(UserDict[str, Method]):
    """Methods, which are names of objects until they are looked up: many need torch."""

    def __getitem__(self, name: str) -> Method:
        found: Any = self.data[name]
        if isinstance(found, str):
            with needs_extra("torch", f"The method {name}"):
                found = pkgutil.resolve_name(f"sgmft.models.{found}")
            self.data[name] = found
        return found


_OBJECTS: Any = {name: texts["object"] for name, texts in LISTED.items()}
del _OBJECTS[DESCRIBED.name]  # nothing to train, so it is not among the others
METHODS = _Methods(_OBJECTS)

DEFAULT = "gated-experts"
LOADED: list[str] = []  # absolute paths of plugins, which other processes load too


def get_method(name: str) -> Method:
    """The method of that name; SgmftError where there is none."""
    if name == DESCRIBED.name:
        return DESCRIBED
    check_name(name, METHODS, "There is no method")
    return METHODS[name]


def find_method(name: str | None = None, preset: Any = None) -> Method:
    """The method of that name; without one the default, or SG-MFT for one of its presets."""
    if name is not None:
        if name == "sgmft" and preset == "default":
            fix = f"use --method {DEFAULT} (method={DEFAULT!r}), or leave it out for sgmft's first"
            raise SgmftError(f"The preset 'default' of sgmft is a method of its own: {fix}.")
        return get_method(name)
    if preset is None or preset in METHODS[DEFAULT].presets:
        return METHODS[DEFAULT]
    if preset in (presets := METHODS["sgmft"].presets):
        return METHODS["sgmft"]
    use = f"use {', '.join(presets)}, which are of sgmft, or name the method too"
    raise SgmftError(f"There is no preset {preset!r}: {use}.")


def load_plugin(path: str | Path) -> None:
    """Run a Python file of a user's once, with all rights, so that what it registers is known."""
    file = Path(path).absolute()
    if str(file) in LOADED:
        return
    spec = importlib.util.spec_from_file_location(f"sgmft_plugin_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise SgmftError(f"There is no Python file {path} to load.")
    module, before = importlib.util.module_from_spec(spec), dict(ENCODERS)
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
    plugin = {"file": file.name, "digest": file_digest(file)}
    PLUGINS.update({x: plugin for x, new in ENCODERS.items() if new is not before.get(x)})
