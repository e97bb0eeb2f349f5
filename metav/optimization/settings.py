"""The settings of the optimisation: what the options mean for one task, view and zoo, resolved once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from metav.errors import InputError
from metav.optimization.options import OptimizationOptions
from metav.support.text import byte_size
from metav.tasks.base import Task
from metav.verifiers.views import view_of
from metav.zoo.zoo import Zoo

ADAPTIVE_SHARE = 0.75
"""Share of the queries that is optimised, where there is no pool to choose them from."""
INFORMATIVE_RADIUS = 0.1
"""Largest change of a query that starts there, in units of the range.

Farther away copies that were made through answers alone no longer follow the owner: 0.05 to 0.2 did alike, no limit
accused more honest models on the owners' models that metav was developed with.
"""

OPTIMIZED_FIRST = 40
"""Queries that are optimised before any is left as it is because models dispute its answer.

Copies that were taught by labels alone follow the owner there, but changed copies of its weights show better in what is
optimised. On the owners' models that metav was developed with, 40 of 75 found more than 75, 25 and 10 did; of 38 and
fewer, all.
"""
DISPUTED_SHARE = 0.47
"""Largest share of disputed ones among the queries made for the owner's model."""
POOL = 40
"""Size of the pool: where fewer queries than this are wanted, this many are made, and the best of them are kept."""
LABEL_POOL = 100
"""Size of the pool where nothing but labels is read."""
POOL_SURROGATES = 192
"""Smallest number of surrogates of each class with which a pool is made.

With 60 to 132, a pool gained nothing or did harm on the owners' models that metav was developed with.
"""

