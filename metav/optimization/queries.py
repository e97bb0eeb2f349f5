"""The queries of a fingerprint: optimised ones, natural ones, and the choice where more are made than are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from metav.optimization.boundary_queries import boundary_queries
from metav.optimization.informative_queries import informative_queries
from metav.optimization.joint_optimization import JointOptimization
from metav.optimization.query_pool import choose_queries
from metav.optimization.settings import OptimizationSettings
from metav.optimization.shares import Shares
from metav.support.arrays import FloatArray, as_array
from metav.support.randomness import derive_seed
from metav.tasks.base import Task
from metav.zoo.zoo import Zoo


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeQueries:
    """The queries of a fingerprint, and how they were found.

    queries: (N, *input shape), float32.
    adaptive: how many of them, the first ones, were made for the owner's model: optimised, or chosen as disputed.
    truth: true answers of the natural queries, which come last; None where they are not known.
    history: (step, held-out ARUC) per evaluation.
    steps: how many steps the joint optimisation took.
    """

    queries: FloatArray
    adaptive: int
    truth: NDArray[Any] | None
    history: tuple[tuple[int, float], ...]
    steps: int


def make_queries(
    owner: nn.Module, task: Task, zoo: Zoo, settings: OptimizationSettings, *, seed: int, progress: bool | None
) -> MadeQueries:
    """Return the optimised queries, then the natural ones.

    Where the settings ask for a pool, more queries are made than are wanted, the best of them are kept, and those that
    were optimised are optimised further.
    """
    size = settings.optimized
    starting = _starting_queries(owner, task, zoo, settings, seed)
    start, targets = as_array(starting), task.true_answers(starting[size:])
    truth = None if targets is None else task.read_targets(targets).cpu().numpy()
    if settings.levels is not None:
        start = _to_levels(start, task, settings.levels)

    def optimized(start: FloatArray, seed: int) -> tuple[FloatArray, tuple[tuple[int, float], ...], int]:
        if not len(start):
            return start, (), 0
        return JointOptimization(owner, task, zoo, start, settings=settings, seed=seed).run(progress)

    moved = size - settings.disputed
    best, history, steps = optimized(start[:moved], seed)
    made = np.concatenate([best, start[moved:]])
    if len(made) == settings.options.queries:
        return MadeQueries(queries=made, adaptive=size, truth=truth, history=history, steps=steps)
    # natural queries are all kept if the user asked for their number; otherwise they compete with the optimised ones
    fixed = settings.keeps_natural
    candidates = made[:size] if fixed else made
    chosen = choose_queries(Shares.of(owner, zoo, candidates), settings.view, settings.adaptive)
    best = np.ascontiguousarray(made[[number for number in chosen if number < size]])
    kept = list(range(size, len(made))) if fixed else [number for number in chosen if number >= size]
    others = made[kept]
    truth = None if truth is None else truth[[number - size for number in kept]]
    # a second optimisation could move queries by the radius again, farther from their start than a user has allowed
    if settings.options.radius is None:
        best, more, further = optimized(best, derive_seed(seed, "kept"))
        history = (*history, *((steps + step, value) for step, value in more))
        steps += further
    queries = np.concatenate([best, others])
    return MadeQueries(queries=queries, adaptive=len(best), truth=truth, history=history, steps=steps)


def _starting_queries(
    owner: nn.Module, task: Task, zoo: Zoo, settings: OptimizationSettings, seed: int
) -> torch.Tensor:
    """Return queries (count, *input shape), float32: those made for the owner's model first, then the natural ones."""
    moved, natural = settings.optimized, settings.natural
    if settings.starts_on_boundary and moved:
        start = boundary_queries(owner, task, moved, seed=derive_seed(seed, "boundary"))
    elif settings.starts_informative and moved:
        own_seed = derive_seed(seed, "informative")
        start = informative_queries(owner, task, zoo, settings.view, moved, disputed=settings.disputed, seed=own_seed)
    else:
        return task.natural_queries(moved + natural, seed=derive_seed(seed, "natural")).to(torch.float32)
    missing = moved - len(start) + natural
    drawn = task.natural_queries(missing or 1, seed=derive_seed(seed, "natural")).to(torch.float32)
    return torch.cat([start, drawn[:missing]])


def _to_levels(queries: FloatArray, task: Task, levels: int) -> FloatArray:
    lower, upper = as_array(task.lower), as_array(task.upper)
    step = np.where(upper > lower, (upper - lower) / (levels - 1), 1).astype(np.float32)
    snapped = lower + np.rint((queries - lower) / step) * step
    return np.ascontiguousarray(np.clip(snapped, lower, upper), dtype=np.float32)
