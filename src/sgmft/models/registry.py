"""Every method by name: SG-MFT and the systems it is compared with."""

from __future__ import annotations

from sgmft.errors import SgmftError
from sgmft.models.baselines import BASELINES, described
from sgmft.models.expert_pool import EvidenceConfig, EvidenceNetwork
from sgmft.models.method import Architecture, Method
from sgmft.models.presets import PRESETS
from sgmft.models.sgmft import SGMFT, ModelConfig

METHODS: dict[str, Method] = {
    "sgmft": Method(
        "sgmft",
        "SG-MFT",
        "arXiv 2405.05760",
        network=SGMFT,
        config=ModelConfig,
        presets=PRESETS,
        variants={"default": Architecture(EvidenceNetwork, EvidenceConfig)},
    ),
    **{method.name: method for method in BASELINES},
}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        SgmftError: there is none.
    """
    if name == described.METHOD.name:  # nothing to train, so it is not among the others
        return described.METHOD
    if name not in METHODS:
        raise SgmftError(f"There is no method {name!r}: use {', '.join(METHODS)}.")
    return METHODS[name]
