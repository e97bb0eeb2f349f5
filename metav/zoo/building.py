"""The zoo: surrogate models, derived from the owner's or independent of it, built, cached and divided into shares."""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from metav.architectures import (
    Architecture,
    OwnerArchitecture,
    build,
    check_architectures,
    copied,
    plain_architectures,
)
from metav.digests import state_digest
from metav.errors import InputError, ModelError, ZooError
from metav.progress import progress_bar
from metav.randomness import isolated_rng, single_thread
from metav.tasks import Task
from metav.training import device_of
from metav.zoo_cache import TrainedModel, ZooCache, tensor_state, unpack
from metav.zoo_plan import HOMOLOGOUS, PlannedModel, plan_zoo
from metav.zoo_training import ZooContext, context_digests, identity_of, train_missing

_TASK_METHODS = ("loss", "train", "metric", "natural_queries", "digest", "check_model", "bootstrap")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ZooModel:
    """One surrogate or suspect, in eval mode and without gradients, with what is known of its origin.

    `run` names the training run: snapshots of one run share it and count as one model. `fraction` is the share of the
    training that a snapshot had seen (1.0: all). `share`: "optimize", "select", "calibrate", or "test" for suspects.
    `architecture` indexes the list used: 0 is the owner's own class. `metric` is the task's, on the owner's data.
    `attack`: the obfuscation that an independent surrogate went through.
    Iterating gives (model, is_positive, family).
    """

    model: nn.Module
    is_positive: bool
    family: str
    strength: float | None
    seed: int
    run: str
    fraction: float
    share: str
    architecture: int
    metric: float
    attack: str | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.is_positive, self.family))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Zoo:
    """Surrogate models with their labels; positives first, each run's snapshots before its fully trained model."""

    models: tuple[ZooModel, ...]
    owner_digest: str
    task_digest: str
    seed: int
    metric_name: str = "metric"
    owner_metric: float | None = None

    def __iter__(self) -> Iterator[ZooModel]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    @property
    def positives(self) -> tuple[ZooModel, ...]:
        """The models derived from the owner's, snapshots included."""
        return tuple(entry for entry in self.models if entry.is_positive)

    @property
    def negatives(self) -> tuple[ZooModel, ...]:
        """The independent models, snapshots included."""
        return tuple(entry for entry in self.models if not entry.is_positive)

    def share(self, name: str) -> tuple[ZooModel, ...]:
        """Return the models of one share: "optimize", "select", "calibrate" or "test"."""
        if name not in ("optimize", "select", "calibrate", "test"):
            raise ZooError(f"share must be optimize, select, calibrate or test, got {name!r}.")
        return tuple(entry for entry in self.models if entry.share == name)

    def summary(self) -> dict[str, Any]:
        """Return counts of runs and snapshots per family and share, with the range of metrics; fit for JSON."""
        families: dict[str, dict[str, Any]] = {}
        for entry in self.models:
            row = families.setdefault(
                entry.family, {"is_positive": entry.is_positive, "runs": 0, "snapshots": 0, "shares": {}, "metrics": []}
            )
            if entry.fraction < 1.0:
                row["snapshots"] += 1
                continue
            row["runs"] += 1
            row["shares"][entry.share] = row["shares"].get(entry.share, 0) + 1
            row["metrics"].append(entry.metric)
        for row in families.values():
            metrics = row.pop("metrics")
            row["metric"] = [min(metrics), max(metrics)] if metrics else []
        return {
            "positives": len({entry.run for entry in self.positives}),
            "negatives": len({entry.run for entry in self.negatives}),
            "snapshots": sum(entry.fraction < 1.0 for entry in self.models),
            "metric_name": self.metric_name,
            "owner_metric": self.owner_metric,
            "owner": self.owner_digest,
            "task": self.task_digest,
            "seed": self.seed,
            "families": families,
        }

    def __repr__(self) -> str:
        summary = self.summary()
        return (
            f"Zoo({summary['positives']} derived + {summary['negatives']} independent models of "
            f"{len(summary['families'])} families, {summary['snapshots']} snapshots)"
        )

    def _repr_html_(self) -> str:
        rows = []
        for family, row in self.summary()["families"].items():
            kind = "derived" if row["is_positive"] else "independent"
            metric = " to ".join(f"{value:.4g}" for value in dict.fromkeys(row["metric"]))
            cells = (family, kind, row["runs"], row["snapshots"], metric)
            rows.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
        head = "".join(f"<th>{name}</th>" for name in ("family", "kind", "models", "snapshots", self.metric_name))
        caption = html.escape(repr(self))
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{''.join(rows)}</table>"


