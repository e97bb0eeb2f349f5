"""Suspects of another library: that they learn the task, and that no zoo holds their families."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine, make_regression

from metav.tasks.classification import Classification
from metav.tasks.regression import Regression
from metav.zoo.classical_suspects import classical_suspect
from metav.zoo.free_negatives import FREE_NEGATIVES


def wine():
    inputs, labels = load_wine(return_X_y=True)
    return Classification(((inputs - inputs.mean(0)) / inputs.std(0)).astype(np.float32), labels)


def plane(outputs):
    inputs, targets = make_regression(300, 6, n_informative=6, n_targets=outputs, random_state=0)
    return Regression(inputs.astype(np.float32), (targets / targets.std()).astype(np.float32))


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("make", [wine, lambda: plane(1), lambda: plane(5)], ids=["classes", "number", "numbers"])
def test_each_learns_the_task_and_answers_in_its_shape(make, number):
    task = make()
    model = classical_suspect(task, number, 3)
    better = task.metric(model) > task.baseline if task.higher_is_better else task.metric(model) < 0.7 * task.baseline
    assert better
    assert model(task.examples[:4]).shape == ((4, 3) if task.kind.answers_classes else task.targets[:4].shape)
    again = classical_suspect(task, number, 3)
    assert torch.equal(model(task.examples), again(task.examples))


def test_no_zoo_holds_a_model_of_their_families():
    held = {re.sub("[^a-z]", "", kind.name) for kind in FREE_NEGATIVES}
    for task in (wine(), plane(2)):
        for number in range(4):
            estimator = classical_suspect(task, number, 0).estimator
            steps = [step for _, step in getattr(estimator, "steps", [("", estimator)])]
            own = type(getattr(steps[-1], "estimator", steps[-1])).__name__.lower()
            assert not any(name in own for name in held - {"ridge"}), own
