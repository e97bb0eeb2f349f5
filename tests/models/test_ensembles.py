"""Many models asked at once answer as one by one."""

from __future__ import annotations

import torch
from layer_cases import FEATURES, STEPS, trained
from small_fingerprints import small_task, small_zoo

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
