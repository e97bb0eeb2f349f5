"""Regression: its loss and the length of its training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import HeadFirst

from metav.support.randomness import isolated_rng
from metav.tasks.regression import Regression


def test_regression_on_little_data_trains_for_enough_steps_by_default():
    inputs = np.random.default_rng(0).normal(size=(100, 3))
    targets = 150.0 + 20.0 * inputs[:, 0]
    task = Regression(inputs, targets, learning_rate=2e-2)
    with isolated_rng(0):
        model = HeadFirst(3, 1)
    assert task.metric(task.train(model, seed=0)) < 0.5 * task.baseline


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_regression_loss_is_the_squared_error_over_the_variance(shape):
    targets = np.random.default_rng(1).normal(3.0, 5.0, 50)
    outputs = np.random.default_rng(2).normal(3.0, 5.0, 50)
    task = Regression(np.ones((50, 2)), targets)
    loss = task.loss(torch.tensor(outputs).reshape(shape), torch.tensor(targets))
    assert float(loss) == pytest.approx(np.mean((outputs - targets) ** 2) / np.var(targets, ddof=1), rel=1e-5)
