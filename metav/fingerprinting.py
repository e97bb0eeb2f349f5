"""From an owner's model and its task to a fingerprint: zoo, joint optimisation, calibration, in one call."""

from __future__ import annotations

import math
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from metav.errors import InputError, ModelError, ZooError
from metav.fingerprints.fingerprint import Fingerprint, TaskSpecification, derive_salt
from metav.models.adapters import output_name
from metav.models.architectures import Architecture
from metav.models.identity import state_digest
from metav.models.running import copied, frozen
from metav.optimization.optimization import OptimizationResult, optimize
from metav.optimization.options import OptimizationOptions
from metav.optimization.owner_outlyingness import owner_outlyingness
from metav.optimization.settings import check_options
from metav.optimization.timing import ModelCounts, measure_optimization
from metav.statistics.calibration import DEFAULT_FPR
from metav.statistics.intervals import exact_interval
from metav.statistics.kin import kin_limit, kin_place
from metav.support.arguments import query_count, seed_number
from metav.support.arithmetic import fixed_arithmetic, single_threaded_libraries
from metav.support.files import PathLike
from metav.support.model_answers import OutputChoice
from metav.support.model_interface import ModelInterface
from metav.support.processor import job_count
from metav.support.progress import in_whole_job, is_shown, whole_job
from metav.support.randomness import derive_seed, isolated_rng
from metav.support.torch_state import in_standard_torch_state
from metav.support.versions import version_of
from metav.tasks.base import Task
from metav.tasks.model_checks import check_differentiable
from metav.tasks.user_tasks import as_task
from metav.zoo.arguments import check_zoo_arguments
from metav.zoo.building import NEGATIVES, POSITIVES, SNAPSHOTS, BuildOptions, build_zoo
from metav.zoo.standing import OwnerStanding
from metav.zoo.told_recipes import Recipe
from metav.zoo.zoo import Zoo

FEWEST_NEGATIVES = 15
"""Independent calibration models below which the threshold lies more than 3.5 standard deviations above their mean."""
WEAK_TPR = 0.7
"""Share of the derived calibration models below which a fingerprint is called weak."""


