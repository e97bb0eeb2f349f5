"""Batches of examples: all of them, none too large, no last one of one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metav.support.arrays import batch_sizes


@given(st.integers(0, 2000), st.integers(1, 300))
def test_batches_hold_all_and_leave_no_single_one_behind(count, most):
    sizes = batch_sizes(count, most)
    assert sum(sizes) == count
    assert all(0 < size <= most for size in sizes)
    assert len(sizes) == -(-count // most)
    assert count < 2 or most < 3 or 1 not in sizes
