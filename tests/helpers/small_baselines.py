"""The baselines with few steps, fitted on the small digits owner, and zoos of untrained models for other tasks."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from small_fingerprints import small_owner, small_task, small_zoo
from small_models import Generator, HeadFirst
from torch import Tensor, nn

from metav.baselines import (
    BASELINES,
    Baseline,
    ConferAE,
    FixedQueryVerifier,
    IPGuard,
    LiteGuard,
    PublishedMetaV,
)
from metav.support.randomness import isolated_rng
from metav.zoo.zoo import Zoo, ZooModel

N = 24
MARGIN = 0.1
SCHEMES: dict[str, Callable[[], Baseline]] = BASELINES | {
    "IPGuard": lambda: IPGuard(margin=MARGIN),
    "ConferAE": lambda: ConferAE(steps=60),
    "LiteGuard": lambda: LiteGuard(steps=300),
    "fixed-query meta-verifier": lambda: FixedQueryVerifier(steps=100),
    "MetaV as published": lambda: PublishedMetaV(steps=60),
}
LEARNED = ("LiteGuard", "fixed-query meta-verifier", "MetaV as published")
CLOSED = tuple(name for name in SCHEMES if name not in LEARNED)
BY_LABEL = ("IPGuard", "ConferAE", "AKH")
FOR_ALL_TASKS = (*LEARNED, "matched filter", "output distance")
CLASSES = torch.arange(10).roll(3)
"""A renaming of the classes that leaves none where it was."""


def fit(name: str, *, queries: int = N, seed: int = 0) -> Baseline:
    return SCHEMES[name]().fit(small_owner(), small_task(), small_zoo(), queries=queries, seed=seed)


@functools.cache
def fitted(name: str) -> Baseline:
    return fit(name)


def scores_of(scheme: Baseline, suspects: Zoo, is_positive: bool) -> list[float]:
    return [scheme.score(entry.model) for entry in suspects if entry.is_positive is is_positive]


def answers(model: nn.Module, queries: np.ndarray) -> Tensor:
    with torch.no_grad():
        return model(torch.from_numpy(queries))


def softmax(logits: Tensor) -> np.ndarray:
    return torch.softmax(logits.double(), dim=1).numpy()


class Renamed(nn.Module):
    """The small owner under other names of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = copy.deepcopy(small_owner())

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)[:, CLASSES]


def fresh(task: str, seed: int) -> nn.Module:
    with isolated_rng(seed):
        model = Generator() if task == "generation" else HeadFirst(64, 1)
    if isinstance(model, Generator):
        # images of some contrast, as of a generator that was trained
        model.last.weight.data.mul_(8)
    return model.eval()


def disturbed(model: nn.Module, seed: int) -> nn.Module:
    """A copy with 5 % of noise on every weight."""
    twin, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1 + 0.05 * torch.randn(parameter.shape, generator=generator))
    return twin


@functools.cache
def zoo_of(task: str, first_seed: int = 100) -> Zoo:
    """Disturbed copies of the model of seed 0, and models of other seeds, untrained."""
    models = []
    for number in range(12):
        is_positive, seed = number < 6, first_seed + number
        model = disturbed(fresh(task, 0), seed) if is_positive else fresh(task, seed)
        models.append(
            ZooModel(
                model=model.requires_grad_(False),
                is_positive=is_positive,
                family="noise" if is_positive else "independent",
                strength=None,
                seed=seed,
                run=str(seed),
                fraction=1.0,
                share=("optimize", "select", "calibrate")[number % 3],
                architecture=0,
                metric=0.0,
            )
        )
    return Zoo(models=tuple(models), owner_digest="", task_digest="", seed=0)
