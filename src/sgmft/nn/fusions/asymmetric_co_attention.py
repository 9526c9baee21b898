"""Placeholder while it is being written."""

from torch import nn


class AsymmetricCoAttention(nn.Module):
    pass
