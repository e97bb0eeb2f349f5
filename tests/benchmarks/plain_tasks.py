"""Whom a verdict accuses on small tables: breast cancer, wine, a regression with five outputs. A table per task.

    python tests/benchmarks/plain_tasks.py [--task breast_cancer|wine|five_outputs] [--told] [--seeds 1,2]

Owners, honest models and copies are trained by a plain loop; the fingerprint is made as the README says, with the
owner's recipe where --told is given. Each suspect is judged by `metav.verify` alone.
"""

from __future__ import annotations

import argparse
import collections
import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from plain_models import pruned, trained
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from torch import Tensor, nn

import metav

RECIPES: dict[str, dict[str, Any]] = {
    "adam": {"epochs": 30, "rate": 2e-3, "batch": 16},
    "sgd": {"momentum": 0.9, "rate": 0.02, "epochs": 60, "decay": 1e-3, "batch": 16},
}
"""Training loops by name: options of `trained`. The owner's is the first."""
OWNER_SEED = 11
KIN, OTHERS, COPIES = 12, 6, 4
"""Honest models of the owner's recipe, of each other kind, and copies of each kind."""


@dataclass(frozen=True)
class Table:
    """Inputs and targets of a task: a half is the owner's, the other the thief's."""

    inputs: Tensor
    targets: Tensor

    @property
    def is_regression(self) -> bool:
        return self.targets.is_floating_point()

    @property
    def parts(self) -> dict[str, tuple[Tensor, Tensor]]:
        half = len(self.inputs) // 2
        return {"owner": (self.inputs[:half], self.targets[:half]), "thief": (self.inputs[half:], self.targets[half:])}

    @property
    def outputs(self) -> int:
        return self.targets.shape[1] if self.is_regression else int(self.targets.max()) + 1

    def network(self, seed: int, *, hidden: int = 32, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
        """Return an untrained network; by default of the owner's architecture."""
        torch.manual_seed(seed)
        inner = [nn.Linear(hidden, hidden), act()]
        return nn.Sequential(nn.Linear(self.inputs.shape[1], hidden), act(), *inner, nn.Linear(hidden, self.outputs))


def table_of(name: str) -> Table:
    """Return a task's data, standardised and in random order."""
    random = np.random.default_rng(3)
    if name == "five_outputs":
        inputs = random.uniform(-1, 1, (800, 10))
        inner = np.tanh(inputs @ random.normal(size=(10, 12)))
        targets = inner @ random.normal(size=(12, 5)) + 0.1 * random.normal(size=(800, 5))
        targets = (targets - targets.mean(axis=0)) / targets.std(axis=0)
        return Table(torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32))
    found = {"breast_cancer": load_breast_cancer, "wine": load_wine}[name]()
    inputs = (found.data - found.data.mean(axis=0)) / found.data.std(axis=0)
    order = random.permutation(len(inputs))
    return Table(torch.tensor(inputs[order], dtype=torch.float32), torch.tensor(found.target[order]))


def honest(table: Table) -> Iterator[tuple[str, Any]]:
    """Yield (kind, model): kin, kin on other data, another recipe, other architectures, scikit-learn's families."""
    own = RECIPES["adam"]
    for seed in range(100, 100 + KIN):
        yield "same recipe", trained(table.network(seed), *table.parts["owner"], seed, **own)
    for seed in range(200, 200 + OTHERS):
        yield "same recipe, other data", trained(table.network(seed), *table.parts["thief"], seed, **own)
        yield "other recipe", trained(table.network(seed), *table.parts["owner"], seed, **RECIPES["sgd"])
        network = table.network(seed, hidden=16 + 8 * (seed % 7), act=(nn.Tanh, nn.GELU)[seed % 2])
        yield "other architecture", trained(network, *table.parts[("owner", "thief")[seed % 2]], seed, **own)
    families: list[Any] = [LogisticRegression(max_iter=2000), KNeighborsClassifier(5)]
    families += [RandomForestClassifier(100, random_state=0), ExtraTreesClassifier(100, random_state=0)]
    if table.is_regression:
        families = [Ridge(), KNeighborsRegressor(5), RandomForestRegressor(100, random_state=0)]
        families += [ExtraTreesRegressor(100, random_state=0)]
    for family in families:
        for inputs, targets in table.parts.values():
            fitted = copy.deepcopy(family).fit(inputs.numpy(), targets.numpy())
            yield "scikit-learn", fitted.predict if table.is_regression else fitted.predict_proba