@in_standard_torch_state
def fingerprint(
    owner: nn.Module,
    task: Task,
    *,
    zoo: Zoo | None = None,
    queries: int | None = None,
    target_fpr: float = DEFAULT_FPR,
    seed: int = 0,
    options: OptimizationOptions | None = None,
    recipe: Recipe | None = None,
    independent: Sequence[nn.Module] = (),
    architectures: Sequence[Architecture] | Architecture | None = None,
    autocast: str | None = None,
    output: OutputChoice | None = None,
    input: str | None = None,
    constants: Mapping[str, Any] | None = None,
    cache: PathLike | None = None,
    jobs: int | None = None,
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
    recipe, independent, architectures, autocast, cache, jobs: as for `build_zoo`, for a zoo that is still to be built.
        Tell the recipe wherever the owner's model was not trained by `task.train`.
    output: which part of the owner's answer counts, where several fit the task: a name ("logits"), a number, or a
        function from the answer to a tensor.
    input, constants: which input of a model with several carries the queries, and what the others are
        given (see `metav.adapt_model`). A zoo knows these three from its own building.
    progress: None shows a bar on a terminal, False never, True always.

    Warns where few independent models calibrate, where the owner's model does not match, where few derived ones do, and
    where the owner's model stands apart from the independent ones.

    Raises ModelError or InputError for arguments that cannot be used, ZooError for a zoo of another owner or task, or
    one too small.
    """
    _check_arguments(owner, zoo)
    task = as_task(task)
    interface = {"output": output, "input": input, "constants": constants or None}
    _check_no_zoo_options(
        zoo,
        {
            "architectures": architectures,
            "recipe": recipe,
            "independent": independent or None,
            "autocast": autocast,
            **interface,
        },
    )
    # before surrogates are trained; what depends on the owner's model, `build_zoo` looks for
    seed = seed_number(seed)
    building: BuildOptions = {
        "architectures": architectures,
        "recipe": recipe,
        "independent": independent,
        "autocast": autocast,
        "output": output,
        "input": input,
        "constants": constants,
        "seed": seed,
        "cache": cache,
        "jobs": jobs,
        "progress": progress,
    }
    chosen = check_request(task, zoo=zoo, queries=queries, target_fpr=target_fpr, options=options, building=building)
    how = ModelInterface(output=output, input=input, constants=constants or {}) if zoo is None else zoo.interface
    _check_owner(owner, task, chosen, how)
    counts = ModelCounts.of_sizes(POSITIVES, NEGATIVES, SNAPSHOTS) if zoo is None else ModelCounts.of_zoo(zoo)
    with fingerprint_job(owner, task, counts, chosen, how, has_zoo=zoo is not None, progress=progress):
        if zoo is None:
            zoo = build_zoo(owner, task, **building)
        with fixed_arithmetic(), single_threaded_libraries(), isolated_rng(derive_seed(seed, "fingerprint")):
            clone = task.adapted(copied(owner), zoo.interface)
            task.check_model(clone)
            _check_zoo(zoo, clone, task)
            clone = frozen(clone)
            asked, read = task.read(clone).eval(), zoo.read_by(task)
            result = optimize(asked, task, read, options=chosen, target_fpr=target_fpr, seed=seed, progress=progress)
    fp = _fingerprint(result, task, zoo, seed, output_name(clone))
    _warn(fp, zoo)
    return fp


def check_request(
    task: Task,
    *,
    owner: nn.Module | None = None,
    zoo: Zoo | None = None,
    sizes: tuple[int, int, int] = (POSITIVES, NEGATIVES, SNAPSHOTS),
    queries: int | None = None,
    target_fpr: float = DEFAULT_FPR,
    options: OptimizationOptions | None = None,
    building: BuildOptions,
) -> OptimizationOptions:
    """Find what would make `fingerprint` fail, and return the options of the optimisation; nothing is trained.

    owner: a model of the owner's class, trained or not; None where there is none yet.
    zoo: None where it is still to be built.
    sizes: of such a zoo: training runs of derived and of independent models, and snapshots of each.
    building: how it is built, see `metav.zoo.building.BuildOptions`.
    queries, target_fpr, options: see `fingerprint`.

    Raises what `fingerprint` does.
    """
    if not isinstance(target_fpr, float) or not 0 < target_fpr < 1:
        raise InputError(f"target_fpr must be a number in (0, 1), got {target_fpr!r}")
    if not isinstance(options, OptimizationOptions | None):
        raise InputError(f"options must be metav.OptimizationOptions or None, got {type(options).__name__}")
    chosen = OptimizationOptions() if options is None else options
    chosen = chosen if queries is None else replace(chosen, queries=query_count(queries))
    job_count(building.get("jobs"))
    if zoo is None:
        check_zoo_arguments(task, sizes, building, owner=owner)
    check_options(chosen, task, min(sizes[:2]) if zoo is None else zoo.smaller_class)
    if owner is not None:
        constants = building.get("constants") or {}
        how = ModelInterface(output=building.get("output"), input=building.get("input"), constants=constants)
        _check_owner(owner, task, chosen, how)
    return chosen


@contextmanager
def fingerprint_job(
    owner: nn.Module,
    task: Task,
    counts: ModelCounts,
    options: OptimizationOptions,
    interface: ModelInterface,
    *,
    has_zoo: bool,
    progress: bool | None,
) -> Iterator[None]:
    """Show, while the body makes a zoo and a fingerprint, the time that is left of both together.

    counts: of the zoo's models.
    has_zoo: whether the zoo is there already.
    progress: None shows bars on a terminal, False never, True always; without bars nothing is measured.
    """
    if in_whole_job() or not is_shown(progress):
        yield
        return
    with fixed_arithmetic(), single_threaded_libraries(), isolated_rng(0):
        asked = task.read(frozen(task.adapted(copied(owner), interface))).eval()
        after = measure_optimization(asked, task, counts, options=options)
    parts = {"optimise": after.optimise, "verifiers": after.verifiers, "calibrate": after.calibrate}
    with whole_job(parts if has_zoo else {"zoo": None, **parts}, enabled=progress):
        yield


def _check_arguments(owner: object, zoo: object) -> None:
    if not isinstance(owner, nn.Module):
        raise ModelError(f"owner must be a torch.nn.Module, got {type(owner).__name__}; pass the trained model itself")
    if zoo is not None and not isinstance(zoo, Zoo):
        raise InputError(f"zoo must be a Zoo or None, got {type(zoo).__name__}; make one with metav.build_zoo")


def _check_owner(owner: nn.Module, task: Task, options: OptimizationOptions, interface: ModelInterface) -> None:
    """Raise ModelError, before anything is trained, where queries cannot be optimised on the owner's model."""
    clone = task.adapted(copied(owner), interface)
    task.check_model(clone)
    if options.adaptive != 0.0:
        check_differentiable(clone, task, "the owner's model")


def _check_no_zoo_options(zoo: Zoo | None, options: Mapping[str, object]) -> None:
    """Raise InputError where a zoo comes with options for building one."""
    given = [name for name, value in options.items() if value is not None]
    if zoo is not None and given:
        verb = "is" if given in (["recipe"], ["autocast"]) else "are"
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


def _warn(fp: Fingerprint, zoo: Zoo) -> None:
    """Warn of what makes a fingerprint weak, with numbers."""
    check, rule = fp.check, fp.calibration
    found = int(rule.negatives.size)
    if found < FEWEST_NEGATIVES:
        runs = len({entry.run for entry in zoo.negatives})
        warnings.warn(
            f"only {found} independent models calibrate, so that the threshold for a false-positive rate of "
            f"{rule.target_fpr:g} lies far above them; build the zoo with about "
            f"negatives={math.ceil(FEWEST_NEGATIVES * runs / found)}",
            stacklevel=4,
        )
    if not check["owner_matches"]:
        warnings.warn(
            f"the owner's model itself does not match (score {check['owner_score']:.3f}), so that this fingerprint "
            "finds nothing; give the zoo more models, or more queries",
            stacklevel=4,
        )
    elif rule.true_positives.value < WEAK_TPR:
        is_told = zoo.standing is not None and zoo.standing.recipe == "told"
        remedies = "more surrogates or more queries" if is_told else "more surrogates, more queries or a recipe"
        warnings.warn(
            f"only {rule.true_positives} of the derived calibration models match at a false-positive rate of "
            f"{rule.target_fpr:g}; {remedies} make the fingerprint stronger",
            stacklevel=4,
        )
    beyond = check["beyond_kin"]
    if zoo.standing is not None and zoo.standing.apart:
        warnings.warn(
            f"the owner's model stands apart from the independent models ({_apart_in(zoo.standing)}): one that was "
            "trained likewise, and all but the nearest copies, will be INCONCLUSIVE; tell how it was trained: recipe=, "
            "a function from a seed to such a model",
            stacklevel=4,
        )
    elif beyond is not None and beyond["value"] < WEAK_TPR:
        warnings.warn(
            "no recipe was told, so that a suspect matches only where it is nearer to the owner's model than honest "
            f"ones trained likewise may be, as {beyond['count']} of {beyond['total']} derived calibration models are; "
            "the others will be INCONCLUSIVE: tell how it was trained, by recipe=, a function from a seed to such a "
            "model",
            stacklevel=4,
        )


def _apart_in(standing: OwnerStanding) -> str:
    """Return in what the owner's model is unlike the independent ones."""
    outside = [
        f"{row.quantity} on {row.part} data {row.owner:.3g}, of independent ones {row.lowest:.3g} to {row.highest:.3g}"
        for row in standing.rows
        if not row.covered
    ]
    if outside:
        return "; ".join(outside)
    return "it fits its data better than most of its class; more epochs of the task bring them nearer"


def _fingerprint(result: OptimizationResult, task: Task, zoo: Zoo, seed: int, output: str | None = None) -> Fingerprint:
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
            output_shape=_output_shape(task, int(result.outputs)),
            class_names=task.class_names,
            output_name=output or "",
            places=task.places,
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
        calibration_models=result.calibration_models,
        truth=result.truth,
        check=_check(result, zoo),
    )


