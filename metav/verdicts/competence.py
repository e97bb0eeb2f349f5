"""Competence: how well a suspect does the task itself, measured where the true answers are known.

Two things are told apart by it without any verifier: models of this task, and things that answer something (noise,
constants, untrained networks, classes in another order). All measures are skills: 1 is perfect, 0 is what answers have
that know nothing of the query, whatever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metav.errors import InputError
from metav.support.json_values import plain
from metav.tasks.kinds import TASK_KINDS
from metav.verifiers.forms import Numbers

MARGIN = 0.1
"""Skill that a model may lie below the calibration models in any case: with 50 queries one standard error of an
accuracy of 0.8 is 0.06, and thieves damage what they take."""
SPREADS = 3.0
"""The same in robust standard deviations of the calibration models' skills, where these differ more."""
LEFT_OUT = 0.05
"""Share of calibration models that may be worse than the line: one that failed would let everything pass."""
CHANCE = 0.01
"""Largest chance of evidence as strong from answers that know nothing of the queries."""
SHUFFLES = 999
"""How often the true answers are shuffled to see what chance gives; the smallest chance that shows is 0.001."""
PART = 1_000_000
"""Numbers that are shuffled at once, to keep memory small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Competence:
    """How well a suspect does the task, beside the models that calibrated.

    metric: what `value`, `lowest` and `highest` are: "accuracy" or "skill".
    value: the suspect's.
    lowest, highest: of the models that calibrated, on the same queries.
    models: how many those are.
    skill: the suspect's, 0 for knowing nothing, 1 for perfect.
    required: skill from which a model counts as competent.
    chance: share of shuffled orders in which the suspect's answers go with the true ones as well.
    is_competent: whether it does this task.
    """

    metric: str
    value: float
    lowest: float
    highest: float
    models: int
    skill: float
    required: float
    chance: float
    is_competent: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values: dict[str, Any] = plain({field.name: getattr(self, field.name) for field in fields(self)})
        return values

    def __str__(self) -> str:
        known = f"{self.models} calibration models: {self.lowest:.2f} to {self.highest:.2f}"
        missed = "" if self.is_competent else "; it does not do this task"
        return f"{self.metric} {self.value:.2f} on the natural queries ({known}){missed}"


# Measures ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measure:
    """How well models of one kind of task do it.

    metric: name of what people are told.
    value: f(responses (..., N, K), truth (N, ...)) -> what people are told, (...).
    skill: the same as a skill.
    evidence: how closely the answers go with the true ones, whatever else is wrong with them; what chance is told by.
    """

    metric: str
    value: Callable[[Numbers, Any], Numbers]
    skill: Callable[[Numbers, Any], Numbers]
    evidence: Callable[[Numbers, Any], Numbers]


def class_shares(responses: Numbers) -> Numbers:
    """Return (..., N, K): 1 for the best class of a row, shared among classes that tie."""
    best = (responses == responses.max(axis=-1, keepdims=True)).astype(np.float64)
    shares: Numbers = best / best.sum(axis=-1, keepdims=True)
    return shares


def accuracies(responses: Numbers, truth: Any) -> Numbers:
    """Return the share of right classes (...), a tie of n classes counting 1/n where the right one is among them."""
    shares = class_shares(responses)
    found: Numbers = shares[..., np.arange(len(truth)), truth].mean(axis=-1)
    return found


def kappas(responses: Numbers, truth: Any) -> Numbers:
    """Return Cohen's kappa (...): accuracy beyond what the same answers would have in any order (Cohen, 1960)."""
    shares = class_shares(responses)
    known = np.bincount(truth, minlength=responses.shape[-1]) / len(truth)
    by_chance = shares.mean(axis=-2) @ known
    right = shares[..., np.arange(len(truth)), truth].mean(axis=-1)
    room = 1 - by_chance
    # all queries of one class: whoever says so knows nothing
    skill: Numbers = np.where(room > 1e-9, (right - by_chance) / np.where(room > 1e-9, room, 1.0), 0.0)
    return skill


