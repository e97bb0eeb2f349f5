"""Classification: what its answers mean, and its natural queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import task_of
from torch import nn

from metav.errors import InputError
from metav.models.recipe import DrawnRecipe
from metav.tasks.classification import Classification, log_probabilities
from metav.tasks.regression import Regression


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


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), temperature=st.floats(0.2, 20.0))
def test_lack_of_fit_is_the_same_at_every_temperature_and_rises_with_wrong_answers(
    seed: int, temperature: float
) -> None:
    random = np.random.default_rng(seed)
    labels = np.arange(60) % 4
    task = Classification(np.eye(60, dtype=np.float32), labels)
    table = torch.tensor(random.normal(size=(60, 4)) + 6 * np.eye(4)[labels], dtype=torch.float32)

    def fit(answers: torch.Tensor) -> float:
        model = nn.Linear(60, 4, bias=False)
        model.weight = nn.Parameter(answers.T.contiguous())
        return task.lack_of_fit(model)

    worse = table.clone()
    worse[:10] = table[:10].roll(1, dims=1)
    assert fit(table / temperature) == pytest.approx(fit(table), rel=1e-3, abs=1e-4)
    assert 0 <= fit(table) < fit(worse)


def test_lack_of_fit_of_equally_sure_right_answers_is_zero() -> None:
    task = Classification(np.eye(6, dtype=np.float32), [0, 1, 2, 0, 1, 2])
    model = nn.Linear(6, 3, bias=False)
    model.weight = nn.Parameter(torch.eye(3).repeat(1, 2) * 5)
    assert task.lack_of_fit(model) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_training_ends_after_the_first_epoch_that_fits_well_enough(kind: str) -> None:
    inputs = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    task = (
        Classification(inputs, (inputs[:, 0] > 0).astype(int))
        if kind == "classification"
        else Regression(inputs, inputs[:, :1])
    )

    def trained(until: float | None) -> tuple[list[float], float]:
        torch.manual_seed(0)
        model, fits = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, task.outputs)), []
        recipe = DrawnRecipe(epochs=20, until=until)
        task.with_recipe(recipe).train(model, seed=0, on_epoch=lambda _, part: fits.append(task.lack_of_fit(part)))
        return fits, task.lack_of_fit(model)

    every, _ = trained(None)
    until = every[7]
    first = next(place for place, value in enumerate(every) if value <= until)
    assert len(every) == 20
    assert trained(until) == (every[: first + 1], every[first])
