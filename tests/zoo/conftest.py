"""A small owner of the digits, and a count of the trainings, for all tests of the zoo."""

from __future__ import annotations

import pytest
from small_models import HeadFirst
from small_zoos import small_task

import metav.zoo.training
from metav.support.randomness import isolated_rng


@pytest.fixture(scope="module")
def task():
    return small_task()


@pytest.fixture(scope="module")
def owner(task):
    with isolated_rng(1):
        model = HeadFirst(64, 10)
    return task.train(model, seed=1)


@pytest.fixture
def trainings(monkeypatch):
    """The runs trained in this process."""
    runs, train = [], metav.zoo.training.train_planned

    def counted(planned, context):
        content = train(planned, context)
        runs.append(planned.run)
        return content

    monkeypatch.setattr(metav.zoo.training, "train_planned", counted)
    return runs
