"""Many models asked at once answer as one by one."""

from __future__ import annotations

import pytest
import torch
from small_fingerprints import small_task, small_zoo
from small_models import HeadFirst
from torch import nn

from metav.models.ensembles import FEWEST_TOGETHER, Ensemble, run_model


def test_grouped_and_single_models_answer_alike_and_pass_gradients():
    models = [entry.model for entry in small_zoo().models if entry.architecture == 0][:FEWEST_TOGETHER]
    queries = small_task().natural_queries(5, seed=1).requires_grad_(True)
    ensemble = Ensemble(models, queries.detach())
    assert ensemble.grouped == len(models) == FEWEST_TOGETHER
    answers = ensemble.responses(queries, [4, 0, 2])
    expected = torch.stack([run_model(models[index], queries) for index in (4, 0, 2)])
    assert torch.allclose(answers, expected, atol=1e-4)
    (gradient,) = torch.autograd.grad(answers.square().sum(), queries)
    (wanted,) = torch.autograd.grad(expected.square().sum(), queries)
    assert torch.allclose(gradient, wanted, rtol=1e-3, atol=1e-3)


class Choosing(nn.Module):
    """Control flow that depends on the answers, which vmap cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answers = self.layer(inputs.flatten(1))
        return answers if bool(answers.sum() > 0) else -answers


class Large(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 4000), nn.Linear(4000, 10))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)


@pytest.mark.parametrize(
    ("network", "count", "share", "grouped"),
    [
        (lambda: HeadFirst(64, 10), FEWEST_TOGETHER, 1.0, FEWEST_TOGETHER),
        (lambda: HeadFirst(64, 10), FEWEST_TOGETHER - 1, 1.0, 0),
        (lambda: HeadFirst(64, 10), FEWEST_TOGETHER, 0.5, 0),
        (Choosing, FEWEST_TOGETHER, 1.0, 0),
        (Large, FEWEST_TOGETHER, 1.0, 0),
    ],
)
def test_which_models_run_together_depends_on_nothing_but_models_and_queries(network, count, share, grouped):
    """Not on how fast the machine happens to be at the moment: the two ways differ in the last bits."""
    queries = small_task().natural_queries(50, seed=1)
    models = [network() for _ in range(count)]
    assert {Ensemble(models, queries, share=share).grouped for _ in range(3)} == {grouped}
