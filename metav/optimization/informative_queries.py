"""Natural inputs, and mixtures of two, on which copies of the owner's model differ most from independent models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metav import _core
from metav.obfuscations.registry import OBFUSCATIONS
from metav.optimization.shares import ask_models
from metav.support.arrays import as_array
from metav.support.randomness import derive_seed
from metav.tasks.base import Task
from metav.zoo.zoo import Zoo, ZooModel

CANDIDATES = 800
"""Natural inputs, and as many mixtures, that are looked at, at most."""
CANDIDATES_EACH = 14
"""The same for each query that is wanted."""
NATURAL_SHARE = 1 / 3
"""Share of natural inputs among the queries that are returned."""
MOST_NUMBERS = 20_000_000
"""Numbers that all models may answer to all candidates: with more, fewer candidates are looked at."""
SHRINKAGE = 0.3
"""Share of the mean variance of all features that is added to the variance of each: few models tell it badly."""

STUDENTS = frozenset(name for name, entry in OBFUSCATIONS.items() if entry.makes_student)
"""Families whose models hold no weight of the owner's."""


def informative_queries(owner: nn.Module, task: Task, zoo: Zoo, view: str, count: int, *, seed: int) -> Tensor:
    """Return the `count` most informative of many inputs, float32 (count, *input shape).

    view: how answers are read.
    seed: of the inputs that are looked at: a third of the result is natural, the rest mixtures of two natural inputs.

    Of few natural inputs, all come back. The shares "optimize" and "select" are asked, the calibration share is not.

    A query is the more informative, the farther the students of the zoo (all derived models where there are none) move
    from the mean independent model in the direction of the owner's, in units of the independent models' variance:
    what is copied through answers alone is hardest to find. The owner's classes take turns, as queries of one kind
    tell the same.

    Source: the linear discriminant's numerator (Fisher, 1936), one query at a time.
    """
    models = [entry for name in ("optimize", "select") for entry in zoo.share(name) if entry.fraction == 1.0]
    size = _candidate_count(owner, task, len(models), count)
    available = size if task.natural_count is None else min(size, task.natural_count)
    natural = task.natural_queries(available, seed=derive_seed(seed, "candidates")).float().cpu()
    wanted = min(round(NATURAL_SHARE * count), len(natural))
    chosen = []
    for inputs, number in (
        (_mixtures(task, natural, size, derive_seed(seed, "mixtures")), count - wanted),
        (natural, wanted),
    ):
        scores = informativeness(owner, models, inputs, view)
        classes = ask_models([owner], as_array(inputs))[0].argmax(axis=1)
        chosen.append(inputs[torch.from_numpy(_best_of_each(scores, classes)[:number])])
    return torch.cat(chosen)


def informativeness(owner: nn.Module, models: Sequence[ZooModel], inputs: Tensor, view: str) -> NDArray[np.float64]:
    """Return how informative each input is, (n,).

    models: finished surrogates of both classes.
    inputs: (n, *input shape), float32.
    """
    answers = ask_models([owner, *(entry.model for entry in models)], as_array(inputs))
    features = _core.apply_view(answers, view).astype(np.float64)
    derived = np.array([entry.is_positive for entry in models])
    copies = np.array([entry.is_positive and entry.family in STUDENTS for entry in models])
    copies = copies if copies.any() else derived
    own, others = features[0], features[1:]
    center, variance = others[~derived].mean(axis=0), others[~derived].var(axis=0)
    variance += SHRINKAGE * variance.mean() + np.finfo(np.float32).tiny
    moved = (others[copies].mean(axis=0) - center) * (own - center) / variance
    return np.asarray(moved.sum(axis=1), dtype=np.float64)


def _best_of_each(scores: NDArray[np.float64], classes: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return all places, best first: the best of each class, then the second best of each, and so on."""
    order = np.argsort(-scores, kind="stable")
    turns = np.empty(len(order), dtype=np.int64)
    for name in np.unique(classes):
        own = order[classes[order] == name]
        turns[own] = np.arange(len(own))
    return np.lexsort((-scores, turns))


def _candidate_count(owner: nn.Module, task: Task, models: int, least: int) -> int:
    """Return how many inputs of each sort are looked at, `least` in any case."""
    # two inputs: some models fail on a single one
    outputs = ask_models([owner], as_array(task.natural_queries(2, seed=0).float())).size // 2
    return max(least, min(CANDIDATES, CANDIDATES_EACH * least, MOST_NUMBERS // (models * outputs)))


def _mixtures(task: Task, inputs: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` points on the lines between two random inputs."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(len(inputs), (2, count), generator=generator)
    places = torch.rand(count, generator=generator).reshape(-1, *[1] * (inputs.dim() - 1))
    points = inputs[first] + places * (inputs[second] - inputs[first])
    # rounding may leave the bounds, most of all where both are the same number
    return torch.minimum(torch.maximum(points, task.lower.cpu()), task.upper.cpu())
