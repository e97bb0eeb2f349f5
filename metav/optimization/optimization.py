"""From a zoo to a fingerprint's parts: queries, meta-verifier, decision rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import nn

from metav.errors import ZooError
from metav.optimization.candidates import Candidate, fit_candidates, select_members
from metav.optimization.cross_fitting import model_parts, refit
from metav.optimization.options import OptimizationOptions
from metav.optimization.queries import make_queries
from metav.optimization.settings import OptimizationSettings, resolve_settings
from metav.optimization.shares import Shares
from metav.statistics.calibration import Calibration
from metav.statistics.calibration_models import CalibrationModels
from metav.support.arrays import FloatArray
from metav.tasks.base import Task
from metav.verifiers.meta_verifier import MetaVerifier
from metav.zoo.zoo import Zoo


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationResult:
    """What the optimisation has found.

    settings: what the options stood for.
    queries: (N, *input shape), float32.
    adaptive: how many of the queries, the first ones, are made for the owner's model: optimised, or chosen as disputed.
    outputs: numbers that a model answers per query.
    meta_verifier: the final one.
    calibration: the decision rule.
    calibration_models: what the models of the zoo answered.
    truth: true answers of the natural queries; None where they are not known.
    owner_responses: what the owner's model answers, (N, outputs).
    candidates: every verifier that was tried, with its quality on the selection share.
    held_out_aruc: (step, ARUC on the selection share) at each evaluation.
    steps: how many steps the joint optimisation took.
    """

    settings: OptimizationSettings
    queries: FloatArray
    adaptive: int
    outputs: int
    meta_verifier: MetaVerifier
    calibration: Calibration
    calibration_models: CalibrationModels
    truth: NDArray[Any] | None
    owner_responses: FloatArray
    candidates: tuple[Candidate, ...]
    held_out_aruc: tuple[tuple[int, float], ...]
    steps: int


def optimize(
    owner: nn.Module,
    task: Task,
    zoo: Zoo,
    *,
    options: OptimizationOptions,
    target_fpr: float = 0.01,
    seed: int = 0,
    progress: bool | None = None,
) -> OptimizationResult:
    """Optimise queries and verifiers on the zoo's "optimize" share, select on "select", calibrate on "calibrate".

    options: see `OptimizationOptions`.
    target_fpr: wanted false-positive rate, in (0, 1).
    seed: of every random choice.
    progress: None shows a bar on a terminal, False never, True always.

    Raises ZooError where a share lacks positives or negatives, ModelError where models do not fit each other.
    """
    _check_shares(zoo)
    settings = resolve_settings(options, task, zoo)
    made = make_queries(owner, task, zoo, settings, seed=seed, progress=progress)
    shares = Shares.of(owner, zoo, made.queries)
    candidates = fit_candidates(shares, made.adaptive, settings, seed, progress)
    models = shares.models(model_parts(shares, settings.options.repeats))
    final = refit(select_members(candidates), models, settings, seed, progress)
    return OptimizationResult(
        settings=settings,
        queries=made.queries,
        adaptive=made.adaptive,
        outputs=shares.select.shape[2],
        meta_verifier=final.meta_verifier,
        calibration=models.calibration(final.logits, target_fpr=target_fpr),
        calibration_models=models,
        truth=made.truth,
        owner_responses=shares.owner[0],
        candidates=tuple(candidates),
        held_out_aruc=made.history,
        steps=made.steps,
    )


def _check_shares(zoo: Zoo) -> None:
    for name in ("optimize", "select", "calibrate"):
        items = zoo.share(name)
        positives = sum(item.is_positive for item in items)
        wanted_negatives = 2 if name == "optimize" else 1
        if positives < 1 or len(items) - positives < wanted_negatives:
            raise ZooError(
                f"the zoo's {name!r} share has {positives} positives and {len(items) - positives} negatives; it needs "
                f"at least 1 and {wanted_negatives}: build a larger zoo (positives=, negatives=)"
            )
