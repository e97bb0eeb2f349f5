"""Obfuscations that train on: what they may change and what they must not."""

from __future__ import annotations

import pytest
import torch
from small_models import HeadFirst, bits, owner_of, task_of
from torch import nn

from metav.obfuscations.tuning import adversarial_train, finetune_last, prune_then_finetune, retrain_last
from metav.support.randomness import isolated_rng


@pytest.mark.parametrize("function", [finetune_last, retrain_last])
def test_the_last_layer_is_the_last_one_called_not_the_last_one_registered(function):
    task = task_of("classification")
    with isolated_rng(0):
        model = HeadFirst(64, 10)
    task.train(model, seed=0, epochs=2)
    before, after = bits(model), bits(function(model, task, strength=0.5, seed=0))
    assert {name for name in before if before[name] != after[name]} == {"head.weight", "head.bias"}


def test_pruned_weights_stay_zero_through_fine_tuning():
    owner = owner_of("classification")
    model = prune_then_finetune(owner, task_of("classification"), strength=0.8, seed=0)
    assert float((model.inner.weight == 0).float().mean()) == pytest.approx(0.7, abs=0.01)
    assert not torch.equal(model.inner.weight[model.inner.weight != 0], owner.inner.weight[model.inner.weight != 0])


def test_adversarial_training_makes_a_model_more_robust():
    task, owner = task_of("classification"), owner_of("classification")
    inputs, labels = task.examples[task.validation_indices], task.targets[task.validation_indices]

    def attacked_accuracy(model: nn.Module) -> float:
        moved = inputs.clone().requires_grad_(True)
        task.loss(model(moved), labels).backward()
        return float((model((moved + 0.1 * moved.grad.sign()).detach()).argmax(1) == labels).float().mean())

    assert attacked_accuracy(adversarial_train(owner, task, strength=1.0, seed=0)) > attacked_accuracy(owner)
