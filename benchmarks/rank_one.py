"""Equations 2 to 5 and 14 in the elements view: interpolated, against exact D x D.

    python benchmarks/rank_one.py

D = 1024, 20 posts, forward and backward, both in one run in turns, on one thread; the median of
ROUNDS ratios and their spread. Errors, of the result and of the worst gradient, are relative to the
largest entry of the exact form in float64. Memory is the peak that one pass adds, and what it adds
at twice the width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measuring import in_turns, print_row
from torch import Tensor

from sgmft.models.sgmft import nodes_needed, rank_one_attention

POSTS, WIDTH, ROUNDS = 20, 1024, 7
Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def exact(queries: Tensor, keys: Tensor, values: Tensor, temperature: Tensor) -> Tensor:
    """S^e = t v^T (B, D, D), its softmax over rows, and equation 14's product."""
    similarity = temperature * queries[:, :, None] @ keys[:, None, :]
    return (similarity.softmax(-1) @ values[:, :, None]).squeeze(-1)


def inputs(temperature: float, width: int, dtype: torch.dtype) -> list[Tensor]:
    """Unit features t and v, values x as a LayerNorm gives them, and the temperature."""
    rng = torch.Generator().manual_seed(0)
    t, v, x = torch.randn(3, POSTS, width, generator=rng)
    sides = [t / t.norm(dim=-1, keepdim=True), v / v.norm(dim=-1, keepdim=True), x]
    sides.append(torch.tensor(temperature))
    return [side.to(dtype).requires_grad_() for side in sides]


def step(attention: Attention, given: list[Tensor]) -> list[Tensor]:
    """The result, and the gradients of a fixed projection of it."""
    result = attention(*given)
    weight = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).reshape(result.shape)
    return [result.detach(), *torch.autograd.grad((result * weight).sum(), given)]


def errors(found: list[Tensor], wanted: list[Tensor]) -> str:
    """Of the result, and the largest of the gradients."""
    pairs = zip(found, wanted, strict=True)
    result, *gradients = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
    return f"{result:.1e} and {max(gradients):.1e}"


def peak(attention: Attention, width: int) -> int:
    """Bytes that the largest tensors of one pass take together, by the profiler."""
    given = inputs(100.0, width, torch.float32)
    with torch.profiler.profile(profile_memory=True) as profile:
        step(attention, given)
    held = most = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def main() -> None:
    torch.set_num_threads(1)
    for temperature in (1.0, 100.0, 1000.0):
        given = inputs(temperature, WIDTH, torch.float32)
        wanted = step(exact, inputs(temperature, WIDTH, torch.float64))
        found = in_turns(
            lambda given=given: step(exact, given),
            lambda given=given: step(rank_one_attention, given),
            ROUNDS,
        )
        theirs, ours = (errors(answer, wanted) for answer in found.answers)
        t, v = given[:2]
        spans = [(x.amax(-1) - x.amin(-1)) / 2 for x in (t, v)]
        count = nodes_needed(float((temperature * spans[0] * spans[1]).detach().max()))
        print_row(
            f"eq. 2–5, 14 by elements, D = {WIDTH}, temperature {temperature:g} "
            f"({'exact form' if count is None else f'{count} nodes'})",
            "exact D × D softmax",
            found.ratio,
            "≥ 10" if count else "about 1",
            f"errors {ours}; exact float32 {theirs}",
        )
    for name, attention in (("exact form", exact), ("ours", rank_one_attention)):
        sizes = [peak(attention, width) for width in (WIDTH, 2 * WIDTH)]
        print_row(
            f"its memory at D = {WIDTH}, {name}",
            "–",
            f"{sizes[0] / 2**20:.1f} MiB",
            "linear in D" if attention is rank_one_attention else "–",
            f"{sizes[1] / sizes[0]:.1f} × that at {2 * WIDTH}",
        )


if __name__ == "__main__":
    main()
