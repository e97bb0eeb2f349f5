"""Obfuscations that rewrite weights: which ones, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import owner_of, task_of
from torch import nn

from metav.models.running import predict
from metav.obfuscations.layers import quantized
from metav.obfuscations.rewriting import filter_prune, quantize, weight_noise, weight_prune
from metav.support.randomness import isolated_rng


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
