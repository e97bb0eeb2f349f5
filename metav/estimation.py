"""What a fingerprint will cost, told before it is made: models, time, memory on disk, queries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from metav import _core
from metav.errors import CacheError
from metav.models.architectures import build
from metav.models.ensembles import run_model
from metav.optimization.options import OptimizationOptions
from metav.optimization.settings import check_options
from metav.optimization.timing import ModelCounts, OptimizationSeconds, measure_optimization
from metav.support.arguments import query_count
from metav.support.arithmetic import fixed_arithmetic, single_threaded_libraries
from metav.support.files import PathLike
from metav.support.html_tables import html_table
from metav.support.json_values import plain, readable_json
from metav.support.model_answers import OutputChoice
from metav.support.model_interface import ModelInterface
from metav.support.randomness import isolated_rng
from metav.support.text import byte_size, duration
from metav.support.torch_state import in_standard_torch_state
from metav.tasks.base import Task
from metav.tasks.user_tasks import as_task
from metav.verifiers.kinds import VERIFIER_KINDS
from metav.zoo.building import NEGATIVES, POSITIVES, SNAPSHOTS
from metav.zoo.cache import tensor_state
from metav.zoo.cache_folder import read_cache_folder
from metav.zoo.free_negatives import free_negatives
from metav.zoo.plan import PlannedModel
from metav.zoo.preparation import PreparedZoo, prepare_zoo
from metav.zoo.stages import usual_recipes
from metav.zoo.timing import BUDGET, measure_zoo
from metav.zoo.told_recipes import Recipe
from metav.zoo.workers import STARTING_SECONDS, training_processes
from metav.zoo.zoo import ZooModel

DOCUMENT_BYTES = 2**15
"""Of the part of a fingerprint's file that is no tensors, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a fingerprint will cost on this machine, and what that was told from.

    positives, negatives: surrogates to be trained, derived and independent.
    snapshots: copies that are kept of them besides, at most: short trainings have fewer.
    cached: how many of the surrogates are in the cache already, as their names and the owner tell.
    jobs: processes that train what is not cached.
    queries: sent to each suspect.
    zoo: seconds of training what is not cached, in these processes, of starting them where there are several, and of
        making the negatives that are not trained.
    optimization: seconds of the parts after it, at most.
    cache_bytes: of the whole cache, at most.
    artefact_bytes: of the fingerprint's file, least and most: it depends on which verifiers are kept.
    measured: seconds of one model of each family that was trained here, or of the time it would have taken.
    assumed: families that were not, and are taken to need as long per epoch.
    measuring: seconds that the estimate itself took.
    recipe: "told" or "drawn".
    """

    positives: int
    negatives: int
    snapshots: int
    cached: int
    jobs: int
    queries: int
    zoo: float
    optimization: OptimizationSeconds
    cache_bytes: int
    artefact_bytes: tuple[int, int]
    measured: Mapping[str, float]
    assumed: tuple[str, ...]
    measuring: float
    recipe: str

    @property
    def seconds(self) -> float:
        """Seconds of the whole job."""
        return self.zoo + self.optimization.total

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "optimization"}
        parts = {name: getattr(self.optimization, name) for name in OptimizationSeconds.__slots__}
        result: dict[str, Any] = plain({**values, **parts, "seconds": self.seconds})
        return result

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return readable_json(self.to_dict())

    def __str__(self) -> str:
        rows = list(self._rows())
        width = max(len(name) for name, _ in rows)
        return "\n".join(["Estimate for this machine", *(f"  {name.ljust(width)}  {text}" for name, text in rows)])

    def _repr_html_(self) -> str:
        return html_table(["Estimate for this machine"], list(self._rows()))

    def _rows(self) -> Iterator[tuple[str, str]]:
        kept = f", of which {self.cached} are in the cache already" if self.cached else ""
        yield "models to train", f"{self.positives} derived and {self.negatives} independent surrogates{kept}"
        yield "whole time", f"about {duration(self.seconds)}"
        processes = "1 process" if self.jobs == 1 else f"{self.jobs} processes"
        starting = f", {STARTING_SECONDS:g} s of it to start them" if self.jobs > 1 else ""
        yield "  training", f"about {duration(self.zoo)} in {processes}{starting}"
        yield "  optimisation", f"at most {duration(self.optimization.optimise)}"
        rest = self.optimization.verifiers + self.optimization.calibrate
        yield "  verifiers", f"at most {duration(rest)}, with their calibration"
        yield "queries", str(self.queries)
        yield "cache", f"at most {byte_size(self.cache_bytes)}, with {self.snapshots} snapshots at most"
        least, most = map(byte_size, self.artefact_bytes)
        yield "fingerprint", f"{least} to {most}, by the verifiers that turn out best"
        yield "told from", self._source()

    def _source(self) -> str:
        slowest = max(self.measured, key=lambda family: self.measured[family], default=None)
        text = f"{duration(self.measuring)} of measuring here, in one process: "
        if slowest is not None:
            text += f"a model of each of {len(self.measured)} families was trained, or begun and extrapolated "
            text += f"(longest: {slowest}, {duration(self.measured[slowest])})"
        if self.assumed:
            text += f"; {', '.join(self.assumed)} are taken to need as long per epoch"
        text += "; " if self.measured else ""
        text += "a pass of the owner's model, as every surrogate, and updates of verifiers were timed"
        if self.recipe == "drawn" and self.measured:
            text += "; drawn recipes may turn out longer or shorter, as they follow the owner's model"
        return text


def estimate(
    owner: nn.Module,
    task: Task,
    *,
    queries: int | None = None,
    options: OptimizationOptions | None = None,
    positives: int = POSITIVES,
    negatives: int = NEGATIVES,
    recipe: Recipe | None = None,
    independent: Sequence[nn.Module] = (),
    architectures: Any = None,
    autocast: str | None = None,
    output: OutputChoice | None = None,
    input: str | None = None,
    constants: Mapping[str, Any] | None = None,
    seed: int = 0,
    cache: PathLike | None = None,
    jobs: int | None = None,
    budget: float = BUDGET,
    say: Callable[[str], object] | None = None,
) -> Estimate:
    """Return what a fingerprint will cost, before it is made; nothing is written, and nothing changes.

    positives, negatives: of the zoo.
    budget: seconds of measuring after which no further family of surrogates is begun.
    say: is given what is measured next.

    For the other arguments see `fingerprint` and `build_zoo`. One model of a family is trained for a moment, a told
    recipe once to its end (a real zoo does so for at least half of its independent models).

    Raises what `fingerprint` does before it trains anything.
    """
    return _estimate(
        owner,
        task,
        queries=queries,
        options=options,
        sizes=(positives, negatives, SNAPSHOTS),
        cache=cache,
        budget=budget,
        say=say,
        recipe=recipe,
        independent=independent,
        architectures=architectures,
        autocast=autocast,
        interface=ModelInterface(output=output, input=input, constants=constants or {}),
        seed=seed,
        jobs=jobs,
    )


@in_standard_torch_state
def _estimate(
    owner: nn.Module,
    task: Task,
    *,
    queries: int | None,
    options: OptimizationOptions | None,
    sizes: tuple[int, int, int],
    cache: PathLike | None,
    budget: float,
    say: Callable[[str], object] | None,
    jobs: int | None,
    **building: Any,
) -> Estimate:
    begun = time.perf_counter()
    chosen = OptimizationOptions() if options is None else options
    chosen = chosen if queries is None else replace(chosen, queries=query_count(queries))
    task = as_task(task)
    check_options(chosen, task, min(sizes[:2]))
    prepared = prepare_zoo(owner, task, sizes=sizes, jobs=jobs, **building)
    context = prepared.context
    with fixed_arithmetic(), single_threaded_libraries(), isolated_rng(prepared.seed):
        plan = usual_recipes(prepared.plan, context)
        found = _cached(plan, context.digests["owner"], cache)
        missing = [planned for planned in plan if planned.run not in found]
        zoo = measure_zoo(missing, context, budget=budget, say=say)
        if say is not None:
            say("free negatives and the optimisation")
        free, free_seconds = _free_negatives(prepared, plan)
        asked = context.task.read(context.owner).eval()
        after = measure_optimization(asked, context.task, ModelCounts.of_plan(plan), options=chosen, seed=prepared.seed)
    processes = training_processes(jobs, context, len(missing), zoo.total)
    sizes_of = {number: _state_bytes(prepared, number) for number in {planned.architecture for planned in plan}}
    snapshots = sum(len(planned.snapshots) for planned in plan)
    return Estimate(
        positives=sum(planned.is_positive for planned in plan),
        negatives=sum(not planned.is_positive for planned in plan),
        snapshots=snapshots,
        cached=len(found),
        jobs=processes,
        queries=chosen.queries,
        zoo=zoo.total / processes + (STARTING_SECONDS if processes > 1 else 0.0) + free_seconds,
        optimization=after,
        cache_bytes=sum(sizes_of[planned.architecture] * (1 + len(planned.snapshots)) for planned in plan),
        artefact_bytes=_artefact_bytes(asked, context.task, chosen, plan, snapshots, free),
        measured=zoo.measured,
        assumed=zoo.assumed,
        measuring=time.perf_counter() - begun,
        recipe="drawn" if context.recipe is None else "told",
    )


def _free_negatives(prepared: PreparedZoo, plan: Sequence[PlannedModel]) -> tuple[int, float]:
    """Return how many negatives cost no training, and the seconds that making them takes all the same."""
    context, begun = prepared.context, time.perf_counter()
    models = [_stand_in(context.owner, planned) for planned in plan]
    made = free_negatives(context.task, models, context.architectures, seed=prepared.seed)
    return len(made), time.perf_counter() - begun


def _stand_in(owner: nn.Module, planned: PlannedModel) -> ZooModel:
    """Return the owner's model in the place of a planned one."""
    return ZooModel(
        model=owner,
        is_positive=planned.is_positive,
        family=planned.family,
        strength=planned.strength,
        seed=planned.seed,
        run=planned.run,
        fraction=1.0,
        share=planned.share,
        architecture=0,
        metric=0.0,
    )


