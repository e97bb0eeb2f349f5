"""Many models asked at once answer as one by one."""

from __future__ import annotations

import warnings

import pytest
import torch
from layer_cases import FEATURES, STEPS, trained
from small_fingerprints import small_task, small_zoo
from torch import nn

from metav.models import batching_warnings, ensembles
from metav.models.ensembles import Ensemble, run_model


def test_grouped_and_single_models_answer_alike_and_pass_gradients(tmp_path, monkeypatch):
    monkeypatch.setenv("METAV_CACHE_DIR", str(tmp_path))
    models = [entry.model for entry in small_zoo().models[:6]]
    queries = small_task().natural_queries(5, seed=1).requires_grad_(True)
    ensemble = Ensemble(models, queries.detach())
    answers = ensemble.responses(queries, [4, 0, 2])
    expected = torch.stack([run_model(models[index], queries) for index in (4, 0, 2)])
    assert torch.allclose(answers, expected, atol=1e-4)
    (gradient,) = torch.autograd.grad(answers.square().sum(), queries)
    (wanted,) = torch.autograd.grad(expected.square().sum(), queries)
    assert torch.allclose(gradient, wanted, rtol=1e-3, atol=1e-3)


def test_the_choice_between_vmap_and_loop_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("METAV_CACHE_DIR", str(tmp_path))
    models = [entry.model for entry in small_zoo().models if entry.architecture == 0][:4]
    queries = small_task().natural_queries(5, seed=1)
    Ensemble(models, queries)
    (plan,) = (tmp_path / "execution_plans").iterdir()
    for choice, grouped in (("vmap", 4), ("loop", 0)):
        plan.write_text(choice)
        assert Ensemble(models, queries).grouped == grouped


class WithoutRule(nn.Module):
    """Ends with an operation that PyTorch runs model by model under vmap, with a warning at every pass."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, inputs):
        return torch.renorm(self.outer(self.inner(inputs)), 2, 0, 5.0)


def test_a_missing_batching_rule_is_told_once_per_architecture(tmp_path, monkeypatch):
    monkeypatch.setenv("METAV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(ensembles, "SPEEDUP_WANTED", 0.0)  # vmap, however slow
    monkeypatch.setattr(batching_warnings, "_TOLD", set())
    queries = torch.rand(5, 6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for width in (4, 7, 4):
            ensemble = Ensemble([WithoutRule(width) for _ in range(3)], queries)
            for _ in range(4):
                ensemble.responses(queries)
            assert ensemble.grouped == 3
    assert [str(warning.message)[:50] for warning in caught] == [
        "There is a performance drop because we have not ye"
    ] * 2
    with pytest.warns(UserWarning, match="batching rule"):  # the user's own use of vmap is told as ever
        torch.func.vmap(lambda row: torch.renorm(row, 2, 0, 5.0))(torch.rand(2, 3, 4))


def test_models_that_have_a_gradient_one_by_one_alone_run_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setenv("METAV_CACHE_DIR", str(tmp_path))
    # the fast path of attention: forward it runs for many models at once, back it does not
    monkeypatch.setattr("torch.backends.mha._is_fastpath_enabled", True)
    models = [trained("`TransformerEncoder`", seed).eval() for seed in (0, 1)]
    queries = torch.randn(5, STEPS, FEATURES, generator=torch.Generator().manual_seed(0))
    ensemble = Ensemble(models, queries)
    inputs = queries.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(ensemble.responses(inputs).square().sum(), inputs)
    assert bool(gradient.any())
    assert ensemble.grouped == 0
