"""From an owner's model and its task to a fingerprint: zoo, joint optimisation, calibration, in one call."""

from __future__ import annotations

import math
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from metav.errors import InputError, ModelError, ZooError
from metav.fingerprints.fingerprint import Fingerprint, TaskSpecification, derive_salt
from metav.models.architectures import Architecture
from metav.models.identity import state_digest
from metav.models.running import copied
from metav.optimization.optimization import OptimizationResult, optimize
from metav.optimization.options import OptimizationOptions
from metav.statistics.p_values import exact_rate
from metav.support.arguments import whole_number
from metav.support.randomness import derive_seed, isolated_rng
from metav.support.versions import version_of
from metav.tasks.base import Task
from metav.tasks.user_tasks import as_task
from metav.verifiers.views import view_of
from metav.zoo.building import build_zoo
from metav.zoo.told_recipes import Recipe
from metav.zoo.zoo import Zoo


def fingerprint(
    owner: nn.Module,
    task: Task,
    *,
    zoo: Zoo | None = None,
    queries: int | None = None,
    target_fpr: float = 0.05,
    seed: int = 0,
    options: OptimizationOptions | None = None,
    recipe: Recipe | None = None,
    independent: Sequence[nn.Module] = (),
    architectures: Sequence[Architecture] | None = None,
    cache: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    progress: bool | None = None,
) -> Fingerprint:
    """Make the fingerprint of an owner's model; the model and all random state come back as they were.

    owner: the model whose copies are to be recognised.
    task: what it has learned, with its data.
    zoo: surrogate models made by `build_zoo` for this owner and task; None builds the standard zoo.
    queries: their number, instead of options.queries (100).
    target_fpr: wanted false-positive rate, in (0, 1).
    seed: of every random choice; the same seed gives the same fingerprint, bit for bit, on the same machine.
    options: of the optimisation; None for the defaults.
    recipe, independent, architectures, cache, jobs: as for `build_zoo`, for a zoo that is still to be built. Tell the
        recipe wherever the owner's model was not trained by `task.train`.
    progress: None shows a bar on a terminal, False never, True always.

    Warns where the zoo has too few independent models to support target_fpr.

    Raises ModelError or InputError for arguments that cannot be used, ZooError for a zoo of another owner or task, or
    one too small.
    """
    _check_arguments(owner, zoo, target_fpr, seed)
    task = as_task(task)
    _check_no_zoo_options(zoo, {"architectures": architectures, "recipe": recipe, "independent": independent or None})
    chosen = OptimizationOptions() if options is None else options
    view_of(chosen.view or task.view)  # before surrogates are trained
    chosen = chosen if queries is None else replace(chosen, queries=whole_number("queries", queries, least=1))
    if zoo is None:
        zoo = build_zoo(
            owner,
            task,
            architectures=architectures,
            recipe=recipe,
            independent=independent,
            seed=seed,
            cache=cache,
            jobs=jobs,
            progress=progress,
        )
    with isolated_rng(derive_seed(seed, "fingerprint")):
        clone = copied(owner)
        task.check_model(clone)
        _check_zoo(zoo, clone, task)
        clone.requires_grad_(False)
        result = optimize(clone, task, zoo, options=chosen, target_fpr=target_fpr, seed=seed, progress=progress)
    _warn_of_few_negatives(result, zoo)
    return _fingerprint(result, task, zoo, seed)


def _check_arguments(owner: object, zoo: object, target_fpr: float, seed: object) -> None:
    if not isinstance(owner, nn.Module):
        raise ModelError(f"owner must be a torch.nn.Module, got {type(owner).__name__}; pass the trained model itself")
    if zoo is not None and not isinstance(zoo, Zoo):
        raise InputError(f"zoo must be a Zoo or None, got {type(zoo).__name__}; make one with metav.build_zoo")
    whole_number("seed", seed)
    if not isinstance(target_fpr, float) or not 0 < target_fpr < 1:
        raise InputError(f"target_fpr must be a number in (0, 1), got {target_fpr!r}")


def _check_no_zoo_options(zoo: Zoo | None, options: Mapping[str, object]) -> None:
    """Raise InputError where a zoo comes with options for building one."""
    given = [name for name, value in options.items() if value is not None]
    if zoo is not None and given:
        verb = "is" if given == ["recipe"] else "are"
        raise InputError(
            f"{' and '.join(given)} {verb} for a zoo that is still to be built; pass them to build_zoo, or no zoo"
        )


def _check_zoo(zoo: Zoo, owner: nn.Module, task: Task) -> None:
    if zoo.owner_digest != state_digest(owner):
        raise ZooError(
            "the zoo was built for another owner (or for other weights of it); expected surrogates of this model: "
            "build it again with metav.build_zoo(owner, task), a cache folder can be kept"
        )
    if zoo.task_digest != task.digest():
        raise ZooError(
            "the zoo was built for another task (other data or options); expected surrogates trained on this one: "
            "build it again with metav.build_zoo(owner, task), or pass the task that it was built with"
        )


def _warn_of_few_negatives(result: OptimizationResult, zoo: Zoo) -> None:
    rule = result.calibration
    if rule.supports_target:
        return
    found = int(rule.negatives.size)
    needed = math.ceil(1 / exact_rate(rule.target_fpr)) - 1
    runs = len({entry.run for entry in zoo.negatives})
    warnings.warn(
        f"{found} independent models calibrate, which cannot support a false-positive rate of {rule.target_fpr:g}: "
        f"{needed} would do, so build the zoo with about negatives={math.ceil(needed * runs / found)}, or ask for a "
        f"rate of {1 / (found + 1):.2g} or more",
        stacklevel=3,
    )


def _fingerprint(result: OptimizationResult, task: Task, zoo: Zoo, seed: int) -> Fingerprint:
    settings = result.settings
    history = {
        "steps": result.steps,
        "held_out_aruc": [list(point) for point in result.held_out_aruc],
        "candidates": [
            {"name": candidate.member.name, "auc": candidate.auc, "separation": candidate.separation}
            for candidate in result.candidates
        ],
    }
    return Fingerprint(
        task=TaskSpecification(
            name=str(task.name),
            view=settings.view,
            input_shape=tuple(int(size) for size in task.input_shape),
            outputs=int(result.outputs),
            levels=settings.levels,
            metric_name=str(task.metric_name),
            higher_is_better=bool(task.higher_is_better),
        ),
        queries=result.queries,
        adaptive=result.adaptive,
        lower=_bound(task.lower),
        upper=_bound(task.upper),
        meta_verifier=result.meta_verifier,
        calibration=result.calibration,
        zoo=zoo.summary(),
        options=settings.options.to_dict(),
        history=history,
        versions=_versions(),
        seed=seed,
        salt=derive_salt(seed, zoo.owner_digest),
    )


def _bound(values: Any) -> Any:
    return torch.as_tensor(values).detach().cpu().numpy().astype(np.float32)


def _versions() -> dict[str, str]:
    return {
        "metav": version_of(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
