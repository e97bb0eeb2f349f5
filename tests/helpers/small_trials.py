"""Owners trained by a loop of their own on real data, and the suspects that users show: none is made by metav.

The data are others than those of any published trial: breast cancer, wine, and digits in another split.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_friedman2
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from torch import Tensor, nn

import metav
from metav.fingerprints.fingerprint import Fingerprint
from metav.support.randomness import isolated_rng, single_thread

ZOO = {"positives": 24, "negatives": 36, "seed": 0, "progress": False}
OPTIONS = {"queries": 80, "steps": 30}


def split(name: str) -> tuple[Tensor, Tensor, int]:
    """Standardised inputs, targets, and how many of them, the first ones, are the owner's."""
    if name == "values":
        inputs, targets = make_friedman2(900, noise=1.0, random_state=5)
    else:
        load = {"digits": load_digits, "cancer": load_breast_cancer, "wine": load_wine}[name]
        inputs, targets = load(return_X_y=True)
    order = np.random.default_rng(11).permutation(len(inputs))
    inputs, targets = inputs[order], targets[order]
    spread = inputs.std(axis=0)
    inputs = (inputs - inputs.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    if name == "values":
        targets = ((targets - targets.mean()) / targets.std())[:, None].astype(np.float32)
    return torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(targets), len(inputs) // 2


def network(inputs: int, outputs: int, hidden: int = 32, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, hidden), activation(), nn.Linear(hidden, hidden), activation(), nn.Linear(hidden, outputs)
    )


