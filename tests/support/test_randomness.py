"""Derived seeds, and random numbers and threads that leave the user's alone."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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


def test_threads_take_turns_with_the_global_generators(untouched_rng, eager_threads):
    def draws(seed: int) -> list[tuple[float, float, float]]:
        found = []
        for _ in range(20):
            with isolated_rng(seed):
                first = torch.rand(1).item(), np.random.rand(), random.random()
                with isolated_rng(seed + 1):
                    torch.rand(3)
                found.append((*first, torch.rand(1).item()))
        return found

    alone = [draws(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draws, range(4))) == alone


FORKED = """
import os, sys, threading
import numpy, torch
from metav.support.randomness import isolated_rng
torch.manual_seed(1), numpy.random.seed(1)
def states():
    # Python's own is seeded anew in each child, by Python
    return torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist()
before, stop = states(), threading.Event()
def work():
    while not stop.is_set():
        with isolated_rng(3):
            torch.nn.functional.dropout(torch.ones(100_000))
thread = threading.Thread(target=work)
thread.start()
found = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        with isolated_rng(4):
            torch.rand(3)
        os._exit(states() != before)
    found.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
thread.join()
sys.exit(any(found) or states() != before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_the_users_state_and_no_locked_generator():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", FORKED], env=environment, timeout=120, check=False).returncode == 0


def test_single_thread_is_the_number_of_this_thread_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with single_thread(), ThreadPoolExecutor(2) as pool:
            assert torch.get_num_threads() == 1
            assert {pool.submit(torch.get_num_threads).result() for _ in range(4)} == {3}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_single_thread_restores_the_number_of_threads():
    before = torch.get_num_threads()
    with single_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