def place_accuracies(responses: Numbers, truth: Any) -> Numbers:
    """Return the share of right classes over all places (...); truth (N, places), responses (..., N, places * K)."""
    return accuracies(*_by_place(responses, truth))


def place_kappas(responses: Numbers, truth: Any) -> Numbers:
    """Return Cohen's kappa over all places (...), as those of one classifier."""
    return kappas(*_by_place(responses, truth))


def label_kappas(responses: Numbers, truth: Any) -> Numbers:
    """Return the mean over labels of Cohen's kappa (...); labels that all queries have, or none, tell nothing."""
    rows = responses.reshape(*responses.shape[:-1], truth.shape[1], -1)
    telling = [label for label in range(truth.shape[1]) if len(np.unique(truth[:, label])) > 1]
    if not telling:
        return place_kappas(responses, truth)
    found: Numbers = np.mean([kappas(rows[..., label, :], truth[:, label]) for label in telling], axis=0)
    return found


def _by_place(responses: Numbers, truth: Any) -> tuple[Numbers, Any]:
    classes = responses.shape[-1] // truth.shape[1]
    return responses.reshape(*responses.shape[:-2], -1, classes), truth.reshape(-1)


def robust_skills(responses: Numbers, truth: Any) -> Numbers:
    """Return 1 - median error / median error of the best constant (...), the mean over outputs, each at least -1."""
    target = np.asarray(truth, dtype=np.float64).reshape(len(truth), -1)
    around = np.abs(target - np.median(target, axis=0))
    error = np.abs(responses - target)
    constant = np.median(around, axis=0)
    # where half of the true answers are equal, medians tell nothing
    flat = constant <= 0
    constant = np.where(flat, around.mean(axis=0), constant)
    own = np.where(flat, error.mean(axis=-2), np.median(error, axis=-2))
    skill: Numbers = np.maximum(1 - own / np.where(constant > 0, constant, np.inf), -1.0).mean(axis=-1)
    return skill


def rank_correlations(responses: Numbers, truth: Any) -> Numbers:
    """Return Spearman's rank correlation of answers and true values (...), the mean over outputs (Spearman, 1904).

    A couple of dozen queries tell a weak model from chance by it, which their median error does not.
    """
    from scipy.stats import rankdata

    known = _centred_ranks(rankdata, np.asarray(truth, dtype=np.float64).reshape(len(truth), -1))
    own = _centred_ranks(rankdata, responses)
    room = np.sqrt((own**2).sum(axis=-2) * (known**2).sum(axis=-2))
    # constants have no order
    found: Numbers = np.where(room > 0, (own * known).sum(axis=-2) / np.where(room > 0, room, 1.0), 0.0).mean(axis=-1)
    return found


def _centred_ranks(rankdata: Callable[..., Numbers], values: Numbers) -> Numbers:
    ranks: Numbers = rankdata(values, axis=-2) - (values.shape[-2] + 1) / 2
    return ranks


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "classification": Measure("accuracy", accuracies, kappas, kappas),
        "multi-label": Measure("accuracy of labels", place_accuracies, label_kappas, label_kappas),
        "segmentation": Measure("accuracy of places", place_accuracies, place_kappas, place_kappas),
        "regression": Measure("skill", robust_skills, robust_skills, rank_correlations),
    }
)
"""Measures by name of the task; a task without one (generation) has no true answers."""


def measure_competence(responses: ArrayLike, truth: ArrayLike, kind: str) -> tuple[Numbers, Numbers] | None:
    """Return (values, skills) of models, each (M,), or of one model, each (); None where there are no true answers.

    responses: to the natural queries, their form undone, (M, N, K) or (N, K).
    truth: the true classes (N,), those of each place (N, places), or values (N, K).
    kind: name of the task.

    Raises InputError where they do not fit each other.
    """
    measure = MEASURES.get(kind)
    if measure is None:
        return None
    answers, known = np.asarray(responses, dtype=np.float64), known_answers(truth, kind)
    if answers.ndim not in (2, 3) or answers.shape[-2] != len(known) or not len(known):
        raise InputError(
            f"answers must have shape (..., {len(known)}, outputs), one row per true one, got {answers.shape}"
        )
    if kind == "classification" and (known.min() < 0 or known.max() >= answers.shape[-1]):
        raise InputError(f"true classes must lie in 0..{answers.shape[-1] - 1}, got {known.min()} to {known.max()}")
    return measure.value(answers, known), measure.skill(answers, known)


