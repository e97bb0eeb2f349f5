"""How suspects are judged in one regime: which are asked, by the whole method or without one of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.experiments.runs.prepared_models import PreparedModels, Suspects
from metav.experiments.runs.regimes import COMPETENCE, NOVELTY, OTHER_FORM, THRESHOLD, Regime
from metav.experiments.suspects.degradations import through_channel
from metav.experiments.suspects.nonsense import nonsense_suspects
from metav.fingerprints.fingerprint import Fingerprint
from metav.support.randomness import derive_seed
from metav.verdicts.evaluation import Evaluation, SuspectResult, evaluate
from metav.verdicts.verdict import Decision

OTHER_FORM_FAMILY = "honest_in_another_form"
NEAREST_SHARE = 0.1
"""Share of the calibration models of each class between which the former threshold lay."""


def suspects_asked(prepared: PreparedModels, regime: Regime, seed: int, suspects: Suspects | None = None) -> Suspects:
    """Return the suspects of a regime, each as it can be asked there.

    suspects: instead of those of the preparation.
    """
    chosen = _CHOICES[regime.suspects](prepared, prepared.suspects if suspects is None else suspects, seed)
    task = prepared.scenario.task
    return tuple(
        (regime.choose_suspect(model, task, derive_seed(seed, regime.name, number)), is_positive, family)
        for number, (model, is_positive, family) in enumerate(chosen)
    )


def judge(fp: Fingerprint, suspects: Suspects, regime: Regime, *, progress: bool | None) -> Evaluation:
    """Return how the suspects are judged, without the parts of the method that the regime lacks."""
    if COMPETENCE in regime.lacks:
        # nobody can measure it where no true answers are known
        fp = replace(fp, truth=None)
    evaluation = evaluate(fp, suspects, progress=progress)
    if NOVELTY in regime.lacks:
        return replace(evaluation, results=tuple(map(_without_novelty, evaluation.results)))
    if THRESHOLD in regime.lacks:
        rule = fp.calibration
        threshold = threshold_between(rule.positives, rule.negatives, rule.threshold)
        return replace(evaluation, results=tuple(_decided_at(threshold, entry) for entry in evaluation.results))
    return evaluation


def threshold_between(positives: NDArray[np.float64], negatives: NDArray[np.float64], least: float) -> float:
    """Return the threshold as version 0.1.0 placed it: it moves up with derived models that are found easily.

    positives, negatives: sorted logits of the calibration models.
    least: the threshold that independent models alone set; only a higher one is taken.

    It lies in the middle between the tenths of both classes that are nearest to each other.
    """
    near_positives = positives[: math.ceil(NEAREST_SHARE * positives.size)]
    near_negatives = negatives[-math.ceil(NEAREST_SHARE * negatives.size) :]
    middle = (float(near_positives.mean()) + float(near_negatives.mean())) / 2
    return max(least, middle)


def _without_novelty(entry: SuspectResult) -> SuspectResult:
    if entry.reason != "unlike_any":
        return entry
    return replace(entry, decision=Decision.MATCH, reason=None)


def _decided_at(threshold: float, entry: SuspectResult) -> SuspectResult:
    """Return a result as another, higher threshold would have it."""
    if entry.logit is None or entry.logit >= threshold or entry.reason not in (None, "unlike_any"):
        return entry
    return replace(entry, decision=Decision.NO_MATCH, reason=None)


def _sample(prepared: PreparedModels, suspects: Suspects, seed: int) -> Suspects:
    most = prepared.plan.scale.sample
    return (*_spread([entry for entry in suspects if entry[1]], most), *_spread(_honest(suspects), most))


def _nonsense(prepared: PreparedModels, suspects: Suspects, seed: int) -> Suspects:
    most = prepared.plan.scale.sample
    return (*_spread([entry for entry in suspects if entry[1]], most), *_no_models(prepared, seed))


def _every_kind(prepared: PreparedModels, suspects: Suspects, seed: int) -> Suspects:
    task, most = prepared.scenario.task, prepared.plan.scale.sample
    form = OTHER_FORM[task.kind.name]
    changed = [
        (through_channel(model, task, output=form, seed=derive_seed(seed, number)), False, OTHER_FORM_FAMILY)
        for number, (model, _, _) in enumerate(_spread(_honest(suspects), most))
    ]
    return (*suspects, *_no_models(prepared, seed), *changed)


def _no_models(prepared: PreparedModels, seed: int) -> list[tuple[Any, bool, str]]:
    scenario, count = prepared.scenario, max(1, prepared.plan.scale.sample // 3)
    own = derive_seed(prepared.plan.owner_seed, "no models", seed)
    return nonsense_suspects(prepared.owner, scenario.task, scenario.suspect_architectures, count=count, seed=own)


def _honest(suspects: Suspects) -> list[tuple[Any, bool, str]]:
    return [entry for entry in suspects if not entry[1]]


def _spread(entries: Sequence[tuple[Any, bool, str]], most: int) -> list[tuple[Any, bool, str]]:
    """Return `most` of the entries at most, evenly spread, so that all families are there where that can be."""
    if len(entries) <= most:
        return list(entries)
    places = np.linspace(0, len(entries) - 1, most).round().astype(int)
    return [entries[int(place)] for place in places]


_CHOICES: Mapping[str, Callable[[PreparedModels, Suspects, int], Suspects]] = MappingProxyType(
    {
        "all": lambda prepared, suspects, seed: suspects,
        "sample": _sample,
        "nonsense": _nonsense,
        "every kind": _every_kind,
    }
)
