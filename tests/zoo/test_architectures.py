"""The plain architectures that a zoo adds by itself."""

from __future__ import annotations

import pytest
from small_models import owner_of, task_of

from metav.support.randomness import isolated_rng
from metav.zoo.architectures import plain_architectures


@pytest.mark.parametrize("name", ["classification", "regression", "generation"])
@pytest.mark.parametrize("unusual", [False, True])
def test_plain_architectures_fit_and_learn_every_task(name, unusual):
    task, owner = task_of(name), owner_of(name)
    for architecture in plain_architectures(owner, task, unusual=unusual):
        with isolated_rng(0):
            model = architecture()
        task.check_model(model)
        metric = task.metric(task.train(model, seed=0))
        assert (metric - task.baseline) * (1 if task.higher_is_better else -1) > 0.15 * abs(task.baseline)
