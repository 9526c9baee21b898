"""Every method by name: the default, SG-MFT and those compared with it; and users' plugins."""

import importlib.util
import sys
from pathlib import Path

from sgmft.errors import SgmftError
from sgmft.models import gated_experts, sgmft
from sgmft.models.baselines import BASELINES
from sgmft.models.baselines.zero_shot import DESCRIBED
from sgmft.models.method import Method

METHODS: dict[str, Method] = {
    method.name: method for method in (gated_experts.METHOD, sgmft.METHOD, *BASELINES)
}

DEFAULT = gated_experts.METHOD.name
LOADED: list[str] = []  # absolute paths of plugins, which a comparison's workers load too


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        SgmftError: there is none.
    """
    if name == DESCRIBED.name:  # nothing to train, so it is not among the others
        return DESCRIBED
    if name not in METHODS:
        raise SgmftError(f"There is no method {name!r}: use {', '.join(METHODS)}.")
    return METHODS[name]


def find_method(name: str | None = None, preset: str | None = None) -> Method:
    """The method of that name; without one the default, or SG-MFT for one of its presets.

    Raises:
        SgmftError: there is no such method, or the preset is not one of SG-MFT's any more.
    """
    if name is not None:
        if name == sgmft.METHOD.name and preset == "default":
            raise SgmftError(
                f"The preset 'default' of sgmft is a method of its own: use --method {DEFAULT} "
                f"(method={DEFAULT!r}), or a preset of sgmft: {', '.join(sgmft.PRESETS)}."
            )
        return get_method(name)
    if preset is None or preset in METHODS[DEFAULT].presets:
        return METHODS[DEFAULT]
    if preset in sgmft.PRESETS:
        return sgmft.METHOD
    raise SgmftError(
        f"There is no preset {preset!r}: use {', '.join(sgmft.PRESETS)}, which are of sgmft, or "
        "name the method too."
    )


def load_plugin(path: str | Path) -> None:
    """Run a Python file of a user's once, so that what it registers is known by name.

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
