"""Natural inputs, and mixtures of two, on which copies of the owner's model differ most from independent models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metav import _core
from metav.obfuscations.registry import OBFUSCATIONS
from metav.optimization.shares import ask_models
from metav.support.arrays import FloatArray, as_array
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


@dataclass(frozen=True, slots=True)
class Candidates:
    """Inputs that may become queries, and what is answered to them.

    inputs: (n, *input shape), float32.
    answers: raw, (1 + models, n, outputs), the owner's first.
    derived: which of the models derive from the owner's, (models,).
    students: which of them were trained on its answers, all derived ones where none was, (models,).
    """

    inputs: Tensor
    answers: FloatArray
    derived: NDArray[np.bool_]
    students: NDArray[np.bool_]

    @classmethod
    def asked(cls, owner: nn.Module, models: Sequence[ZooModel], inputs: Tensor) -> Candidates:
        """Return the inputs with the answers of the owner's model and of finished surrogates of both classes."""
        derived = np.array([entry.is_positive for entry in models])
        students = np.array([entry.is_positive and entry.family in STUDENTS for entry in models])
        return cls(
            inputs=inputs,
            answers=ask_models([owner, *(entry.model for entry in models)], as_array(inputs)),
            derived=derived,
            students=students if students.any() else derived,
        )

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return all inputs of several, which the same models answered."""
        return cls(
            inputs=torch.cat([part.inputs for part in parts]),
            answers=np.concatenate([part.answers for part in parts], axis=1),
            derived=parts[0].derived,
            students=parts[0].students,
        )

    def best(self, scores: NDArray[np.float64], count: int) -> Tensor:
        """Return the `count` inputs of the highest scores; the classes that the owner's model names take turns."""
        places = _best_of_each(scores, self.answers[0].argmax(axis=1))[:count]
        return self.inputs[torch.from_numpy(places)]


def informative_queries(
    owner: nn.Module, task: Task, zoo: Zoo, view: str, count: int, *, disputed: int = 0, seed: int
) -> Tensor:
    """Return the `count` most informative of many inputs, float32 (count, *input shape).

    view: how answers are read.
    disputed: how many of them, the last ones, are chosen for the owner's label alone (see `dispute`).
    seed: of the inputs that are looked at: a third of the others is natural, the rest mixtures of two natural inputs.

    Of few natural inputs, all come back. The shares "optimize" and "select" are asked, the calibration share is not.
    The owner's classes take turns, as queries of one kind tell the same.
    """
    models = [entry for name in ("optimize", "select") for entry in zoo.share(name) if entry.fraction == 1.0]
    size = _candidate_count(owner, task, len(models), count)
    available = size if task.natural_count is None else min(size, task.natural_count)
    inputs = task.natural_queries(available, seed=derive_seed(seed, "candidates")).float().cpu()
    natural = Candidates.asked(owner, models, inputs)
    mixed = Candidates.asked(owner, models, _mixtures(task, inputs, size, derive_seed(seed, "mixtures")))
    wanted = min(round(NATURAL_SHARE * (count - disputed)), len(inputs))
    chosen = [
        mixed.best(informativeness(mixed, view), count - disputed - wanted),
        natural.best(informativeness(natural, view), wanted),
    ]
    if disputed:
        both = Candidates.joined([natural, mixed])
        chosen.append(both.best(dispute(both), disputed))
    return torch.cat(chosen)


def informativeness(candidates: Candidates, view: str) -> NDArray[np.float64]:
    """Return how informative each input is, (n,): how far students move from the others towards the owner.

    The farther the students of the zoo move from the mean independent model in the direction of the owner's, in units
    of the independent models' variance, the better: what is copied through answers alone is hardest to find.

    Source: the linear discriminant's numerator (Fisher, 1936), one query at a time.
    """
    features = _core.apply_view(candidates.answers, view).astype(np.float64)
    derived = candidates.derived
    own, others = features[0], features[1:]
    center, variance = others[~derived].mean(axis=0), others[~derived].var(axis=0)
    variance += SHRINKAGE * variance.mean() + np.finfo(np.float32).tiny
    moved = (others[candidates.students].mean(axis=0) - center) * (own - center) / variance
    return np.asarray(moved.sum(axis=1), dtype=np.float64)


def dispute(candidates: Candidates) -> NDArray[np.float64]:
    """Return how well the owner's label alone tells copies from independent models at each input, (n,).

    It is the symmetric Kullback-Leibler divergence, in nats, between how often derived and how often independent models
    name the owner's class, both shares shrunk towards one half as if one model more had been asked (Krichevsky and
    Trofimov, 1981); 0 where derived models name it less often.
    """
    labels = candidates.answers.argmax(axis=2)
    agreeing = labels[1:] == labels[0]
    copies, others = (
        (agreeing[group].sum(axis=0) + 0.5) / (group.sum() + 1.0) for group in (candidates.derived, ~candidates.derived)
    )
    odds = np.log(copies / (1.0 - copies)) - np.log(others / (1.0 - others))
    return np.asarray(np.maximum(copies - others, 0.0) * odds, dtype=np.float64)


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
