"""Placeholder while it is being written."""

from torch import nn


class CoAttention(nn.Module):
    pass
