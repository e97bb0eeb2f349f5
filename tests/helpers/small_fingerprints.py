"""Fingerprints for tests: one written by hand in a few numbers, one made from a small real zoo."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from small_models import HeadFirst, digits
from torch import nn

import metav
from metav import _core
from metav.fingerprints.fingerprint import Fingerprint, TaskSpecification, derive_salt
from metav.statistics.calibration import Calibration, calibrate
from metav.statistics.calibration_models import CalibrationModels
from metav.support.randomness import isolated_rng, single_thread
from metav.tasks.classification import Classification
from metav.verifiers.meta_verifier import Member, MetaVerifier
from metav.verifiers.places import Places
from metav.zoo.zoo import Zoo

QUERIES, OUTPUTS = 6, 3
LINEAR_SLOPE = 0.75 / 2.0  # weight and spread of the first member of a hand-made fingerprint
SMALL = {"positives": 14, "negatives": 12, "seed": 2}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Multiples of 1/8 in [-4, 4): exact in float32 and in any order of summation."""
    return (np.random.default_rng(seed).integers(-32, 32, shape) / 8).astype(np.float32)


def member(kind: str, start: int, stop: int, *, weight: float = 1.0, view: str = "identity", **changes: Any) -> Member:
    """A member with parameters that are the same on every machine."""
    verifier = _core.Verifier(kind, stop - start, OUTPUTS, view=view, hidden=4)
    if kind == "matched":
        verifier.standardize(numbers(5, stop - start, OUTPUTS))
        verifier.fit_closed_form(numbers(stop - start, OUTPUTS, seed=1), numbers(5, stop - start, OUTPUTS))
    fixed = {
        name: np.ones_like(value) if name in ("scale", "precision") else numbers(*value.shape, seed=number)
        for number, (name, value) in enumerate(sorted(verifier.parameters().items()))
    }
    verifier.load_parameters(fixed)
    options = {"name": f"{kind}:all", "weight": weight, "center": 0.25, "spread": 2.0, **changes}
    return Member(verifier=verifier, start=start, stop=stop, **options)


def linear_member(start: int, stop: int, **changes: Any) -> Member:
    """An `mlp` whose logit is its first answer: relu(a) - relu(-a) = a."""
    found = member("mlp", start, stop, **changes)
    parameters = {name: np.zeros_like(value) for name, value in found.verifier.parameters().items()}
    parameters["weight1"][0, :2] = parameters["weight2"][:2] = (1, -1)
    parameters["scale"] += 1
    found.verifier.load_parameters(parameters)
    return found


def rule(**changes: Any) -> Calibration:
    """A rule with 50 negatives below and 4 positives above the threshold, the one of the hand-made of version 1."""
    options = {
        "threshold": 0.5,
        "slope": 2.0,
        "target_fpr": 0.05,
        "negatives": np.linspace(-3.0, 0.0, 50),
        "positives": np.array([1.0, 1.5, 2.0, 2.5]),
    }
    return Calibration(**{**options, **changes})


def members_of(view: str) -> MetaVerifier:
    """The two members of a hand-made fingerprint."""
    members = (linear_member(0, 4, weight=0.75, view=view), member("local", 4, 6, weight=0.25, view=view))
    return MetaVerifier(members)


def handmade(**changes: Any) -> Fingerprint:
    """Six queries of shape (2, 2), three outputs, two members; keywords replace fields.

    A classifier's, but for the views that read numbers as they are: those are a regression's. 50 independent models
    calibrate, 4 derived ones and 2 that nobody trained; the rule is the one that follows from them.
    """
    view = changes.pop("view", "identity")
    models = calibration_models(view)
    options: dict[str, Any] = {
        "task": TaskSpecification(
            name="regression" if view.startswith("identity") else "classification",
            view=view,
            input_shape=(2, 2),
            outputs=OUTPUTS,
            levels=None,
            metric_name="accuracy",
            higher_is_better=True,
        ),
        "queries": numbers(QUERIES, 2, 2),
        "adaptive": 4,
        "lower": np.full((2, 2), -4.0, np.float32),
        "upper": np.full((2, 2), 4.0, np.float32),
        "meta_verifier": members_of(view),
        "calibration": rule_of(members_of(view), models, 0.05),
        "zoo": {"positives": 4, "owner_metric": 0.9375},
        "options": {"queries": QUERIES, "weights": [0.5, 1, 1]},
        "history": {"held_out_aruc": [[1, 0.5]]},
        "versions": {"metav": "0.2.0"},
        "seed": 3,
        "salt": derive_salt(3, "0" * 64),
        "calibration_models": models,
        "truth": numbers(2, OUTPUTS, seed=6) if view.startswith("identity") else np.array([0, 2]),
        "check": {"owner_matches": True, "owner_score": 0.875},
    }
    return Fingerprint(**{**options, **changes})


