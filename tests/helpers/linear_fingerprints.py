"""A fingerprint of linear models, whose verdict on a linear suspect is known, for tests of how suspects are asked."""

from __future__ import annotations

import functools

import numpy as np

from metav import _core
from metav.fingerprints.fingerprint import Fingerprint, TaskSpecification, derive_salt
from metav.statistics.calibration import calibrate
from metav.statistics.calibration_models import CalibrationModels
from metav.verifiers.meta_verifier import Member, MetaVerifier

QUERIES, INPUTS, OUTPUTS = 48, 4, 3
ADAPTIVE = 32


def _random(*shape: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


TRUE = _random(INPUTS, OUTPUTS, seed=1)
"""What the task's true answers are made with."""
OWNER_SEED, OTHER_OWNER_SEED = 2, 4


def owner_of(seed: int) -> np.ndarray:
    """The weights of an owner's linear model."""
    return TRUE + _random(INPUTS, OUTPUTS, seed=seed, scale=0.3)


OWNER = owner_of(OWNER_SEED)
QUERY_ARRAY = np.clip(_random(QUERIES, INPUTS, seed=3), -3, 3)


def weights(*, derived: bool, seed: int = 0, owner: int = OWNER_SEED) -> np.ndarray:
    """The weights of a linear model that was derived from the owner's, or learned the task by itself."""
    start, scale = (owner_of(owner), 0.02) if derived else (TRUE, 0.15)
    return start + _random(INPUTS, OUTPUTS, seed=1000 + seed, scale=scale)


def answers(matrix: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """A linear model's answers, the same for a query in any batch: products and sums of one row at a time."""
    rows = np.asarray(queries, np.float32).reshape(len(queries), INPUTS)
    return (rows[:, :, None] * matrix).sum(axis=1, dtype=np.float32)


@functools.cache
def linear_fingerprint(name: str = "regression", levels: int | None = None, owner: int = OWNER_SEED) -> Fingerprint:
    """A fingerprint whose one verifier measures answers along what sets the owner apart."""
    own = answers(owner_of(owner), QUERY_ARRAY) - answers(TRUE, QUERY_ARRAY)
    verifier = _core.Verifier("mlp", QUERIES, OUTPUTS, view="identity", hidden=2)
    values = {key: np.zeros_like(value) for key, value in verifier.parameters().items()}
    values["scale"] += 1
    values["weight1"][:, 0], values["weight1"][:, 1] = own.ravel(), -own.ravel()
    values["weight2"][:2] = (1, -1)
    verifier.load_parameters(values)
    models = [answers(weights(derived=number < 8, seed=number, owner=owner), QUERY_ARRAY) for number in range(68)]
    independent = np.stack(models[8:])
    logits = (independent * own).sum(axis=(1, 2))
    center, spread = float(logits.mean()), float(logits.std())
    member = Member(verifier=verifier, start=0, stop=QUERIES, name="mlp:all", weight=1.0, center=center, spread=spread)
    scores = ((np.stack(models) * own).sum(axis=(1, 2)) - center) / spread
    calibration = CalibrationModels(
        responses=np.stack(models),
        derived=np.arange(68) < 8,
        free=np.zeros(68, bool),
        families=("noise",) * 8 + ("independent",) * 60,
        parts=np.zeros(68),
    )
    return Fingerprint(
        task=TaskSpecification(
            name=name,
            view="identity",
            input_shape=(INPUTS,),
            outputs=OUTPUTS,
            levels=levels,
            metric_name="error",
            higher_is_better=False,
        ),
        queries=QUERY_ARRAY,
        adaptive=ADAPTIVE,
        lower=np.full(INPUTS, -4.0, np.float32),
        upper=np.full(INPUTS, 4.0, np.float32),
        meta_verifier=MetaVerifier((member,)),
        calibration=calibrate(scores[:8], scores[8:], target_fpr=0.05),
        zoo={},
        options={},
        history={},
        versions={"metav": "0.2.0"},
        seed=5,
        salt=derive_salt(5, "1" * 64),
        calibration_models=calibration,
        truth=answers(TRUE, QUERY_ARRAY[ADAPTIVE:]),
        check={},
    )
