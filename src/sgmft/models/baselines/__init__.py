"""The systems SG-MFT is compared with: one file each, one signature for all."""

from sgmft.models.baselines import (
    balance_mla,
    bridgetower,
    feature_level_cnn,
    linear_probe,
    low_rank,
    mplug,
    unis_mmc,
    word_average,
    zero_shot,
)
from sgmft.models.method import Method

BASELINES: tuple[Method, ...] = (
    mplug.METHOD,
    unis_mmc.METHOD,
    bridgetower.METHOD,
    balance_mla.METHOD,
    feature_level_cnn.METHOD,
    low_rank.METHOD,
    word_average.METHOD,
    *linear_probe.METHODS,
    zero_shot.METHOD,
)
