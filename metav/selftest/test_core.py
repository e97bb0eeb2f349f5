"""The C core that is installed: the one that belongs to these files, with right numbers in every thread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.support.processor import cpu_info, get_num_threads, set_num_threads
from metav.support.versions import version_of


def _responses() -> NDArray[np.float32]:
    generator = np.random.default_rng(0)
    return generator.normal(scale=3.0, size=(40, 25, 10)).astype(np.float32)


def test_the_core_is_of_the_version_that_is_installed() -> None:
    """The extension was built from the same release as the Python files."""
    assert _core.__version__ == version_of()


def test_the_processor_is_recognised() -> None:
    """There is at least the generic instruction set, and one thread."""
    info = cpu_info()
    assert info.isa in info.isas
    assert "generic" in info.isas
    assert info.threads >= 1


def test_log_probabilities_are_those_of_numpy_in_double_precision() -> None:
    """The view that classifiers are read by, against its formula."""
    responses = _responses()
    wide = responses.astype(np.float64)
    shifted = wide - wide.max(axis=2, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    found = np.asarray(_core.apply_view(responses, "logprob")).reshape(expected.shape)
    assert np.abs(found - np.maximum(expected, found.min())).max() < 1e-4


def test_any_number_of_threads_gives_the_same_bits() -> None:
    """Results do not depend on how the work is split."""
    before = get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            found.append(np.asarray(_core.apply_view(_responses(), "tempered")))
    finally:
        set_num_threads(before)
    assert all(np.array_equal(found[0], other) for other in found[1:])