def _cached(plan: Sequence[PlannedModel], owner: str, cache: PathLike | None) -> set[str]:
    """Return the planned runs that a cache holds for this owner, by name."""
    if cache is None:
        return set()
    try:
        held = read_cache_folder(cache)
    except CacheError:  # it will be made
        return set()
    return {planned.run for planned in plan} & {run.run for run in held.runs if run.run and run.owner == owner[:12]}


def _state_bytes(prepared: PreparedZoo, architecture: int) -> int:
    """Return the bytes of one model's weights."""
    context = prepared.context
    model = context.owner if architecture == 0 else build(context.architectures[architecture], 0)
    return sum(value.numel() * value.element_size() for value in tensor_state(model.state_dict()).values())


def _artefact_bytes(
    owner: nn.Module, task: Task, options: OptimizationOptions, plan: Sequence[PlannedModel], snapshots: int, free: int
) -> tuple[int, int]:
    """Return the bytes of a fingerprint's file, least and most: queries, the answers of all models, verifiers."""
    outputs = run_model(owner, task.natural_queries(1, seed=0)).shape[1]
    models = 1 + len(plan) + snapshots + free
    answers = 4 * models * options.queries * outputs
    queries = 4 * options.queries * math.prod(task.input_shape)
    kinds = VERIFIER_KINDS if options.verifier == "auto" else {options.verifier: VERIFIER_KINDS[options.verifier]}
    independent = sum(1 + len(planned.snapshots) for planned in plan if not planned.is_positive)
    sizes: dict[bool, int] = {}
    for name, kind in kinds.items():
        shapes = _core.parameter_shapes(name, options.queries, outputs, hidden=options.hidden)
        # a closed form keeps a direction for each independent model, at most
        size = sum(4 * math.prod(independent if axis is None else axis for axis in shape) for shape in shapes.values())
        sizes[kind.closed_form] = max(size, sizes.get(kind.closed_form, 0))
    # one learned kind and one closed form, on the two parts of the queries, which are as many as all, and on all
    least = answers + queries
    return least, least + options.repeats * 2 * sum(sizes.values()) + DOCUMENT_BYTES
