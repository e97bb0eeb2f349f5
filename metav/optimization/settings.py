"""What the options stand for, once task, view and zoo are known: resolved once, one frozen value from then on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metav.optimization.options import OptimizationOptions
from metav.tasks.base import Task
from metav.verifiers.views import view_of
from metav.zoo.zoo import Zoo

ADAPTIVE_SHARE = 0.75
"""Share of the queries that is optimised, where there is no pool to choose them from."""

POOL = 40
"""Where fewer queries than this are wanted, this many are made, and the best of them kept."""
LABEL_POOL = 100
"""The same where nothing but labels is read."""
POOL_SURROGATES = 192
"""Surrogates of each class from which on there is a pool: 60 to 132 gained nothing on development owners, or lost."""

BOUNDARY_SURROGATES = 128
"""Surrogates of each class from which on the queries of a classifier start on the owner's decision boundary.

There the owner's answers differ most from those of any other model, but independent models also differ most from each
other, and a verifier needs many of them to learn the difference: with 24 to 60 it gained nothing on development owners,
or lost.
"""
BOUNDARY_RADIUS = 0.5
"""How far such a query may move, in units of the range: farther from any data the owner's answers are chance, and no
copy of it learns them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationSettings:
    """The options, and what follows from them for one task and zoo.

    view: how answers are read.
    levels: number of values of an input feature, None for continuous ones.
    optimized: queries that are optimised first.
    adaptive: how many of them are wanted in the end.
    natural: natural queries beside them, to keep or to choose from.
    keeps_natural: whether their number was asked for, so that all of them are kept.
    starts_on_boundary: whether optimised queries start on the owner's decision boundary instead of as natural inputs.
    radius: largest change of a query in units of the range, None for none.
    """

    options: OptimizationOptions
    view: str
    levels: int | None
    optimized: int
    adaptive: int
    natural: int
    keeps_natural: bool
    starts_on_boundary: bool
    radius: float | None


def resolve_settings(options: OptimizationOptions, task: Task, zoo: Zoo) -> OptimizationSettings:
    """Return what the options stand for with this task and this zoo."""
    summary: dict[str, Any] = zoo.summary()
    surrogates = min(summary["positives"], summary["negatives"])
    view = options.view or task.view
    labels = view_of(view).reads_labels
    # natural queries tell nothing where labels are read: models that do the task agree on them
    adaptive_share = 1.0 if labels and options.adaptive is None else options.adaptive
    on_boundary = labels or (view_of(view).reads_classes and surrogates >= BOUNDARY_SURROGATES)
    pool = (options.pool or (LABEL_POOL if labels else POOL)) if surrogates >= POOL_SURROGATES else 0
    optimized, adaptive, natural = _counts(options.queries, adaptive_share, pool, task.natural_count)
    return OptimizationSettings(
        options=options,
        view=view,
        levels=task.levels if options.levels is None else options.levels,
        optimized=optimized,
        adaptive=adaptive,
        natural=natural,
        keeps_natural=adaptive_share is not None,
        starts_on_boundary=on_boundary,
        radius=BOUNDARY_RADIUS if options.radius is None and on_boundary else options.radius,
    )


def _counts(queries: int, adaptive_share: float | None, pool: int, available: int | None) -> tuple[int, int, int]:
    """Return how many queries are optimised, how many of all are then chosen, and how many natural ones there are."""
    if adaptive_share is not None:
        wanted = round(adaptive_share * queries)
    else:
        wanted = queries if queries < pool else round(ADAPTIVE_SHARE * queries)
    rest = queries - wanted
    if not wanted or wanted >= pool:
        return wanted, wanted, rest
    there = queries + 2 * pool if available is None else available
    if adaptive_share is None:
        rest = max(0, min(pool, there - wanted))
    return max(wanted, min(pool, there - rest)), wanted, rest