def trained(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    seed: int,
    *,
    steps: int = 300,
    rate: float = 3e-3,
    momentum: bool = False,
    smoothing: float = 0.0,
    decay: float = 0.0,
) -> nn.Module:
    """A loop as anybody writes it."""
    generator = torch.Generator().manual_seed(seed)
    if momentum:
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=10 * rate, momentum=0.9, weight_decay=decay)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)
    model.train()
    with single_thread():
        for _ in range(steps):
            chosen = torch.randint(len(inputs), (32,), generator=generator)
            outputs = model(inputs[chosen])
            if targets.is_floating_point():
                loss = nn.functional.mse_loss(outputs, targets[chosen])
            else:
                loss = nn.functional.cross_entropy(outputs, targets[chosen], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@dataclass(frozen=True)
class Trial:
    """An owner with its data, and its fingerprint."""

    inputs: Tensor
    targets: Tensor
    own: int
    outputs: int
    owner: nn.Module
    fp: Fingerprint

    def fresh(self, seed: int, **options: Any) -> nn.Module:
        with isolated_rng(seed):
            return network(self.inputs.shape[1], self.outputs, **options)

    def part(self, *, own: bool) -> tuple[Tensor, Tensor]:
        rows = slice(0, self.own) if own else slice(self.own, None)
        return self.inputs[rows], self.targets[rows]


@functools.cache
def trial(name: str) -> Trial:
    inputs, targets, own = split(name)
    outputs = 1 if name == "values" else int(targets.max()) + 1

    def recipe(seed: int) -> nn.Module:
        return trained(network(inputs.shape[1], outputs), inputs[:own], targets[:own], seed)

    with isolated_rng(3):
        owner = recipe(3)
    make = metav.Regression if name == "values" else metav.Classification
    task = make(inputs[:own].numpy(), targets[:own].numpy(), epochs=12, learning_rate=3e-3)
    with warnings.catch_warnings(), single_thread():
        warnings.simplefilter("ignore", UserWarning)
        zoo = metav.build_zoo(owner, task, recipe=recipe, **ZOO)
        fp = metav.fingerprint(owner, task, zoo=zoo, options=metav.OptimizationOptions(**OPTIONS), progress=False)
    return Trial(inputs=inputs, targets=targets, own=own, outputs=outputs, owner=owner, fp=fp)


def as_callable(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A scikit-learn model as a suspect."""
    answer = model.predict_proba if hasattr(model, "predict_proba") else model.predict
    return lambda queries: np.asarray(answer(queries.reshape(len(queries), -1))).reshape(len(queries), -1)


def honest(of: Trial) -> dict[str, Any]:
    """Independent models: the owner's recipe, other recipes and architectures, scikit-learn's families."""
    found: dict[str, Any] = {}
    for number in range(2):
        own = number == 0
        data = of.part(own=own)
        found[f"recipe {number}"] = trained(of.fresh(500 + number), *data, 500 + number)
        found[f"longer {number}"] = trained(of.fresh(600 + number), *data, 600 + number, steps=900)
        found[f"momentum {number}"] = trained(of.fresh(700 + number), *data, 700 + number, momentum=True)
        found[f"smoothed {number}"] = trained(of.fresh(800 + number), *data, 800 + number, smoothing=0.1, decay=1e-3)
        wide = of.fresh(900 + number, hidden=80, activation=nn.Tanh)
        found[f"wide {number}"] = trained(wide, *data, 900 + number)
    inputs, targets = of.part(own=True)
    values = of.targets.is_floating_point()
    families = (
        [RandomForestRegressor(60, random_state=0), KNeighborsRegressor(), LinearRegression()]
        if values
        else [
            RandomForestClassifier(60, random_state=0),
            KNeighborsClassifier(),
            LogisticRegression(max_iter=500),
            GaussianNB(var_smoothing=1e-3),
        ]
    )
    for model in families:
        model.fit(inputs.numpy(), targets.numpy().ravel())
        found[type(model).__name__] = as_callable(model)
    return found


def nonsense(of: Trial) -> dict[str, Any]:
    """Suspects that do nothing: untrained networks, noise, constants, answers of another order."""
    shape = (len(of.fp.queries), of.outputs)
    found: dict[str, Any] = {}
    for seed in range(6):
        found[f"untrained {seed}"] = of.fresh(40 + seed)
        found[f"untrained wide {seed}"] = of.fresh(60 + seed, hidden=100, activation=nn.Tanh)
        found[f"noise {seed}"] = np.random.default_rng(seed).normal(size=shape)
        found[f"wide noise {seed}"] = 10 * np.random.default_rng(20 + seed).normal(size=shape)
        if of.outputs > 1:
            found[f"drawn {seed}"] = np.random.default_rng(seed).dirichlet(np.ones(of.outputs), shape[0])
            found[f"random labels {seed}"] = np.random.default_rng(seed).integers(of.outputs, size=shape[0])
    found["constant"] = np.ones(shape)
    found["shuffled"] = np.random.default_rng(1).permutation(answers(of, of.owner))
    return found


def derived(of: Trial) -> dict[str, Any]:
    """Copies of the owner's model."""
    found: dict[str, Any] = {"owner": of.owner}
    thief = of.part(own=False)
    for seed in range(2):
        found[f"tuned {seed}"] = trained(copy.deepcopy(of.owner), *thief, seed, steps=40, rate=1e-3)
        found[f"disturbed {seed}"] = changed(
            of.owner, lambda value: value + 0.03 * value.abs().mean() * noise_like(value)
        )
        found[f"pruned {seed}"] = changed(of.owner, lambda value: value * (value.abs() > 0.1 * value.abs().mean()))
        found[f"rounded {seed}"] = changed(of.owner, lambda value: (64 * value).round() / 64)
    return found


def changed(model: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(change(parameter))
    return twin


def noise_like(value: Tensor) -> Tensor:
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    return noise * value.abs().mean()


def answers(of: Trial, suspect: Any) -> np.ndarray:
    """What a suspect answers to the queries, as float64."""
    if isinstance(suspect, nn.Module):
        with torch.no_grad():
            return suspect(torch.from_numpy(of.fp.queries.copy())).double().numpy()
    return np.asarray(suspect(of.fp.queries.copy()), dtype=np.float64)
