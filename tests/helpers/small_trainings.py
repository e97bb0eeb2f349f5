"""Small trainings for the tests of integrations: data, a network, options of a tiny fingerprint, a plain loop."""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import metav
from metav.support.randomness import isolated_rng

FEATURES, CLASSES, EPOCHS = 6, 3, 3
RATE = 0.03
TINY: dict[str, Any] = {
    "positives": 4,
    "negatives": 6,
    "families": ["weight_noise", "finetune_last"],
    "queries": 8,
    "target_fpr": 0.4,
    "options": metav.OptimizationOptions(steps=4),
    "jobs": 1,
    "progress": False,
}
"""Options of a fingerprint that takes a moment, and is good for nothing but to be compared."""


@functools.cache
def arrays() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(160, FEATURES)).astype(np.float32)
    return inputs, (inputs @ generator.normal(size=(FEATURES, CLASSES))).argmax(axis=1)


@functools.cache
def task() -> metav.Classification:
    return metav.Classification(*arrays(), epochs=1)


def dataset() -> TensorDataset:
    inputs, labels = arrays()
    return TensorDataset(torch.tensor(inputs), torch.tensor(labels))


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(dataset(), 32, shuffle=True, **options)


class Network(nn.Module):
    """With dropout, which draws numbers in every step, and batch norm, whose buffers ship as well."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(FEATURES, 12), nn.BatchNorm1d(12)
        self.dropout, self.head = nn.Dropout(0.1), nn.Linear(12, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.dropout(torch.relu(self.norm(self.body(inputs)))))


def train(model: nn.Module, epochs: int = EPOCHS) -> Iterator[int]:
    """A plain loop; yields the number of each epoch once it is done."""
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    batches = loader()
    for epoch in range(1, epochs + 1):
        model.train()
        for inputs, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        yield epoch


def by_hand(seed: int, epochs: int = EPOCHS) -> nn.Module:
    """A recipe: the plain loop, without anything around it."""
    with isolated_rng(seed):
        model = Network()
        for _ in train(model, epochs):
            pass
    return model


def repeated(recipe: Any, seed: int) -> nn.Module:
    """The model of a recipe as metav asks for it."""
    with isolated_rng(seed):
        return recipe(seed)


def zeros(model: nn.Module) -> dict[str, Tensor]:
    """Weights of one's own that any training can ship."""
    return {name: torch.zeros_like(value) for name, value in model.state_dict().items()}


def zeroed(model: nn.Module) -> nn.Module:
    """A model with these weights."""
    model.load_state_dict(zeros(model))
    return model.eval()


def seed_all(seed: int) -> None:
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)  # noqa: NPY002


def random_state() -> tuple[bytes, bytes, object]:
    """The global states of PyTorch, NumPy and Python."""
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002


def bits(model: nn.Module) -> dict[str, bytes]:
    """The state by plain names."""
    names = {name.replace("_orig_mod.", "").replace("module.", ""): value for name, value in model.state_dict().items()}
    return {name: value.detach().cpu().numpy().tobytes() for name, value in names.items()}


def fingerprint_of(model: nn.Module, recipe: Any = None, **changes: Any) -> Any:
    """The fingerprint that metav's own two calls make of a model with the tiny options: what integrations must make."""
    given = {**TINY, **changes}
    rest = {name: given.pop(name) for name in ("queries", "target_fpr", "options")}
    with quiet():
        zoo = metav.build_zoo(model, task(), recipe=recipe, **given)
        return metav.fingerprint(model, task(), zoo=zoo, progress=False, **rest)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that so small a zoo deserves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
