"""Access: what is left of a suspect's answers, and other models' answers made to look the same.

A threshold holds for the access that it was calibrated under. Calibration models answered in full precision; `degrade`
gives what the suspect's side would have let out of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metav.errors import InputError
from metav.support.json_values import plain
from metav.verifiers.forms import FLOOR, Form, Numbers, as_probabilities, log_softmax, one_hot, undo_form

STEADY = 1e-5
"""Differences between two answers up to this, in standard deviations of the answers, are the hardware's arithmetic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What is left of a model's answers once their form is undone.

    reads: what that is: "probabilities", "logits", "labels" or "values".
    decimals: of probabilities (2 for whole percent), logits or values; None where they are not rounded.
    clipped: bounds (lower, upper) of probabilities, or None.
    top: how many classes per row are told, None for all.
    complete: whether these were made to sum to one.
    noise: standard deviation of one answer: of a probability; of a logit in units of the model's own spread; of a value
        in standard deviations of its output; the share of labels that changed from one answer to the next.
    """

    reads: str
    decimals: int | None = None
    clipped: tuple[float, float] | None = None
    top: int | None = None
    complete: bool = True
    noise: float = 0.0

    @property
    def is_full(self) -> bool:
        """Whether nothing is lost that the core would have read."""
        lost = (self.decimals, self.clipped, self.top)
        return self.reads != "labels" and not self.noise and all(entry is None for entry in lost)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values: dict[str, Any] = plain({field.name: getattr(self, field.name) for field in fields(self)})
        return values

    def __str__(self) -> str:
        parts = ["labels"] if self.reads == "labels" else []
        parts += [] if self.top is None else [f"top({self.top})"]
        parts += [] if self.clipped is None else [f"clipped({self.clipped[0]:g}, {self.clipped[1]:g})"]
        parts += [] if self.decimals is None else [f"rounded({self.decimals})"]
        parts += [f"noisy({self.noise:.2g})"] if self.noise else []
        return ", ".join(parts) or "all"


def access_of(form: Form, *, responses: ArrayLike | None = None, differences: ArrayLike | None = None) -> Access:
    """Return what is left of answers of a form.

    responses: the answers themselves, (N, K), as they came; needed with differences.
    differences: between two answers to the same queries, (r, K), as they came; None counts as none.

    Raises InputError for differences without answers.
    """
    noise = 0.0
    if differences is not None:
        if responses is None:
            raise InputError("differences between answers need the answers themselves, responses=")
        noise = _noise(form, np.asarray(responses, np.float64), np.asarray(differences, np.float64))
    if form.kind in ("labels", "one-hot"):
        return Access(reads="labels", noise=noise)
    if not form.is_distribution:
        return Access(reads="values" if form.kind == "values" else "logits", decimals=form.decimals, noise=noise)
    # with one class untold, what is missing is that class's
    lossless = form.top == form.outputs - 1 and not form.complete
    decimals = form.decimals
    return Access(
        reads="probabilities",
        decimals=None if decimals is None else decimals + (2 if form.kind == "percent" else 0),
        clipped=form.clipped,
        top=None if lossless else form.top,
        complete=lossless or form.complete,
        noise=noise,
    )


def _noise(form: Form, responses: Numbers, differences: Numbers) -> float:
    if not differences.size or not differences.any():
        return 0.0
    if form.kind == "labels":
        return float((differences != 0).mean())
    if form.kind == "one-hot":
        return float((differences != 0).any(axis=1).mean())
    deviation = math.sqrt(float(responses.var(axis=0).mean()))
    if float(np.abs(differences).max()) <= STEADY * deviation:
        return 0.0
    if form.is_distribution:
        relative = differences / form.scale
    elif form.kind == "values":
        spreads = responses.std(axis=0)
        relative = differences / np.where(spreads > 0, spreads, 1.0)
    else:
        spread = _spread(responses)
        relative = (differences - differences.mean(axis=1, keepdims=True)) / (spread if spread > 0 else 1.0)
    # the difference of two answers has twice the variance of one
    return math.sqrt(float(np.mean(relative**2)) / 2)


def _spread(logits: Numbers) -> Any:
    """Return the root mean square of each model's centred log-probabilities, (...) for logits (..., N, K)."""
    logs = np.maximum(log_softmax(logits), math.log(FLOOR))
    return np.sqrt(np.mean((logs - logs.mean(axis=-1, keepdims=True)) ** 2, axis=(-2, -1)))


# Degrading -----------------------------------------------------------------------------------------------------------


def degrade(responses: ArrayLike, access: Access, *, classes: bool, seed: int) -> Numbers:
    """Return the answers of models in full precision as an access would have let them out, its form undone.

    responses: (M, N, K), logits or probabilities of a classifier, values else.
    access: the suspect's.
    classes: whether they are a classifier's.
    seed: of the noise.

    degrade(x, access_of(read_form(change(x)))) is undo_form(change(x)) for the changes that `read_form` knows.

    Raises InputError where the access is of another kind of answers.
    """
    models = np.asarray(responses, dtype=np.float64)
    if models.ndim != 3:
        raise InputError(f"responses must have shape (models, queries, outputs), got {models.shape}")
    if classes is (access.reads == "values"):
        raise InputError(f"an access that reads {access.reads} does not fit classes={classes}")
    random = np.random.default_rng(seed)
    return _DEGRADE[access.reads](models, access, random)


def _values(models: Numbers, access: Access, random: np.random.Generator) -> Numbers:
    noisy = models + access.noise * models.std(axis=1, keepdims=True) * _normal(models, access, random)
    return noisy if access.decimals is None else np.asarray(np.round(noisy, access.decimals))


def _logits(models: Numbers, access: Access, random: np.random.Generator) -> Numbers:
    if access.is_full:
        return models
    logs = np.log(np.maximum(as_probabilities(models), np.finfo(np.float32).tiny))
    logs = logs + access.noise * _spread(logs)[:, None, None] * _normal(models, access, random)
    return logs if access.decimals is None else np.asarray(np.round(logs, access.decimals))


def _labels(models: Numbers, access: Access, random: np.random.Generator) -> Numbers:
    order = np.argsort(-models, axis=2, kind="stable")
    best = order[:, :, 0]
    if access.noise:
        # two answers differ where one of them changed; it falls to the runner-up
        changed = random.random(best.shape) < access.noise / 2
        best = np.where(changed, order[:, :, 1], best)
    return one_hot(best, models.shape[2])


def _probabilities(models: Numbers, access: Access, random: np.random.Generator) -> Numbers:
    p = as_probabilities(models)
    if access.noise:
        p = np.maximum(p + access.noise * _normal(p, access, random), 0.0)
        p = p / np.maximum(p.sum(axis=2, keepdims=True), np.finfo(np.float32).tiny)
    if access.clipped is not None:
        p = np.asarray(np.clip(p, *access.clipped), dtype=np.float64)
    if access.top is not None:
        ranks = np.argsort(np.argsort(-p, axis=2, kind="stable"), axis=2)
        p = np.where(ranks < access.top, p, 0.0)
        if access.complete:
            p = p / p.sum(axis=2, keepdims=True)
    form = Form(
        kind="probabilities",
        outputs=models.shape[2],
        decimals=access.decimals,
        top=access.top,
        complete=access.complete,
    )
    return undo_form(p.reshape(-1, models.shape[2]), form).reshape(models.shape)


def _normal(models: Numbers, access: Access, random: np.random.Generator) -> Numbers:
    return random.standard_normal(models.shape) if access.noise else np.zeros_like(models)


_DEGRADE = {"values": _values, "logits": _logits, "labels": _labels, "probabilities": _probabilities}
