"""Ownership obfuscations: each leaves the given model alone and returns another, still useful one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_models import HeadFirst, ResidualCNN, bits, owner_of, task_of
from torch import nn

from metav.errors import InputError, ModelError, ObfuscationError
from metav.models.architectures import reinitialized
from metav.models.running import predict
from metav.obfuscations.layers import quantized, weighted_layers
from metav.obfuscations.registry import OBFUSCATIONS
from metav.obfuscations.rewriting import filter_prune, quantize, weight_noise, weight_prune
from metav.obfuscations.students import distill, extract_labels, extract_scores
from metav.obfuscations.tuning import adversarial_train, finetune_last, prune_then_finetune, retrain_last
from metav.support.randomness import isolated_rng
from metav.zoo.architectures import plain_architectures

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


def test_obfuscations_of_layers_need_layers():
    with pytest.raises(ObfuscationError, match="no layer with a weight matrix"):
        finetune_last(nn.Flatten(), task_of("classification"), strength=0.5, seed=0)
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ObfuscationError, match="needs a hidden layer"):
        filter_prune(single, task_of("classification"), strength=0.5, seed=0)


def test_a_model_that_cannot_be_copied_is_refused():
    model = HeadFirst(64, 10)
    model.lock = __import__("threading").Lock()
    with pytest.raises(ModelError, match="cannot be copied"):
        weight_prune(model, task_of("classification"), strength=0.5, seed=0)


@pytest.mark.parametrize("function", [finetune_last, retrain_last])
def test_the_last_layer_is_the_last_one_called_not_the_last_one_registered(function):
    task = task_of("classification")
    with isolated_rng(0):
        model = HeadFirst(64, 10)
    task.train(model, seed=0, epochs=2)
    before, after = bits(model), bits(function(model, task, strength=0.5, seed=0))
    assert {name for name in before if before[name] != after[name]} == {"head.weight", "head.bias"}


def test_layers_are_ordered_by_use():
    model = owner_of("classification")
    layers = weighted_layers(model, task_of("classification"))
    assert [id(layer) for layer in layers] == [id(model.stem), id(model.inner), id(model.head)]


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_weight_pruning_zeroes_the_smallest_share_of_each_layer(strength):
    owner = owner_of("classification")
    pruned = weight_prune(owner, task_of("classification"), strength=strength, seed=0)
    for name in ("stem.weight", "inner.weight", "head.weight"):
        old, gone = owner.state_dict()[name].abs(), pruned.state_dict()[name] == 0
        assert abs(float(gone.float().mean()) - 0.6 * strength) <= 0.06 * strength + 1.0 / gone.numel()
        assert float(old[gone].max()) <= float(old[~gone].min())


def test_filter_pruning_zeroes_whole_channels_with_their_batch_norm_but_not_the_last_layer():
    owner = owner_of("classification")
    pruned = filter_prune(owner, task_of("classification"), strength=1.0, seed=0)
    for layer, norm in ((pruned.stem, pruned.norm), (pruned.inner, pruned.inner_norm)):
        gone = layer.weight.flatten(1).abs().sum(1) == 0
        assert int(gone.sum()) == 2
        assert bool((norm.weight[gone] == 0).all())
        assert bool((norm.bias[gone] == 0).all())
    assert torch.equal(pruned.head.weight, owner.head.weight)


@pytest.mark.parametrize("groups", [1, 2])
def test_filter_pruning_silences_outputs_of_transposed_convolutions(groups):
    with isolated_rng(0):
        first = nn.ConvTranspose2d(4, 8, 2, groups=groups)
        model = nn.Sequential(nn.Unflatten(1, (4, 1, 1)), first, nn.Flatten(), nn.Linear(32, 64))
    task = task_of("generation")
    pruned = filter_prune(model, task, strength=1.0, seed=0)
    outputs = pruned[1](torch.randn(3, 4, 1, 1)).abs().sum(dim=(0, 2, 3))
    assert int((outputs == 0).sum()) == 2


def test_pruned_weights_stay_zero_through_fine_tuning():
    owner = owner_of("classification")
    model = prune_then_finetune(owner, task_of("classification"), strength=0.8, seed=0)
    assert float((model.inner.weight == 0).float().mean()) == pytest.approx(0.7, abs=0.01)
    assert not torch.equal(model.inner.weight[model.inner.weight != 0], owner.inner.weight[model.inner.weight != 0])


@pytest.mark.parametrize("bits_", [3, 4, 8])
def test_quantized_channels_have_few_symmetric_levels_and_a_small_error(bits_):
    weight = torch.randn(6, 200, generator=torch.Generator().manual_seed(0))
    rounded = quantized(weight, bits_)
    for row, original in zip(rounded.numpy(), weight.numpy(), strict=True):
        levels = np.unique(row)
        assert len(levels) <= 2**bits_ - 1
        step = np.diff(levels).min()
        assert np.allclose(levels / step, np.round(levels / step), atol=1e-3)
        plain = np.abs(original).max() / (2 ** (bits_ - 1) - 1)
        assert np.mean((row - original) ** 2) <= np.mean((np.round(original / plain) * plain - original) ** 2) + 1e-9


def test_weak_quantization_stays_close_and_strong_moves_further():
    task, owner = task_of("classification"), owner_of("classification")
    queries = task.natural_queries(50, seed=0)
    far = [
        float((predict(quantize(owner, task, strength=s, seed=0), queries) - predict(owner, queries)).abs().mean())
        for s in (0.1, 1.0)
    ]
    assert far[0] < 0.1 < far[1]


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_weight_noise_has_the_stated_deviation(strength):
    owner = owner_of("classification")
    noisy = weight_noise(owner, task_of("classification"), strength=strength, seed=0)
    moved = float((noisy.head.weight - owner.head.weight).detach().std() / owner.head.weight.detach().std())
    assert moved == pytest.approx(0.3 * strength, rel=0.1)


@pytest.mark.parametrize("function", [distill, extract_scores, extract_labels])
def test_students_may_have_another_architecture(function):
    task, owner = task_of("classification"), owner_of("classification")
    model = function(owner, task, strength=0.3, seed=1, architecture=lambda: HeadFirst(64, 10))
    assert isinstance(model, HeadFirst)
    inputs = task.examples[task.validation_indices]
    agreement = (predict(model, inputs).argmax(1) == predict(owner, inputs).argmax(1)).float().mean()
    assert agreement > 0.7


def test_adversarial_training_makes_a_model_more_robust():
    task, owner = task_of("classification"), owner_of("classification")
    inputs, labels = task.examples[task.validation_indices], task.targets[task.validation_indices]

    def attacked_accuracy(model: nn.Module) -> float:
        moved = inputs.clone().requires_grad_(True)
        task.loss(model(moved), labels).backward()
        return float((model((moved + 0.1 * moved.grad.sign()).detach()).argmax(1) == labels).float().mean())

    assert attacked_accuracy(adversarial_train(owner, task, strength=1.0, seed=0)) > attacked_accuracy(owner)


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


class WithRawParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(3.0 + torch.randn(200))
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)


def test_reinitialization_redraws_every_weight_and_batch_norm_statistic():
    with isolated_rng(0):
        model = WithRawParameter()
        model.norm.running_mean.fill_(5.0)
        model.norm.weight.data.fill_(3.0)
    fresh = reinitialized(model, 1)
    assert not (fresh.position == model.position).any()
    assert float(fresh.position.detach().mean()) == pytest.approx(3.0, abs=0.4)
    assert not (fresh.layer.weight == model.layer.weight).any()
    assert float(fresh.norm.running_mean.abs().max()) == 0.0
    assert fresh.norm.weight.tolist() == [1.0] * 4
    assert bits(fresh) == bits(reinitialized(model, 1)) != bits(reinitialized(model, 2))


@pytest.mark.parametrize("name", ["classification", "regression", "generation"])
@pytest.mark.parametrize("unusual", [False, True])
def test_plain_architectures_fit_and_learn_every_task(name, unusual):
    task, owner = task_of(name), owner_of(name)
    for architecture in plain_architectures(owner, task, unusual=unusual):
        with isolated_rng(0):
            model = architecture()
        task.check_model(model)
        metric = task.metric(task.train(model, seed=0))
        assert (metric - task.baseline) * (1 if task.higher_is_better else -1) > 0.15 * abs(task.baseline)


def test_strengths_of_surrogates_and_suspects_never_meet():
    for entry in OBFUSCATIONS.values():
        assert not set(entry.zoo_strengths) & set(entry.suspect_strengths)
        assert all(0.0 < strength <= 1.0 for strength in entry.zoo_strengths + entry.suspect_strengths)
