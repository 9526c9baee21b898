"""Every method by name: the default, SG-MFT and the systems it is compared with."""

from __future__ import annotations

from sgmft.errors import SgmftError
from sgmft.models import gated_experts, sgmft
from sgmft.models.baselines import BASELINES
from sgmft.models.baselines.zero_shot import DESCRIBED
from sgmft.models.method import Method

METHODS: dict[str, Method] = {
    method.name: method for method in (gated_experts.METHOD, sgmft.METHOD, *BASELINES)
}

DEFAULT = gated_experts.METHOD.name


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
    """The method of that name; of none the default, or SG-MFT for a preset of its.

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
