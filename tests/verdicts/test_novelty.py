"""Whether a suspect answers like any model that calibrated."""

from __future__ import annotations

import numpy as np
import pytest

from metav.verdicts.novelty import FEWEST, known_models


def answers(models: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(models, 3, 1)).astype(np.float32)


def test_models_like_those_that_calibrated_are_not_novel_and_others_are():
    known = known_models(answers(30, seed=0), "identity")
    assert not any(known.novelty(suspect).is_novel for suspect in answers(20, seed=1))
    assert known.novelty(answers(1, seed=2)[0] + 5.0).is_novel


@pytest.mark.parametrize("count", range(1, FEWEST))
def test_of_few_models_nobody_can_tell_what_is_usual(count):
    """Two models are each other's nearest, so that their distances say nothing of how distances differ."""
    known = known_models(answers(count, seed=0), "identity")
    assert not known.novelty(answers(1, seed=2)[0] + 5.0).is_novel


def test_from_the_fewest_on_a_far_one_is_novel():
    known = known_models(answers(FEWEST, seed=0), "identity")
    assert not any(known.novelty(suspect).is_novel for suspect in answers(20, seed=1))
    assert known.novelty(answers(1, seed=2)[0] + 1e6).is_novel
