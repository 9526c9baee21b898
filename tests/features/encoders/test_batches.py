"""Batches are as large as memory and caches allow, and the same in every run."""

from hypothesis import given, strategies as st

from sgmft.features.encoders import batches
from sgmft.features.encoders.batches import MOST, SHARE, pick_batch

HERE, THERE = "cpu", "cuda"


def with_memory(memory: int, *given) -> int:
    """`pick_batch` on a machine of so many bytes."""
    before, batches._memory = batches._memory, lambda _: memory
    try:
        return pick_batch(*given)
    finally:
        batches._memory = before


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 32), st.integers(1, 64), st.sampled_from("ht"))
def test_a_batch_fits(memory, each, most, where):
    place, limit = (HERE, most) if where == "h" else (THERE, MOST)
    batch = with_memory(memory, place, each, most)
    assert batch & (batch - 1) == 0, "a power of two"
    assert batch == 1 or batch * each <= SHARE * memory
    assert batch <= limit
    assert batch * 2 > limit or batch * 2 * each > int(SHARE * memory), "and no less than fits"


def test_what_machines_get():
    huge = 257 * (6 * 1280 + 2 * 5120) * 2  # ViT-H/14 in bfloat16
    assert with_memory(8 << 30, HERE, huge, 16) == 16
    assert with_memory(24 << 30, THERE, huge, 16) == 128
    assert with_memory(6 << 30, THERE, huge, 16) == 64
    assert pick_batch(HERE, 16 << 20, 8) in (1, 2, 4, 8)