def build_zoo(
    owner: nn.Module,
    task: Task,
    *,
    positives: int = 48,
    negatives: int = 48,
    architectures: Sequence[Architecture] | None = None,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    snapshots: int = 2,
    other_task: Task | None = None,
    thief_task: Task | None = None,
    families: Sequence[str] | None = None,
    shares: Mapping[str, tuple[float, float, float]] | None = None,
    progress: bool | None = None,
) -> Zoo:
    """Train the surrogate models of an owner's model; the result does not depend on `jobs` or on what was cached.

    `positives` and `negatives` count training runs; up to `snapshots` of each run that is optimised on come on top,
    taken at 35-85 % of training (none for a task whose `train` has no `on_epoch`). `architectures`: callables that
    return fresh models, besides the owner's own class (None: two plain fully connected networks). `other_task`: data of
    another source for independent models (None: changed parts of the task's). `thief_task`: the data a thief trains on
    (None: the task's). Since nobody knows a thief's data, a part of the positives and of the negatives of other origin
    trains on changed data (`metav.variations`). From 96 negatives on, a fifth of the homologous ones goes through an
    obfuscation, whose traces are no proof of origin. `families`: the obfuscations to use (None: all that fit).
    `shares`: per "positive" and "negative" three fractions for optimize, select, calibrate. `cache`: a folder to
    continue from after a stop. A positive that has become useless (no better than halfway from a constant answer to the
    owner) is made again with half the strength. `jobs`: processes (-1: one per core). `progress`: None shows a bar on a
    terminal, False never, True always.

    The owner's model and the global random state are untouched. Raises ZooError, ModelError, InputError, CacheError.
    """
    return _build(
        owner,
        task,
        counts=(positives, negatives, snapshots),
        architectures=architectures,
        seed=seed,
        cache=cache,
        jobs=jobs,
        tasks=(thief_task, other_task),
        families=families,
        shares=shares,
        progress=progress,
        suspects=False,
    )


def build_suspects(
    owner: nn.Module,
    task: Task,
    *,
    positives: int = 36,
    negatives: int = 36,
    architectures: Sequence[Architecture] | None = None,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    snapshots: int = 0,
    other_task: Task | None = None,
    thief_task: Task | None = None,
    families: Sequence[str] | None = None,
    progress: bool | None = None,
) -> Zoo:
    """Train test suspects: as `build_zoo`, but with seeds, strengths and default architectures that no zoo has.

    Seeds differ from those of every zoo even where `seed` is the same.
    """
    return _build(
        owner,
        task,
        counts=(positives, negatives, snapshots),
        architectures=architectures,
        seed=seed,
        cache=cache,
        jobs=jobs,
        tasks=(thief_task, other_task),
        families=families,
        shares=None,
        progress=progress,
        suspects=True,
    )


def _build(
    owner: nn.Module,
    task: Task,
    *,
    counts: tuple[int, int, int],
    architectures: Sequence[Architecture] | None,
    seed: int,
    cache: str | os.PathLike[str] | None,
    jobs: int,
    tasks: tuple[Task | None, Task | None],
    families: Sequence[str] | None,
    shares: Mapping[str, tuple[float, float, float]] | None,
    progress: bool | None,
    suspects: bool,
) -> Zoo:
    check_arguments(owner, task, jobs)
    store = None if cache is None else ZooCache(cache)
    with isolated_rng(0), single_thread():
        context = zoo_context(owner, task, tasks, architectures, suspects)
        owner_metric = float(task.metric(context.owner))
    plan = plan_zoo(
        task,
        positives=counts[0],
        negatives=counts[1],
        architectures=len(context.architectures),
        seed=seed,
        snapshots=counts[2],
        families=families,
        shares=shares,
        suspects=suspects,
    )
    trained = train_all(plan, context, store, jobs, progress)
    models = tuple(entry for planned in plan for entry in _zoo_models(planned, trained[planned.run], context))
    _warn_of_weak(models, context)
    return Zoo(
        models=models,
        owner_digest=context.digests["owner"],
        task_digest=task.digest(),
        seed=seed,
        metric_name=getattr(task, "metric_name", "metric"),
        owner_metric=owner_metric,
    )


def check_arguments(owner: nn.Module, task: Task, jobs: int) -> None:
    """Raise ModelError or InputError for what no zoo can be built from."""
    if not isinstance(owner, nn.Module):
        raise ModelError(f"owner must be a torch.nn.Module, got {type(owner).__name__}; pass the trained model itself.")
    missing = [name for name in _TASK_METHODS if not callable(getattr(task, name, None))]
    if missing:
        raise InputError(
            f"task of class {type(task).__name__} lacks {', '.join(missing)}; subclass metav.Task or use "
            "Classification, Regression or Generation."
        )
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs == 0:
        raise InputError(f"jobs must be a whole number from 1, or -1 for one per core, got {jobs!r}.")


