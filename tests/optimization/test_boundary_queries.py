"""Queries on the owner's decision boundary."""

from __future__ import annotations

import numpy as np
import torch
from small_fingerprints import small_owner, small_task
from torch import nn

from metav.optimization.boundary_queries import boundary_queries


class Halves(nn.Module):
    """Two classes that meet where the first number of an input is 0.3."""

    def forward(self, inputs):
        first = inputs.flatten(1)[:, 0] - 0.3
        return torch.stack([-first, first], dim=1)


def test_boundary_queries_lie_where_the_owners_label_changes_between_two_natural_inputs():
    task = small_task()
    examples = np.random.default_rng(0).random((60, *task.input_shape), dtype=np.float32)
    task = task.with_data(torch.from_numpy(examples), task.targets[:60])
    found = boundary_queries(Halves(), task, 20, seed=0)
    assert found.shape == (20, *task.input_shape)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.flatten(1)[:, 0], 0.3, atol=2**-12)
    first, second = examples.reshape(60, 1, -1), examples.reshape(1, 60, -1)
    for query in found.flatten(1).numpy():
        # on a line between two examples the way there and the way on add up to the whole way
        detour = np.linalg.norm(query - first, axis=2) + np.linalg.norm(query - second, axis=2)
        whole = np.linalg.norm(first - second, axis=2)
        assert (detour - whole + (whole == 0)).min() < 1e-4


def test_boundary_queries_follow_from_the_seed():
    found = [boundary_queries(small_owner(), small_task(), 8, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_an_owner_of_one_label_has_no_boundary():
    task = small_task()
    ones = task.with_data(torch.ones_like(task.examples), task.targets)
    assert boundary_queries(Halves(), ones, 8, seed=0).shape == (0, *task.input_shape)
