"""The networks: the default, SG-MFT, the systems they are compared with, and their registry."""

from sgmft.features.batch import Batch
from sgmft.models.base import Network, NetworkConfig, Output
from sgmft.models.sgmft import SGMFT, ModelConfig
from sgmft.models.similarity import Guidance

__all__ = ["SGMFT", "Batch", "Guidance", "ModelConfig", "Network", "NetworkConfig", "Output"]
