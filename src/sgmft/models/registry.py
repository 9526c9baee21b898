"""Every method by name: the default, SG-MFT and those compared with it; and users' plugins."""

import importlib.util
import sys
from collections import UserDict
from pathlib import Path
from typing import Any

from sgmft.errors import TEXTS, SgmftError, check_name, needs_extra
from sgmft.features.encoders.registry import ENCODERS, PLUGINS
from sgmft.models.method import LISTED, Method
from sgmft.utils.checksums import file_digest

DEFAULT, DESCRIBED = "gated-experts", "described"  # the latter is not trained


class _Methods(UserDict[str, Method]):
    """Methods, which are entries of methods.toml until they are looked up: many need torch."""

    def __getitem__(self, name: str) -> Method:
        found: Any = self.data[name]
        if isinstance(found, dict):
            with needs_extra("torch", f"The method {name}"):
                found = self.data[name] = Method.listed(name)
        return found


METHODS = _Methods({name: LISTED[name] for name in LISTED if name != DESCRIBED})
LOADED: list[str] = []  # absolute paths of plugins, which other processes load too


def get_method(name: str) -> Method:
    """The method of that name; SgmftError where there is none."""
    if name == DESCRIBED:
        return Method.listed(name)
    check_name(name, METHODS, "There is no method")
    return METHODS[name]


def find_method(name: str | None = None, preset: Any = None) -> Method:
    """The method of that name; without one the default, or SG-MFT for one of its presets."""
    if name is not None:
        if name == "sgmft" and preset == "default":
            raise SgmftError(TEXTS["preset of before"], method=DEFAULT)
        return get_method(name)
    if preset is None or preset in METHODS[DEFAULT].presets:
        return METHODS[DEFAULT]
    if preset in (presets := METHODS["sgmft"].presets):
        return METHODS["sgmft"]
    raise SgmftError(TEXTS["no preset"], name=preset, known=", ".join(presets))


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
    except Exception as error:
        moved = isinstance(error, ImportError) and (error.name or "").startswith("sgmft.")
        kind = "plugin of before" if moved else "bad plugin"
        reason = f"{type(error).__name__}: {error}"
        raise SgmftError(TEXTS[kind], path=path, reason=reason) from error
    LOADED.append(str(file))
    plugin = {"file": file.name, "digest": file_digest(file)}
    PLUGINS.update({x: plugin for x, new in ENCODERS.items() if new is not before.get(x)})
