"""Seeds and random state: every random choice of metav follows from one seed and leaves the user's state alone."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


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
    the user's state. CUDA generators are included once CUDA is in use.
    """
    import torch

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
    """Run the body with one torch thread: sums in a fixed order, and no contention between worker processes."""
    import torch

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
