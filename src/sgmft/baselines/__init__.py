"""The systems SG-MFT is compared with: one file each, one signature for all."""

from __future__ import annotations

from sgmft.baselines.base import Method

BASELINES: tuple[Method, ...] = ()
