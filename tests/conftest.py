"""What all tests share: threads that do not wait for each other, and a check on the global random states."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator

import numpy as np
import pytest

# before anything imports PyTorch: processes that share the cores take one thread each, or wait for each other
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# what trains in this process can be watched, and does not depend on how busy the machine is
os.environ.setdefault("METAV_JOBS", "1")


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns so often that what they share without guarding it shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def untouched_rng() -> Iterator[None]:
    """The global random states, of Python, NumPy and PyTorch, come back as they were."""
    import torch

    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    yield
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