def known_answers(truth: ArrayLike, kind: str) -> Any:
    """Return true answers as a measure takes them: classes (N,), or values in double precision."""
    known = np.asarray(truth)
    if TASK_KINDS[kind].answers_places:
        return known.reshape(len(known), -1).astype(np.intp)
    return known.reshape(-1).astype(np.intp) if kind == "classification" else known.astype(np.float64)


# The rule ------------------------------------------------------------------------------------------------------------


def judge_competence(
    answers: ArrayLike, truth: ArrayLike, kind: str, *, calibration: ArrayLike, seed: int = 0
) -> Competence | None:
    """Return how well a suspect does the task; None where there are no true answers.

    answers: of the suspect to the natural queries, (N, K), their form undone.
    truth: as in `measure_competence`.
    kind: name of the task.
    calibration: answers (M, N, K) of the models that calibrated, under the same access; trained models only, no noise,
        constants or untrained copies.
    seed: of the shuffles.

    Not competent is what lies far below them (`required_skill`), and what does no better than chance and worse than
    they, LEFT_OUT aside.
    """
    own = measure_competence(answers, truth, kind)
    others = measure_competence(calibration, truth, kind)
    if own is None or others is None:
        return None
    value, skill = float(own[0]), float(own[1])
    values, skills = others
    line = required_skill(skills)
    evidence, known = MEASURES[kind].evidence, known_answers(truth, kind)
    own_rows, other_rows = np.asarray(answers, np.float64), np.asarray(calibration, np.float64)
    own_evidence = float(evidence(own_rows, known))
    by_chance = _by_chance(own_rows, known, evidence, seed)
    chance = (1 + int((by_chance >= own_evidence - 1e-12).sum())) / (1 + len(by_chance))
    # where trained models go with the truth no better than chance, these queries cannot show that one does
    is_behind = own_evidence < _usual_lowest(evidence(other_rows, known))
    return Competence(
        metric=MEASURES[kind].metric,
        value=value,
        lowest=float(values.min()),
        highest=float(values.max()),
        models=len(values),
        skill=skill,
        required=line,
        chance=chance,
        is_competent=skill >= line and (chance <= CHANCE or not is_behind),
    )


def required_skill(skills: Numbers) -> float:
    """Return the skill from which a model counts as competent, beside calibration models of skills (M,).

    It is below the lowest of them (LEFT_OUT aside) by MARGIN or SPREADS robust standard deviations, whichever is more,
    and never above half of it, where a model is nearer to knowing nothing than to the lowest: honest weak families pass
    beside strong models, damaged thieves too.
    """
    lowest = _usual_lowest(skills)
    spread = 1.4826 * float(np.median(np.abs(skills - np.median(skills))))
    return min(lowest - max(MARGIN, SPREADS * spread), lowest / 2)


def _usual_lowest(skills: Numbers) -> float:
    return float(np.quantile(skills, LEFT_OUT, method="lower"))


def _by_chance(answers: Numbers, known: Any, evidence: Callable[[Numbers, Any], Numbers], seed: int) -> Numbers:
    """Return the evidence of the same answers in random orders, (SHUFFLES,)."""
    random = np.random.default_rng(seed)
    orders = random.permuted(np.tile(np.arange(len(answers)), (SHUFFLES, 1)), axis=1)
    parts = np.array_split(orders, max(1, SHUFFLES * answers.size // PART))
    return np.concatenate([evidence(answers[part], known) for part in parts])