BOUNDARY_SURROGATES = 128
"""Smallest number of surrogates of each class with which a classifier's queries start on the decision boundary.

Where only labels are read they always start there.

On its decision boundary the owner's model differs most from any other model. But independent models also differ most
from each other there, so that a verifier needs many of them to learn what only the owner's copies have in common. With
24 to 60 surrogates, this start gained nothing or did harm on the owners' models that metav was developed with.
"""
MOST_BYTES = 4 * 2**30
"""Memory that the answers of a zoo's trained models may take."""
PLACES_VIEWS = ("relative", "logprob", "identity")
"""Views of answers that hold a class for each of several places."""
BOUNDARY_RADIUS = 0.5
"""Largest change of a query that starts there, in units of the range.

Farther from any data the owner's answers are a matter of chance, and a copy of the owner's model does not learn them.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationSettings:
    """The options, and what follows from them for one task and zoo.

    options: as they were given.
    view: how answers are read.
    levels: number of values that an input feature can take; None for continuous ones.
    optimized: queries that are made for the owner's model first, most of them by optimisation.
    disputed: how many of these, the last ones, stay as they are: inputs whose answer independent models dispute; 0
        where the zoo does not show how models trained as the owner's was answer.
    adaptive: how many queries are chosen from the pool in the end; without a pool the same as `optimized`.
    natural: natural queries beside the optimised ones, to keep or to choose from.
    keeps_natural: whether the user asked for the number of natural queries, so that all of them are kept.
    starts_on_boundary: whether optimised queries start on the owner's decision boundary instead of as natural inputs.
    starts_informative: whether optimised queries start as the most informative of many inputs: for a classifier whose
        scores are read. For numbers it gained nothing.
    radius: largest change of a query in units of the range; None for no limit.
    """

    options: OptimizationOptions
    view: str
    levels: int | None
    optimized: int
    disputed: int
    adaptive: int
    natural: int
    keeps_natural: bool
    starts_on_boundary: bool
    starts_informative: bool
    radius: float | None

    @property
    def reads_labels_too(self) -> bool:
        """Whether some verifiers read nothing but labels, beside those that read the view."""
        return self.disputed > 0


def check_options(options: OptimizationOptions, task: Task, surrogates: int) -> None:
    """Raise InputError where a task cannot be asked as the options say; nothing has to be trained to know.

    surrogates: that each class of the zoo will have, at least.

    More natural inputs than there are cannot be asked: the message names the largest number of queries that fits.
    """
    view = options.view or task.view
    name = view_of(view).name
    if task.places is not None and name not in PLACES_VIEWS:
        raise InputError(
            f"view {view!r} reads one class per answer, but a {task.name} task has a class for each of several places; "
            f"use one of {', '.join(PLACES_VIEWS)}"
        )
    _check_memory(options, task, surrogates)
    available = task.natural_count
    if available is None or natural_needed(options, task, surrogates) <= available:
        return
    few, many = 0, options.queries
    while many - few > 1:
        middle = (few + many) // 2
        fits = natural_needed(replace(options, queries=middle), task, surrogates) <= available
        few, many = (middle, many) if fits else (few, middle)
    remedy = f"ask for queries={few} at most" if few else "there are too few for any"
    raise InputError(
        f"{options.queries} queries need {natural_needed(options, task, surrogates)} different natural inputs, and the "
        f"task has {available}; {remedy}, or give the task more data"
    )


def _check_memory(options: OptimizationOptions, task: Task, surrogates: int) -> None:
    """Raise InputError where the answers of all models, which a fingerprint keeps, would be too many."""
    outputs = task.outputs if task.places is None else task.places.outputs
    if outputs is None:
        return
    size = 4 * outputs * options.queries * 2 * surrogates
    if size > MOST_BYTES:
        raise InputError(
            f"{options.queries} queries with {outputs} numbers in each answer, of {2 * surrogates} models, take "
            f"{byte_size(size)}, more than the {byte_size(MOST_BYTES)} that are kept; ask for fewer queries, or pass "
            "output= a function that keeps some of the numbers, and targets of these alone"
        )


def natural_needed(options: OptimizationOptions, task: Task, surrogates: int) -> int:
    """Return how many different natural inputs are drawn for the queries."""
    settings = settings_for(options, task, surrogates)
    if settings.optimized and (settings.starts_on_boundary or settings.starts_informative):
        # they start from pairs of natural inputs, of which a few are enough for many queries
        return max(settings.natural, 2)
    return settings.optimized + settings.natural


def resolve_settings(options: OptimizationOptions, task: Task, zoo: Zoo) -> OptimizationSettings:
    """Return what the options mean for this task and this zoo."""
    return settings_for(options, task, zoo.smaller_class, shows_kin=zoo.shows_kin)


def settings_for(
    options: OptimizationOptions, task: Task, surrogates: int, *, shows_kin: bool = False
) -> OptimizationSettings:
    """Return what the options mean for this task.

    surrogates: that each class of the zoo has, at least.
    shows_kin: whether some of the independent ones were trained as the owner's model was.
    """
    view = options.view or task.view
    labels = view_of(view).reads_labels
    # where only labels are read natural queries tell nothing: all models that have learned the task agree on them
    adaptive_share = 1.0 if labels and options.adaptive is None else options.adaptive
    scores = view_of(view).reads_classes and not labels
    on_boundary = labels or (scores and surrogates >= BOUNDARY_SURROGATES and task.places is None)
    informative = scores and not on_boundary and not task.kind.inputs_are_latents
    pool = (options.pool or (LABEL_POOL if labels else POOL)) if surrogates >= POOL_SURROGATES else 0
    optimized, adaptive, natural = _counts(options.queries, adaptive_share, pool, task.natural_count)
    # models trained as the owner's was give its disputed labels, too: where the zoo has none, they would look derived
    disputed = _disputed(optimized) if informative and shows_kin and task.places is None else 0
    radius = BOUNDARY_RADIUS if on_boundary else INFORMATIVE_RADIUS if informative else None
    return OptimizationSettings(
        options=options,
        view=view,
        levels=task.levels if options.levels is None else options.levels,
        optimized=optimized,
        disputed=disputed,
        adaptive=adaptive,
        natural=natural,
        keeps_natural=adaptive_share is not None,
        starts_on_boundary=on_boundary,
        starts_informative=informative,
        radius=radius if options.radius is None else options.radius,
    )


def _disputed(made: int) -> int:
    """Return how many of the queries that are made for the owner's model stay as they are."""
    return max(0, min(made - OPTIMIZED_FIRST, round(DISPUTED_SHARE * made)))


def _counts(queries: int, adaptive_share: float | None, pool: int, available: int | None) -> tuple[int, int, int]:
    """Return how many queries are optimised, how many of all are then chosen, and how many natural ones there are.

    queries: number of queries wanted.
    adaptive_share: share of them that is to be optimised; None to let the best be chosen.
    pool: size of the pool, 0 for none.
    available: number of natural inputs; None for as many as are wanted.
    """
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
