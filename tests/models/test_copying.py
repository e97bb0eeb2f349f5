"""Copies of models: the same answers, nothing shared, no wrapper, and what cannot be copied names itself."""

from __future__ import annotations

import threading

import pytest
import torch
from layer_cases import CASES, FEATURES, STEPS, mlp, trained
from torch import nn
from torch.nn.utils import prune

from metav.errors import ModelError
from metav.models.copying import duplicate, state_names, unwrapped
from metav.models.identity import state_digest
from metav.models.running import copied, differentiable, frozen_copy, predict
from metav.support.randomness import isolated_rng

INPUTS = torch.randn(5, STEPS, FEATURES, generator=torch.Generator().manual_seed(0))
REFUSED = ("a lock as an attribute", "weights on the device meta", "`LazyLinear` that has not been run")
OTHERWISE = ("half precision", "bfloat16", "double precision", "`quantize_dynamic`", "module of `torch.export`")
COPIED = [name for name in CASES if name not in (*REFUSED, *OTHERWISE, "complex answers")]


def answers(model):
    with isolated_rng(0):
        return predict(model, INPUTS)


@pytest.mark.parametrize("name", COPIED)
def test_a_copy_answers_as_its_original_and_shares_nothing(name):
    model = trained(name)
    own = unwrapped(model)
    twin = copied(own if "compile" in name else model)
    before = answers(own)
    assert torch.equal(answers(twin), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(answers(own), before)
    assert all(entry.is_leaf and entry.requires_grad for entry in twin.parameters())


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda model: torch.compile(nn.DataParallel(model))])
def test_wrappers_are_taken_off(wrap):
    model = mlp()
    wrapped = wrap(model)
    assert unwrapped(wrapped) is model
    assert state_digest(copied(wrapped)) == state_digest(copied(model))
    assert set(state_names(wrapped)) == set(model.state_dict())
    assert type(duplicate(nn.Sequential(wrapped))[0]) is not type(torch.compile(model))


def test_a_compiled_part_becomes_what_it_was():
    model = mlp()
    plain = copied(model)
    model[1] = torch.compile(model[1])
    assert list(duplicate(model).state_dict()) == list(plain.state_dict())
    assert "_orig_mod" in "".join(model.state_dict())
    assert set(state_names(model)) == set(plain.state_dict())


def test_a_pruned_model_is_copied_with_its_hooks_and_left_as_it_was():
    model = mlp()
    prune.l1_unstructured(model[1], "weight", 0.5)
    model(INPUTS).sum().backward()
    weight = model[1].weight
    twin = copied(model)
    assert model[1].weight is weight
    assert weight.grad_fn is not None
    twin(INPUTS).sum().backward()
    assert twin[1].weight_orig.grad is not None
    assert model[1].weight_orig.grad is not None


def test_computed_tensors_in_lists_and_dictionaries_are_copied_as_values():
    model = mlp()
    total = model[1].weight.sum()
    model.kept = {"sums": [total, (total * 2,)]}
    twin = frozen_copy(model)
    assert twin.kept["sums"][0].grad_fn is None
    assert float(twin.kept["sums"][1][0]) == pytest.approx(2 * float(total))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model[1], "lock", threading.Lock()), r"its attribute 1\.lock is a lock"),
        (lambda model: setattr(model, "items", (entry for entry in ())), r"its attribute items is a generator"),
        (lambda model: model[3].to("meta"), r"3\.weight of the model has no values, as it lies on the device meta"),
    ],
)
def test_what_cannot_be_copied_names_the_culprit(change, message):
    model = mlp()
    change(model)
    with pytest.raises(ModelError, match=message):
        copied(model)


def test_recurrent_layers_do_without_cudnn_where_a_gradient_is_wanted(monkeypatch):
    monkeypatch.setattr("metav.models.running.device_of", lambda model: torch.device("cuda"))
    before = torch.backends.cudnn.enabled
    with differentiable(trained("`LSTM` alone")):
        assert not torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled == before
    with differentiable(mlp()):
        assert torch.backends.cudnn.enabled == before


def test_no_batch_of_one_is_left_over():
    seen = []
    predict(lambda batch: (seen.append(len(batch)), batch)[1], torch.zeros(9, 2), batch_size=4)
    assert seen == [4, 3, 2]
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    assert predict(norm, torch.randn(513, 2)).shape == (513, 2)
    assert predict(nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), torch.zeros(1, 2)).shape == (1,)
    assert predict(lambda batch: batch.sum(dim=1).squeeze(), torch.zeros(1, 2)).shape == (1,)
