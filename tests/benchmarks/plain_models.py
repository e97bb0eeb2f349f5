"""Models as anybody trains and prunes them: owners and suspects of benchmarks, with nothing of metav's in them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional


def trained(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    seed: int,
    *,
    epochs: int,
    rate: float,
    batch: int,
    momentum: float = 0.0,
    decay: float = 0.0,
    smoothing: float = 0.0,
    is_shifted: bool = False,
    teacher: nn.Module | None = None,
    tells_labels: bool = False,
) -> nn.Module:
    """Train a model in place and return it; momentum 0 is Adam. A teacher's answers are learned, or its labels.

    inputs: (n, *input shape), images where they are shifted. targets: classes (n,), or numbers (n, outputs).
    """
    torch.manual_seed(seed)
    is_regression = targets.is_floating_point()
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)
    if momentum:
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(batch):
            given, wanted = inputs[rows], targets[rows]
            if is_shifted:
                given = torch.roll(given, tuple(torch.randint(-1, 2, (2,)).tolist()), (2, 3))
            if teacher is not None:
                with torch.no_grad():
                    wanted = teacher(given)
                if not is_regression:
                    wanted = wanted.argmax(1) if tells_labels else wanted.softmax(1)
            answers = model(given)
            if is_regression:
                loss = functional.mse_loss(answers, wanted)
            else:
                loss = functional.cross_entropy(answers, wanted, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def pruned(model: nn.Module, share: float) -> nn.Module:
    """Return a copy whose matrices have lost the smallest `share` of their weights."""
    found = copy.deepcopy(model)
    with torch.no_grad():
        for weight in (entry for entry in found.parameters() if entry.ndim > 1):
            bound = weight.abs().flatten().kthvalue(int(share * weight.numel())).values
            weight[weight.abs() <= bound] = 0
    return found