def handmade_of_places() -> Fingerprint:
    """The hand-made fingerprint as one of four pixels of three named classes, of which one pixel is read."""
    names = {"class_names": ("sea", "land", "ice"), "output_name": "logits"}
    task = handmade_task(
        name="segmentation", view="relative", places=Places(classes=3, shape=(4,), chosen=(2,)), **names
    )
    return handmade(view="relative", task=task, truth=np.array([[0], [2]]))


def handmade_of_version_1() -> Fingerprint:
    """The hand-made fingerprint as 0.1.0 made it."""
    return handmade(
        task=handmade_task(name="classification"),
        calibration=rule(),
        versions={"metav": "0.1.0"},
        calibration_models=None,
        truth=None,
        check={},
        format_version=1,
    )


@functools.cache
def calibration_models(view: str = "identity") -> CalibrationModels:
    """50 independent models of logits from -3 to 0, 4 derived ones above, 2 free ones, all multiples of 1/8."""
    wanted = [*np.linspace(1.0, 2.5, 4), *np.linspace(-3.0, 0.0, 50), -8.0, -9.0]
    members = members_of(view)
    answers = [_with_logit(members, logit, seed=100 + number) for number, logit in enumerate(wanted)]
    return CalibrationModels(
        responses=np.round(8 * np.stack(answers)) / 8,
        derived=np.arange(56) < 4,
        free=np.arange(56) >= 54,
        families=("noise",) * 4 + ("independent",) * 50 + ("free_constant",) * 2,
        parts=np.zeros(56),
    )


def rule_of(members: MetaVerifier, models: CalibrationModels, target_fpr: float) -> Calibration:
    """The rule that follows from calibration models."""
    logits = np.empty(len(models.parts))
    for part in np.unique(models.parts):
        own = models.parts == part
        logits[own] = members.logits_of_part(np.ascontiguousarray(models.responses[own]), int(part))
    return calibrate(logits[models.derived], logits[models.independent], target_fpr=target_fpr)


def handmade_between(negative: np.ndarray, positive: np.ndarray, **changes: Any) -> Fingerprint:
    """A hand-made fingerprint that one independent and one derived model calibrate: the threshold is the next number
    above the logit of the first. Keywords replace fields."""
    fp = handmade(**changes)
    models = CalibrationModels(
        responses=np.stack([negative, positive]),
        derived=np.array([False, True]),
        free=np.zeros(2, bool),
        families=("independent", "noise"),
        parts=np.zeros(2),
    )
    return replace(fp, calibration_models=models, calibration=rule_of(fp.meta_verifier, models, 0.05))


def handmade_task(**changes: Any) -> TaskSpecification:
    """The task of the hand-made fingerprint; keywords replace fields."""
    task = handmade().task
    return TaskSpecification(**{name: getattr(task, name) for name in task.__slots__} | changes)


def answers_with_logit(fp: Fingerprint, logit: float, *, seed: int = 0) -> np.ndarray:
    """Answers (N, K) of a hand-made fingerprint under the view `identity` whose logit is the given one, but for
    rounding: it is linear in the first answer."""
    return _with_logit(fp.meta_verifier, logit, seed=seed)


def _with_logit(members: MetaVerifier, logit: float, *, seed: int) -> np.ndarray:
    answers = numbers(QUERIES, OUTPUTS, seed=seed)
    missing = logit - float(members.logits(answers[None])[0])
    answers[0, 0] += missing / LINEAR_SLOPE
    return answers


@functools.cache
def small_task() -> Classification:
    images, labels = digits()
    return Classification(images[:400], labels[:400], epochs=4, learning_rate=1e-2, bounds=(0.0, 1.0))


@functools.cache
def small_owner() -> nn.Module:
    with isolated_rng(1):
        model = HeadFirst(64, 10)
    return small_task().train(model, seed=1)


@functools.cache
def small_zoo() -> Zoo:
    return metav.build_zoo(small_owner(), small_task(), **SMALL)


@functools.cache
def small_suspects() -> Zoo:
    return metav.build_suspects(small_owner(), small_task(), positives=8, negatives=8, seed=0)


def small_options(**changes: Any) -> metav.OptimizationOptions:
    return metav.OptimizationOptions(**{"queries": 20, "steps": 20, **changes})


def make_fingerprint(**changes: Any) -> Fingerprint:
    """A fingerprint of the small owner, without the warning that so small a zoo deserves."""
    options = {"zoo": small_zoo(), "options": small_options(), "progress": False, **changes}
    with warnings.catch_warnings(), single_thread():
        warnings.simplefilter("ignore", UserWarning)
        return metav.fingerprint(small_owner(), small_task(), **options)


@functools.cache
def small_fingerprint() -> Fingerprint:
    return make_fingerprint()


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that a call must leave as it was: weights, modes, gradients, flags, hooks."""
    return {
        "weights": {name: value.numpy().tobytes() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "gradients": [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()],
        "flags": [p.requires_grad for p in model.parameters()],
        "hooks": [list(module._forward_hooks) for module in model.modules()],
        "threads": torch.get_num_threads(),
    }
