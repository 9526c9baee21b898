"""Fusion modules (Table 3): one file each, one signature, exchangeable by name.

A fusion module is built as `Module(width, heads, layers)` and called as
`module(text, image, text_mask, image_mask)`: in the tokens view features (B, n, D) and (B, m, D)
with masks that are True where a token is real, in the elements view (B, D) each and no masks. It
returns M_fuse (B, D). A module of your own takes one line, `FUSIONS["mine"] = Mine`, and is then
asked for as `fusion="mine"`; docs/compare.md has a worked example.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sgmft.nn.fusions.asymmetric_co_attention import AsymmetricCoAttention
from sgmft.nn.fusions.co_attention import CoAttention
from sgmft.nn.fusions.merge_attention import MergeAttention
from sgmft.nn.fusions.similarity_aware import SimilarityAwareFusion
from sgmft.nn.fusions.sum import SumFusion
from sgmft.nn.heads import Heads

FUSIONS: dict[str, Callable[[int, Heads, int], nn.Module]] = {
    "sfm": SimilarityAwareFusion,
    "sum": SumFusion,
    "asymmetric-co-attention": AsymmetricCoAttention,
    "merge-attention": MergeAttention,
    "co-attention": CoAttention,
}
