"""Classification: what its answers mean, and its natural queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import task_of

from metav.errors import InputError
from metav.tasks.classification import log_probabilities


def test_logits_log_probabilities_and_probabilities_mean_the_same():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.log_softmax(logits, 1)
    for outputs in (logits, expected, expected.exp()):
        assert torch.allclose(log_probabilities(outputs), expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 900), seed=st.integers(0, 3))
def test_natural_queries_are_different_balanced_and_from_the_validation_part_first(count, seed):
    task = task_of("classification")
    queries = task.natural_queries(count, seed=seed)
    assert queries.shape == (count, 1, 8, 8)
    assert torch.equal(queries, task.natural_queries(count, seed=seed))
    rows = {tuple(row) for row in task.examples.flatten(1).tolist()}
    found = [tuple(row) for row in queries.flatten(1).tolist()]
    assert set(found) <= rows
    assert len(set(found)) == len(found)
    held = {tuple(row) for row in task.examples[task.validation_indices].flatten(1).tolist()}
    assert sum(row in held for row in found) == min(count, len(held))


def test_few_natural_queries_hold_each_class_equally():
    task = task_of("classification")
    labels = {
        tuple(row): int(label) for row, label in zip(task.examples.flatten(1).tolist(), task.targets, strict=True)
    }
    found = [labels[tuple(row)] for row in task.natural_queries(50, seed=0).flatten(1).tolist()]
    assert np.bincount(found, minlength=10).tolist() == [5] * 10


def test_too_many_natural_queries_are_refused():
    with pytest.raises(InputError, match=r"count must lie in 1\.\.900"):
        task_of("classification").natural_queries(901, seed=0)
