"""Many models asked at once answer as one by one."""

from __future__ import annotations

import warnings

import pytest
import torch
from layer_cases import FEATURES, STEPS
from small_fingerprints import small_task, small_zoo
from small_models import HeadFirst
from torch import nn

from metav.models import batching_warnings
from metav.models.ensembles import FEWEST_TOGETHER, Ensemble, run_model
from metav.support.randomness import isolated_rng


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


class WithoutRule(nn.Module):
    """Ends with an operation that PyTorch runs model by model under vmap, with a warning at every pass."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, inputs):
        return torch.renorm(self.outer(self.inner(inputs)), 2, 0, 5.0)


def test_a_missing_batching_rule_is_told_once_per_architecture(monkeypatch):
    monkeypatch.setattr(batching_warnings, "_TOLD", set())
    queries = torch.rand(5, 6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for width in (4, 7, 4):
            ensemble = Ensemble([WithoutRule(width) for _ in range(FEWEST_TOGETHER)], queries)
            for _ in range(4):
                ensemble.responses(queries)
            assert ensemble.grouped == FEWEST_TOGETHER
    assert [str(warning.message)[:50] for warning in caught] == [
        "There is a performance drop because we have not ye"
    ] * 2
    with pytest.warns(UserWarning, match="batching rule"):  # the user's own use of vmap is told as ever
        torch.func.vmap(lambda row: torch.renorm(row, 2, 0, 5.0))(torch.rand(2, 3, 4))


def test_models_that_have_a_gradient_one_by_one_alone_run_one_by_one(monkeypatch):
    # the fast path of attention: forward it runs for many models at once, back it does not
    monkeypatch.setattr("torch.backends.mha._is_fastpath_enabled", True)
    with isolated_rng(0):
        layers = [nn.TransformerEncoderLayer(FEATURES, 2, 12, batch_first=True) for _ in range(FEWEST_TOGETHER)]
        models = [nn.Sequential(nn.Linear(FEATURES, FEATURES), layer, nn.Flatten()).eval() for layer in layers]
    queries = torch.randn(5, STEPS, FEATURES, generator=torch.Generator().manual_seed(0))
    ensemble = Ensemble(models, queries)
    inputs = queries.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(ensemble.responses(inputs).square().sum(), inputs)
    assert bool(gradient.any())
    assert ensemble.grouped == 0


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
