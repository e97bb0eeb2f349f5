"""Ownership obfuscations: each leaves the given model alone and returns another, still useful one."""

from __future__ import annotations

import copy

import pytest
import torch
from small_models import HeadFirst, ResidualCNN, bits, owner_of, task_of
from torch import nn

from metav.errors import InputError, ModelError, ObfuscationError
from metav.models.running import predict
from metav.obfuscations.registry import OBFUSCATIONS
from metav.obfuscations.rewriting import weight_prune
from metav.obfuscations.students import extract_labels
from metav.obfuscations.tuning import adversarial_train
from metav.support.randomness import isolated_rng

CASES = [
    pytest.param(name, family, id=f"{name}-{family}")
    for name in ("classification", "regression", "generation")
    for family, entry in OBFUSCATIONS.items()
    if entry.supports(task_of(name)) and family != "distill_other"
]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_every_obfuscation_gives_a_new_useful_model_and_leaves_the_given_one(name, family):
    task, owner, function = task_of(name), copy.deepcopy(owner_of(name)), OBFUSCATIONS[family].function
    owner.train()
    next(owner.parameters()).requires_grad_(False)
    before, flags = bits(owner), [parameter.requires_grad for parameter in owner.parameters()]
    torch.manual_seed(3)
    state = torch.get_rng_state()

    model = function(owner, task, strength=0.5, seed=4)

    assert torch.equal(torch.get_rng_state(), state)
    assert bits(owner) == before
    assert [parameter.requires_grad for parameter in owner.parameters()] == flags
    assert all(module.training for module in owner.modules())
    assert not any(module.training for module in model.modules())
    assert not {id(tensor) for tensor in model.parameters()} & {id(tensor) for tensor in owner.parameters()}
    queries = task.natural_queries(50, seed=0)
    assert not torch.equal(predict(model, queries), predict(owner, queries))
    halfway = 0.5 * (task.baseline + task.metric(owner))
    assert (task.metric(model) > halfway) if task.higher_is_better else (task.metric(model) < halfway)


@pytest.mark.parametrize("family", [family for family in OBFUSCATIONS if family != "distill_other"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(family):
    task, owner = task_of("classification").subset(range(150)), owner_of("classification")
    function = OBFUSCATIONS[family].function
    first, again, other = (bits(function(owner, task, strength=0.3, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, float("nan")])
def test_strength_outside_its_range_is_refused(strength):
    with pytest.raises(InputError, match=r"strength must lie in \(0, 1\]"):
        weight_prune(owner_of("classification"), task_of("classification"), strength=strength, seed=0)


@pytest.mark.parametrize(
    ("function", "name"),
    [(extract_labels, "regression"), (extract_labels, "generation"), (adversarial_train, "generation")],
)
def test_obfuscations_that_make_no_sense_say_which_task_they_need(function, name):
    with pytest.raises(ObfuscationError, match=r"needs .*classification"):
        function(owner_of(name), task_of(name), strength=0.5, seed=0)


def test_a_model_that_cannot_be_copied_is_refused():
    model = HeadFirst(64, 10)
    model.lock = __import__("threading").Lock()
    with pytest.raises(ModelError, match="cannot be copied"):
        weight_prune(model, task_of("classification"), strength=0.5, seed=0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(
            nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, 16)), nn.Linear(16, 10)
        ),
        lambda: nn.Sequential(
            nn.Flatten(1, 2), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(64, 10)
        ),
        lambda: ResidualCNN(4),
    ],
    ids=["weight_norm", "transformer", "batch_norm"],
)
@pytest.mark.parametrize("family", ["retrain_last", "filter_prune", "weight_prune", "quantize", "distill_same"])
def test_obfuscations_work_on_unusual_modules(build, family):
    task = task_of("classification")
    with isolated_rng(0):
        model = build()
    task.train(model, seed=0, epochs=1)
    result = OBFUSCATIONS[family].function(model, task, strength=0.5, seed=0)
    answers = predict(result, task.natural_queries(20, seed=0))
    assert torch.isfinite(answers).all()
    assert list(result.state_dict()) == list(model.state_dict())


def test_strengths_of_surrogates_and_suspects_never_meet():
    for entry in OBFUSCATIONS.values():
        assert not set(entry.zoo_strengths) & set(entry.suspect_strengths)
        assert all(0.0 < strength <= 1.0 for strength in entry.zoo_strengths + entry.suspect_strengths)
