"""Seeds and random state: every random choice of metav follows from one seed and leaves the user's state alone."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from metav.support.locks import ForkSafeLock

MOST_SECONDS_BEFORE_FORK = 1.0
"""How long a fork waits for another thread that has seeded the global generators."""

_GENERATORS = ForkSafeLock()
_THREADS = ForkSafeLock()
_WAITED: list[bool] = []


def derive_seed(seed: int, *labels: str | int) -> int:
    """Return a seed in [0, 2**63) that depends on `seed` and all `labels`, the same on every machine (SHA-256).

    labels: what the seed is for, so that each purpose draws numbers of its own.
    """
    # each part starts with its type and length: ("ab", "c") and ("a", "bc"), or 1 and "1", must not give one text
    parts = [f"{type(part).__name__}:{len(str(part))}:{part}" for part in (int(seed), *labels)]
    digest = hashlib.sha256("|".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Run the body with the global generators of torch, NumPy and Python seeded, then restore all of them exactly.

    Model initialisation and dropout draw from torch's global generator; this is how they get a seed without touching
    the user's state. CUDA generators are included once CUDA is in use. Since they are the process's, one thread does
    this at a time and others wait; a thread that draws from them otherwise is not held up, and must not run meanwhile.
    """
    import torch

    with _GENERATORS:
        torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
        cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        try:
            torch.default_generator.manual_seed(seed)
            if cuda_states is not None:
                torch.cuda.manual_seed_all(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            torch.set_rng_state(torch_state)
            if cuda_states is not None:
                torch.cuda.set_rng_state_all(cuda_states)
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@contextmanager
def single_thread() -> Iterator[None]:
    """Run the body with one torch thread: sums in a fixed order, and no contention between worker processes.

    Other threads keep their number.
    """
    import torch

    with _THREADS:
        threads = torch.get_num_threads()
        if threads != 1:
            torch.set_num_threads(1)
            # the number holds for this thread, but also for all that use torch later on for the first time: those get
            # the program's own from a thread that sets it again
            again = threading.Thread(target=torch.set_num_threads, args=(threads,))
            again.start()
            again.join()
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _wait_before_fork() -> None:
    """Let another thread restore the generators, so that the child has the user's state, and none locked for ever."""
    _WAITED.append(_GENERATORS.acquire(timeout=MOST_SECONDS_BEFORE_FORK))


def _go_on_after_fork() -> None:
    if _WAITED.pop():
        _GENERATORS.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_before_fork, after_in_parent=_go_on_after_fork, after_in_child=_go_on_after_fork)
