"""Architectures of given models, with fresh weights."""

from __future__ import annotations

import pytest
import torch
from small_models import bits
from torch import nn

from metav.models.architectures import reinitialized
from metav.support.randomness import isolated_rng


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
