"""Which families fit an owner's model, and what those that fit make of layers of every kind."""

from __future__ import annotations

import pytest
import torch
from layer_cases import CASES, FEATURES, STEPS, Function, examples, mlp, tied, trained
from torch import nn
from torch.nn.utils import prune

import metav
from metav.errors import ObfuscationError
from metav.models.architectures import reinitialized
from metav.models.running import predict
from metav.obfuscations.layers import channel_count, layer_parameters, weighted_layers, zero_channels
from metav.obfuscations.registry import OBFUSCATIONS

ONE_LAYER = ("logistic regression, one `Linear`", "parameters without a layer", "`LSTM` alone")


@pytest.fixture(scope="module")
def task():
    return metav.Classification(*examples(), epochs=1, batch_size=16, validation=0.0)


def unfit(model, task):
    reasons = {name: entry.why_unfit(model, task) for name, entry in OBFUSCATIONS.items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


@pytest.mark.parametrize("name", ONE_LAYER)
def test_one_layer_of_weights_leaves_nothing_below_it(name, task):
    model = trained(name)
    reasons = unfit(model, task)
    assert set(reasons) == {"retrain_last", "retrain_all", "filter_prune"}
    assert "nothing else of the owner's would be left" in reasons["retrain_last"]
    for family in reasons:
        with pytest.raises(ObfuscationError):
            OBFUSCATIONS[family].function(model, task, strength=0.5, seed=0)


def test_a_weight_shared_by_first_and_last_layer_counts_once(task):
    body = nn.Linear(24, 24)
    assert "retrain_last" in unfit(Function(lambda self, x: self.body(self.body(x.flatten(1)))[:, :3], body=body), task)
    assert not unfit(tied(), task)


def test_what_has_no_weights_has_none_to_change(task):
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(3))

        def forward(self, inputs):
            return inputs[:, 0, :3] + self.shift

    needing = {"finetune_last", "weight_prune", "prune_then_finetune", "quantize", "weight_noise"}
    assert needing <= set(unfit(Shift(), task))
    assert not {"finetune_all", "distill_same", "adversarial_train"} & set(unfit(Shift(), task))


def test_adversarial_training_needs_a_gradient_to_the_inputs(task):
    reasons = unfit(trained("numbers of tokens, cast and looked up"), task)
    assert list(reasons) == ["adversarial_train"]
    assert reasons["adversarial_train"].endswith("it ends before table (Embedding)")


@pytest.mark.parametrize("name", [name for name in CASES if "LSTM" in name or "GRU" in name])
def test_silenced_units_of_recurrent_layers_stay_silent(name, task):
    model = trained(name)
    layer = next(part for part in model.modules() if isinstance(part, (nn.RNNBase, nn.RNNCellBase)))
    if getattr(layer, "proj_size", 0):
        assert channel_count(layer) == 0
        return
    assert channel_count(layer) == layer.hidden_size
    zero_channels(layer, torch.tensor([0, 2]))
    inputs = torch.randn(5, STEPS, layer.input_size)
    outputs = layer(inputs)[0] if isinstance(layer, nn.RNNBase) else layer(inputs[:, 0])[0]
    outputs = outputs.unflatten(-1, (-1, layer.hidden_size))
    assert not outputs[..., [0, 2]].any()
    assert bool((outputs[..., 1] != 0.0).all())


HOOKED = [name for name in CASES if "nn.utils" in name or "parametrizations" in name or "prune." in name]


@pytest.mark.parametrize("name", HOOKED)
def test_pruned_channels_stay_silent_where_weights_are_computed_from_others(name, task):
    model = trained(name)
    pruned = metav.obfuscations.filter_prune(model, task, strength=1.0, seed=0)
    inputs = torch.as_tensor(task.examples)

    def silent(owner):
        with torch.no_grad():
            return int((owner[1](owner[0](inputs)).abs().amax(dim=0) < 1e-6).sum())

    assert silent(pruned) >= max(2, silent(model))
    for _, part in pruned.named_parameters():
        assert torch.isfinite(part).all()


def test_an_independent_model_has_a_mask_of_its_own():
    for change, options in ((prune.l1_unstructured, {}), (prune.ln_structured, {"n": 2, "dim": 0})):
        owner = mlp()
        change(owner[1], "weight", 0.5, **options)
        fresh = reinitialized(owner, 3)
        old, new = owner[1].weight_mask, fresh[1].weight_mask
        assert new.sum() == old.sum()
        assert not torch.equal(new, old)
        whole = [bool((mask == mask[:, :1]).all()) for mask in (old, new)]
        assert whole[0] == whole[1]
        predict(fresh, torch.zeros(2, STEPS, FEATURES))
        assert torch.equal(fresh[1].weight == 0.0, new == 0.0)


WITH_HEAD = [name for name in CASES if "head" in name or "ransformer" in name or "Attention" in name or "twice" in name]


@pytest.mark.parametrize("name", [*WITH_HEAD, "`LSTMCell` in a loop", *HOOKED, "`torch.jit.script`"])
def test_the_head_is_the_last_layer_and_all_others_come_before_it(name, task):
    model = trained(name)
    layers = weighted_layers(model, task)
    assert max(map(len, layer_parameters(layers[-1]))) == 3
    held = {id(parameter) for layer in layers for parameter in layer_parameters(layer)}
    assert all(id(parameter) in held for parameter in model.parameters() if parameter.ndim > 1)


def test_parts_that_are_never_called_stand_where_the_module_around_them_does(task):
    model = trained("class token and places beside a `TransformerEncoderLayer`")
    layers = weighted_layers(model, task)
    assert layers[0] is model
    assert layers[1:4] == [model.body.self_attn, model.body.self_attn.out_proj, model.body.linear1]
    assert {id(entry) for entry in layer_parameters(model)} == {id(model.token), id(model.places)}
