"""The network: one idea per file, each equation named where it is computed."""

from sgmft.nn.batch import Batch
from sgmft.nn.model import SGMFT, ModelConfig
from sgmft.nn.network import Network, NetworkConfig, Output
from sgmft.nn.similarity import Guidance

__all__ = ["SGMFT", "Batch", "Guidance", "ModelConfig", "Network", "NetworkConfig", "Output"]
