"""Softmax attention whose logits are an outer product, in time and memory linear in D.

In the elements view row i of P^e depends on the text only through the scalar t_i, so equation 14
is X_inter,i = g(t_i) with one smooth function

    g(s) = sum_j softmax_j(tau s v_j) x_j,

which is interpolated at G Chebyshev nodes between min(t) and max(t): O(D G) instead of O(D^2).
docs/method.md derives the smallest G that suffices; where that exceeds `MAX_NODES`, or D is so
small that it would not pay, the exact form is used.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-7  # of the largest value's size: float32 rounding
MAX_NODES = 96
THETA = 1.3  # radians


def rank_one_attention(queries: Tensor, keys: Tensor, values: Tensor, tau: Tensor) -> Tensor:
    """Equation 14 in the elements view: X_inter = softmax(tau t v^T) x, all (B, D).

    It is within `TOLERANCE` times the largest |x| of the exact form, up to rounding. Gradients can
    be taken once: the slope of g counts as a constant.
    """
    return _interpolate(lambda p: (p @ values[:, :, None]).squeeze(-1), tau * queries, keys)


def rank_one_entropy(queries: Tensor, keys: Tensor, tau: Tensor) -> Tensor:
    """Entropy in nats of each row of softmax(tau t v^T): (B, D)."""
    return _interpolate(lambda p: torch.special.entr(p).sum(-1), tau * queries, keys)


def nodes_needed(rho: float) -> int | None:
    """Chebyshev nodes that keep the error under `TOLERANCE`; None where that takes too many."""
    if not math.isfinite(rho):
        return None
    if rho < 1e-6:
        return 4
    slope = THETA / rho
    radius = slope + math.sqrt(1 + slope * slope)
    constant = 4 / math.cos(THETA) / (radius - 1)
    count = 1 + math.ceil(max(3.0, math.log(constant / TOLERANCE) / math.log(radius)))
    return count if count <= MAX_NODES else None


def _interpolate(reduce: Callable[[Tensor], Tensor], points: Tensor, keys: Tensor) -> Tensor:
    """`reduce` (.., D) -> (..) of the softmax over keys (B, D) at every point (B, D).

    By its values at Chebyshev nodes where that is safe. So is its slope, for the gradients of the
    points: the interpolant's own would magnify rounding.
    """
    # Around zero no softmax over the keys changes, and the logits are small.
    low, high = keys.detach().amin(-1, keepdim=True), keys.detach().amax(-1, keepdim=True)
    keys = keys - (low + high) / 2

    def function(points: Tensor) -> Tensor:
        return reduce((points[:, :, None] * keys[:, None, :]).softmax(-1))  # (B, G, D) -> (B, G)

    if torch.compiler.is_exporting():  # which form is safe depends on the posts
        return function(points)
    with torch.no_grad():
        low, high = points.amin(-1, keepdim=True), points.amax(-1, keepdim=True)
        spread = (keys.amax(-1, keepdim=True) - keys.amin(-1, keepdim=True)) / 2
        centre = (low + high) / 2
        half = torch.maximum(high - centre, centre - low)
        count = nodes_needed(float((half * spread).max()))
    if count is None or 2 * count >= points.shape[-1]:
        return function(points)
    index = torch.arange(count, dtype=torch.float64, device=points.device)
    angles = (index + 0.5) * math.pi / count
    transform = (index[:, None] * angles).cos() * 2 / count  # (G, G): node values -> coefficients
    transform[0] /= 2
    transform = transform.to(points.dtype).T
    nodes = centre + half * angles.cos().to(points.dtype)  # (B, G)
    tiny = torch.finfo(half.dtype).tiny
    z = (points.detach() - centre) / half.clamp(min=tiny)  # (B, D) in [-1, 1]
    if not (torch.is_grad_enabled() and points.requires_grad):
        return _clenshaw(function(nodes) @ transform, z)
    at_nodes = function(nodes.requires_grad_())
    slopes = torch.autograd.grad(at_nodes.sum(), nodes, retain_graph=True)[0]
    slope = _clenshaw(slopes @ transform, z)  # (B, D)
    return _clenshaw(at_nodes @ transform, z) + slope * (points - points.detach())


def _clenshaw(coefficients: Tensor, z: Tensor) -> Tensor:
    """The series (B, G) of Chebyshev polynomials at z (B, D) in [-1, 1], by his recurrence."""
    ahead, current = torch.zeros_like(z), torch.zeros_like(z)
    for k in range(coefficients.shape[1] - 1, 0, -1):
        ahead, current = current, coefficients[:, k : k + 1] + 2 * z * current - ahead
    return coefficients[:, :1] + z * current - ahead
