"""Derived seeds, and random numbers and threads that leave the user's alone."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from metav.support.randomness import derive_seed, isolated_rng, single_thread


def test_derived_seeds_differ_by_seed_label_and_type():
    seeds = [derive_seed(1, "a", "bc"), derive_seed(1, "ab", "c"), derive_seed(2, "a", "bc")]
    seeds += [derive_seed(1, 1), derive_seed(1, "1"), derive_seed(1)]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_seed_is_the_same_on_every_machine():
    assert derive_seed(0, "zoo", 3) == 7192981246089765247


def test_isolated_rng_is_seeded_and_restored_even_after_an_error(untouched_rng):
    def draw_and_fail() -> None:
        with isolated_rng(5):
            draws.append((torch.rand(1).item(), np.random.rand(), random.random()))
            raise KeyError("on purpose")

    draws: list[tuple[float, float, float]] = []
    for _ in range(2):
        with pytest.raises(KeyError, match="on purpose"):
            draw_and_fail()
    assert draws[0] == draws[1]


def test_single_thread_restores_the_number_of_threads():
    before = torch.get_num_threads()
    with single_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