def nonsense(table: Table) -> Iterator[tuple[str, Any]]:
    """Yield (kind, model): noise, untrained networks, constants."""
    for seed in range(4):
        yield "noise", lambda queries, seed=seed: np.random.default_rng(seed).random((len(queries), table.outputs))
        yield "untrained", table.network(900 + seed).eval()
        row = np.random.default_rng(seed).dirichlet(np.ones(table.outputs))
        yield "constant", lambda queries, row=row: np.tile(row, (len(queries), 1))


def derived(owner: nn.Module, table: Table) -> Iterator[tuple[str, nn.Module]]:
    """Yield (kind, copy) of the owner's model."""
    theirs = table.parts["thief"]
    for number in range(COPIES):
        seed = 600 + number
        yield "fine-tuned", trained(copy.deepcopy(owner), *theirs, seed, epochs=5, rate=5e-4, batch=16)
        yield "fine-tuned hard", trained(copy.deepcopy(owner), *theirs, seed, epochs=15, rate=2e-3, batch=16)
        yield "pruned", pruned(owner, 0.2 + 0.1 * number)
        student: dict[str, Any] = {"epochs": 60, "rate": 2e-3, "batch": 16, "teacher": owner}
        hidden = (32, 48)[number % 2]
        yield "distilled", trained(table.network(seed, hidden=hidden), *theirs, seed, **student)
        if not table.is_regression:
            network = table.network(seed + 50, hidden=hidden)
            yield "taught by labels", trained(network, *theirs, seed, tells_labels=True, **student)


def judged(name: str, seed: int, *, is_told: bool) -> dict[tuple[str, str], collections.Counter[str]]:
    """Return how many of each (group, kind) got which decision, beside one fingerprint of a task's owner."""
    table = table_of(name)

    def recipe(seed: int) -> nn.Module:
        return trained(table.network(seed), *table.parts["owner"], seed, **RECIPES["adam"])

    owner = recipe(OWNER_SEED)
    task = (metav.Regression if table.is_regression else metav.Classification)(*table.parts["owner"])
    told: dict[str, Any] = {"recipe": recipe} if is_told else {}
    fp = metav.fingerprint(owner, task, seed=seed, jobs=-1, progress=False, **told)
    counts: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    groups = {"honest": honest(table), "nonsense": nonsense(table), "derived": derived(owner, table)}
    for group, suspects in groups.items():
        for kind, suspect in suspects:
            accepts: Any = None if isinstance(suspect, nn.Module) else "numpy"
            counts[group, kind][metav.verify(fp, suspect, accepts=accepts).decision.name] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("breast_cancer", "wine", "five_outputs")
    parser.add_argument("--task", choices=names, help="default: all three")
    parser.add_argument("--told", action="store_true", help="tell the owner's recipe")
    parser.add_argument("--seeds", default="1", help="of the fingerprints, by commas")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # what a fingerprint without a recipe is told each time
    for name in (options.task,) if options.task else names:
        total: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for seed in map(int, options.seeds.split(",")):
            for key, counts in judged(name, seed, is_told=options.told).items():
                total[key] += counts
        for (group, kind), counts in total.items():
            shown = "  ".join(f"{decision} {counts[decision]:3}" for decision in ("MATCH", "NO_MATCH", "INCONCLUSIVE"))
            print(f"{name:14} {group:9} {kind:24} {shown}")
        for group in ("honest", "nonsense", "derived"):
            own = sum((counts for (of, _), counts in total.items() if of == group), collections.Counter())
            shown = f"{own['MATCH']} of {own.total()} match, {own['INCONCLUSIVE']} inconclusive"
            print(f"{name}, recipe {'told' if options.told else 'not told'}, {group}: {shown}", flush=True)


if __name__ == "__main__":
    main()
