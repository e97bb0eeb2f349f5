"""The layers that obfuscations work on."""

from __future__ import annotations

import pytest
from output_cases import TwoHeads, segmentation
from small_models import owner_of, task_of
from torch import nn

from metav.errors import ObfuscationError
from metav.obfuscations.layers import weighted_layers
from metav.obfuscations.rewriting import filter_prune
from metav.obfuscations.tuning import finetune_last
from metav.support.model_interface import ModelInterface


def test_obfuscations_of_layers_need_layers():
    with pytest.raises(ObfuscationError, match="no layer with a weight matrix"):
        finetune_last(nn.Flatten(), task_of("classification"), strength=0.5, seed=0)
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ObfuscationError, match="needs a hidden layer"):
        filter_prune(single, task_of("classification"), strength=0.5, seed=0)


def test_layers_are_ordered_by_use():
    model = owner_of("classification")
    layers = weighted_layers(model, task_of("classification"))
    assert [id(layer) for layer in layers] == [id(model.stem), id(model.inner), id(model.head)]


def test_heads_that_are_not_judged_are_no_layers():
    owner = segmentation().adapted(TwoHeads(), ModelInterface(output="out"))
    assert weighted_layers(owner, segmentation()) == [owner.inner.body, owner.inner.out]
    other = segmentation().adapted(owner.inner, ModelInterface(output="aux"))
    assert weighted_layers(other, segmentation())[-1] is owner.inner.aux
