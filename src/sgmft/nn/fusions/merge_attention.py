"""Placeholder while it is being written."""

from torch import nn


class MergeAttention(nn.Module):
    pass