def _check(result: OptimizationResult, zoo: Zoo) -> dict[str, Any]:
    """Return what the fingerprint shows on its own models, plain values.

    The owner's model itself, the rates of calibration, how many negatives nobody trained in each share of the zoo,
    where the owner's model stands among the independent ones, how far its answers lie outside of theirs, and, where no
    recipe was told, how many derived calibration models match nevertheless.
    """
    rule, standing = result.calibration, zoo.standing
    logit = float(result.meta_verifier.logits(result.owner_responses[None])[0])
    models = result.calibration_models
    beyond, outlying = None, owner_outlyingness(models, result.settings.view)
    if standing is not None and standing.recipe == "drawn":
        limit = kin_limit(rule.threshold, logit, kin_place(outlying, apart=standing.apart))
        beyond = exact_interval(int((rule.positives >= limit).sum()), int(rule.positives.size)).to_dict()
    return {
        "owner_matches": logit >= rule.threshold,
        "owner_score": float(rule.score(logit)),
        "true_positives": rule.true_positives.to_dict(),
        "beyond_kin": beyond,
        "outlyingness": outlying,
        "false_positives": rule.false_positives.to_dict(),
        "free_negatives": {
            name: int((models.free & models.of_share(name)).sum()) for name in ("optimize", "select", "calibrate")
        },
        "standing": None if standing is None else standing.to_dict(),
        "natural_queries": 0 if result.truth is None else len(result.truth),
    }


def _output_shape(task: Task, outputs: int) -> tuple[int, ...]:
    """Return the shape of one answer: of a sample where the task has some, else the outputs in a row."""
    if not task.kind.inputs_are_latents or task.examples is None:
        return (outputs,)
    return tuple(int(size) for size in task.examples.shape[1:])


def _bound(values: Any) -> Any:
    return torch.as_tensor(values).detach().cpu().numpy().astype(np.float32)


def _versions() -> dict[str, str]:
    return {
        "metav": version_of(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