def zoo_context(
    owner: nn.Module,
    task: Task,
    tasks: tuple[Task | None, Task | None],
    architectures: Sequence[Architecture] | None,
    suspects: bool,
) -> ZooContext:
    """Return what the models are made from, after checking that owner and architectures fit the task."""
    clone = copied(owner)
    task.check_model(clone)
    others = plain_architectures(clone, task, unusual=suspects) if architectures is None else list(architectures)
    check_architectures(others, task)
    own = OwnerArchitecture(clone)
    thief_task, other_task = tasks
    for name, given in (("thief_task", thief_task), ("other_task", other_task)):
        if given is None:
            continue
        if tuple(given.input_shape) != tuple(task.input_shape):
            raise InputError(f"{name} has inputs of shape {given.input_shape}, expected the task's {task.input_shape}.")
        if given.outputs != task.outputs:
            raise InputError(f"{name} has {given.outputs} outputs, expected {task.outputs} like the task.")
    baseline = getattr(task, "baseline", None)
    metric = float(task.metric(clone))
    better = baseline is not None and (
        metric > baseline if getattr(task, "higher_is_better", False) else metric < baseline
    )
    digests = {"task": task, "thief": thief_task or task, "other": other_task}
    return ZooContext(
        owner=clone,
        task=task,
        thief_task=thief_task or task,
        other_task=other_task,
        architectures=(own, *others),
        least_useful=baseline + 0.5 * (metric - baseline) if baseline is not None and better else None,
        digests=context_digests(
            state_digest(clone),
            {name: "" if entry is None else identity_of(entry) for name, entry in digests.items()},
            [clone, *(build(architecture, 0) for architecture in others)],
        ),
    )


def train_all(
    plan: Sequence[Any],
    context: Any,
    store: ZooCache | None,
    jobs: int,
    progress: bool | None,
    train: Callable[[Any, Any], bytes] | None = None,
) -> dict[str, TrainedModel]:
    """Return the trained models by run: from the cache where they are, else trained, in this or other processes.

    `train`, `plan` and `context`: see `train_missing`.
    """
    trained: dict[str, TrainedModel] = {}
    for planned in plan:
        found = None if store is None else store.load(context.key(planned))
        if found is not None:
            trained[planned.run] = found
    missing = {planned.run: planned for planned in plan if planned.run not in trained}
    with progress_bar(total=len(plan), description="zoo", enabled=progress) as bar:
        bar.update(len(trained))
        for run, content in train_missing(missing, context, store, jobs, train):
            key = context.key(missing[run])
            found = unpack(content, key) if content is not None else store.load(key) if store is not None else None
            if found is None:
                raise ZooError(f"the model {run} vanished from the cache while the zoo was built; build it again.")
            trained[run] = found
            bar.set_postfix_str(missing[run].family, refresh=False)
            bar.update()
    return trained


def _zoo_models(planned: PlannedModel, trained: TrainedModel, context: ZooContext) -> Iterator[ZooModel]:
    device = device_of(context.owner)
    for state, fraction, metric in zip(trained.states, trained.fractions, trained.metrics, strict=True):
        model = context.template(planned)
        if set(tensor_state(model.state_dict())) != set(state):
            raise ModelError(f"a trained copy of {type(model).__qualname__} has other weights than a fresh one.")
        # Not strict: extra state that is no tensor stays the template's.
        model.load_state_dict(dict(state), strict=False)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        yield ZooModel(
            model=model.to(device).eval(),
            is_positive=planned.is_positive,
            family=planned.family,
            strength=trained.strength,
            seed=planned.seed,
            run=planned.run,
            fraction=fraction,
            share=planned.share,
            architecture=planned.architecture,
            metric=metric,
            attack=None if planned.attack is None else planned.attack[0],
        )


def _warn_of_weak(models: Sequence[ZooModel], context: ZooContext) -> None:
    """Warn when homologous models learned little: then the zoo says nothing about real competitors."""
    every = [entry for entry in models if entry.family == HOMOLOGOUS and entry.fraction == 1.0]
    full = [entry for entry in every if entry.attack is None] or every
    weak = [entry for entry in full if not context.is_useful(entry.metric)]
    if 2 * len(weak) > len(full):
        warnings.warn(
            f"{len(weak)} of {len(full)} independent models of the owner's own class are much worse than the owner "
            f"({context.task.metric_name} {weak[0].metric:.4g}); give the task more epochs or another learning_rate, "
            "so that it trains as the owner was trained.",
            stacklevel=4,
        )
