"""From a suspect's answers to a verdict: score, p-value, decision, and the error rates that stand behind it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.errors import SuspectError
from metav.fingerprints.fingerprint import Fingerprint, load
from metav.statistics.calibration import Calibration
from metav.statistics.kin import kin_limit, kin_place
from metav.support.arrays import FloatArray
from metav.support.files import PathLike
from metav.support.text import harmless
from metav.support.torch_state import in_standard_torch_state
from metav.suspects import Accepts, Answers, Suspect, open_suspect
from metav.suspects.answer_reading import reader_for
from metav.suspects.asking import StoppedAskingError, ask_with_care, is_service
from metav.suspects.asking_options import AskingOptions
from metav.suspects.asking_record import AskingRecord, CarefulAnswers
from metav.verdicts.access import Access
from metav.verdicts.access_rules import AccessRule, rule_for
from metav.verdicts.competence import Competence, judge_competence
from metav.verdicts.novelty import Novelty
from metav.verdicts.reading import Reading, read_answers, readable
from metav.verdicts.steadiness import unsteadiness
from metav.verdicts.verdict import LEAST_POWER, Decision, Verdict
from metav.verifiers.places import Places

SIMULATIONS = 64
"""How often noise as it was measured is added to a suspect's answers, to see whether the decision changes."""
FLIPS_ALLOWED = 0.05
"""Share of the simulations in which the decision may change; above it, the verdict is INCONCLUSIVE."""
FEWEST_NATURAL = 8
"""Natural queries with true answers below which competence is not measured."""
ROUNDING = 1e-5
"""Noise up to which answers count as equal, in standard deviations of the answers.

Adding the same numbers in another order makes this much, which says nothing about the suspect.
"""


@in_standard_torch_state
def verify(
    fp: Fingerprint | PathLike,
    suspect: Any,
    *,
    accepts: Accepts | None = None,
    asking: AskingOptions | None = None,
    **options: Any,
) -> Verdict:
    """Ask a suspect the queries of a fingerprint and judge whether it was derived from the owner's model.

    fp: a fingerprint or its file.
    suspect: a torch.nn.Module, a callable from a float32 batch (n, *input_shape) to answers, an array of recorded
        answers (N, outputs) or its path (.npy, .npz, .csv, .tsv, .json, .jsonl); the path of an .onnx file; the address
        of a model behind the Open Inference Protocol or MLflow; the path of a service's template (.yaml, .toml).
    accepts: what a callable is given, "numpy" or "torch"; None tries (see `CallableSuspect`).
    asking: how carefully it is asked.
    options: fields of `AskingOptions`, to replace some of `asking`: batch_size, log, budget, rate, decoys, ...; and how
        the suspect is asked (see `open_suspect`). Of models with several inputs and outputs: input, the name of the one
        that takes the queries; constants, what the others are given, by name; output, which part of the answer counts,
        where several fit: a name ("logits"), a number, or a function from the answer to an array. Of files and services
        layout, provider, timeout, headers, trust_code.

    A suspect that fails, or whose answers do not fit, vary too much or not at all, gives INCONCLUSIVE.

    Raises ArtefactError on a broken file, InputError on anything that cannot be a suspect and for options that cannot
    be used, QueryLogError for a log that was altered or is of another run.
    """
    fingerprint = fp if isinstance(fp, Fingerprint) else load(fp)
    of_asking, of_suspect = split_options(suspect, options)
    chosen = replace(AskingOptions() if asking is None else asking, **of_asking)
    opened = open_suspect(suspect, accepts=accepts, **of_suspect)
    if fingerprint.calibration_models is None:
        message = (
            "the fingerprint was made by a version of metav whose verdicts accuse honest models; make it again from "
            "the owner's model"
        )
        return _Case(fingerprint, opened).inconclusive("old_format", message)
    try:
        answers = _answers(fingerprint, opened, chosen)
    except SuspectError as error:
        record = error.record if isinstance(error, StoppedAskingError) else None
        return _Case(fingerprint, opened, record=record).inconclusive(error.reason, str(error))
    return _judge(fingerprint, opened, answers)


def split_options(suspect: Any, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of asking among some, and those of opening a suspect."""
    names = {field.name for field in fields(AskingOptions)}
    if isinstance(suspect, str | os.PathLike):
        names -= {"timeout"}  # files and services keep their own time
    of_asking = {name: value for name, value in options.items() if name in names}
    return of_asking, {name: value for name, value in options.items() if name not in names}


def unusable(fp: Fingerprint, name: str, message: str) -> Verdict:
    """Return the verdict on a suspect that cannot even be asked: INCONCLUSIVE, with the reason "unusable"."""
    return _Case(fp, _Named(name)).inconclusive("unusable", message)


@dataclass(frozen=True, slots=True)
class _Named:
    """Stands for a suspect of which nothing but the name is known."""

    description: str


def _answers(fp: Fingerprint, suspect: Suspect, options: AskingOptions) -> Answers:
    if options.is_plain and not is_service(suspect):
        reader = reader_for(fp.task, suspect.interface.output)
        return suspect.answer(fp.queries, outputs=fp.task.outputs, batch_size=options.batch_size, reader=reader)
    return ask_with_care(suspect, fp, options)


def _judge(fp: Fingerprint, suspect: Suspect, answers: Answers) -> Verdict:
    """Return the verdict on answers: their form, competence, score, likeness to known models, and only then a match."""
    if len(fp.queries) > 1 and (answers.responses == answers.responses[0]).all():
        message = "the suspect gives the same answer to every query; check that it reads its input"
        return _Case(fp, suspect, answers=answers).inconclusive("constant", message)
    unsteady = unsteadiness(answers) if isinstance(answers, CarefulAnswers) else None
    if unsteady is not None:
        return _Case(fp, suspect, answers=answers).inconclusive(*unsteady)
    reading = read_answers(fp, answers)
    if not reading.tells_noise:
        answers = replace(answers, differences=None)
    rows, rule = readable(reading.rows, reading.access, fp.task.places), rule_for(fp, reading.access)
    case = _Case(fp, suspect, answers=answers, reading=reading, access_rule=rule)
    if rule is None:
        return case.inconclusive("access", _too_little(reading.access, 0.0))
    case = replace(case, competence=_competence(fp, rows, rule.trained))
    if case.competence is not None and not case.competence.is_competent:
        return case.inconclusive("not_competent", f"the suspect does not do this task: {case.competence}")
    logit = _logit(fp, rule, rows)
    if logit is None:
        message = "the answers are so large that they have no finite score; check their unit"
        return case.inconclusive("not_finite", message)
    return _decided(replace(case, logit=logit), rule, rows)


def _decided(case: _Case, rule: AccessRule, rows: FloatArray) -> Verdict:
    """Return the verdict of a case that has a score."""
    answers, reading, logit = case.answers, case.reading, case.logit
    if answers is None or reading is None or logit is None:
        raise ValueError("a case without a score cannot be decided")
    matched = logit >= case.rule.threshold
    flips = _flips(case.fp, reading, answers, rule, matched)
    if flips > FLIPS_ALLOWED:
        message = (
            f"the same query gets different answers (by up to {answers.noise:.2g} standard deviations), and noise "
            f"of this size changes the decision in {flips:.0%} of {SIMULATIONS} simulations; average several answers"
        )
        return case.inconclusive("noisy", message)
    novelty = rule.known.novelty(rows)
    case = replace(case, novelty=novelty)
    if matched and novelty.is_novel:
        message = (
            f"the suspect's answers are like those of no calibration model (distance {novelty.distance:.2f}, limit "
            f"{novelty.limit:.2f}), so that its score says nothing; ask for answers in another form"
        )
        return case.inconclusive("unlike_any", message)
    if matched and rule.agreement is not None and not rule.agreement.bears_out(rows):
        message = (
            f"a few labels are those of copies, but only {rule.agreement.share(rows):.0%} of all are the owner's, as "
            f"of independent models (limit {rule.agreement.limit:.0%}); ask for scores"
        )
        return case.inconclusive("access", message)
    if matched and _may_be_kin(case.fp, rule, logit):
        message = (
            "its score is above those of the independent models, but an honest one that was trained just as the "
            "owner's may come as far, and the fingerprint was not told how that was; make it with recipe=, a function "
            "from a seed to such a model"
        )
        return case.inconclusive("recipe_not_told", message)
    power = case.rule.true_positives.value
    # in full access it is the fingerprint that finds few: `fp.check` warns of it, and the verdict tells its power
    if not matched and power < LEAST_POWER and not reading.access.is_full:
        return case.inconclusive("access", _too_little(reading.access, power))
    return case.verdict(Decision.MATCH if matched else Decision.NO_MATCH)


def _may_be_kin(fp: Fingerprint, rule: AccessRule, logit: float) -> bool:
    """Return whether a matching suspect may as well be an independent model, trained as the owner's was.

    Where no recipe was told no surrogate shows how far such models come, so that only what lies beyond them matches.
    """
    standing = fp.check.get("standing")
    if not isinstance(standing, Mapping) or standing.get("recipe") != "drawn" or rule.owner is None:
        return False
    outlying = fp.check.get("outlyingness")  # unknown to fingerprints made before it was measured
    place = kin_place(
        outlying if isinstance(outlying, float) and math.isfinite(outlying) else None,
        apart=standing.get("apart") is True,
    )
    return logit < kin_limit(rule.calibration.threshold, rule.owner, place)


def _too_little(access: Access, power: float) -> str:
    return (
        f"answers in this form ({access}) no longer tell derived from independent models: {power:.0%} of the derived "
        "calibration models would be found; ask for all scores, unrounded"
    )


def _competence(fp: Fingerprint, rows: FloatArray, trained: FloatArray) -> Competence | None:
    """Return how well a suspect does the task on the natural queries; None where these have no true answers."""
    if fp.truth is None or len(fp.truth) < FEWEST_NATURAL:
        return None
    natural = slice(fp.adaptive, len(fp.queries))
    name = fp.task.kind.name
    return judge_competence(rows[natural], fp.truth, name, calibration=trained[:, natural], seed=fp.seed)


@dataclass(frozen=True, slots=True, kw_only=False, eq=False)
class _Case:
    """What is known of a suspect so far."""

    fp: Fingerprint
    suspect: Suspect | _Named
    answers: Answers | None = None
    reading: Reading | None = None
    competence: Competence | None = None
    novelty: Novelty | None = None
    logit: float | None = None
    access_rule: AccessRule | None = None
    record: AskingRecord | None = None

    @property
    def rule(self) -> Calibration:
        """The decision rule for the suspect's access, that of full access where none is known."""
        return self.fp.calibration if self.access_rule is None else self.access_rule.calibration

    def inconclusive(self, reason: str, message: str) -> Verdict:
        """Return an INCONCLUSIVE verdict."""
        return self.verdict(Decision.INCONCLUSIVE, reason=reason, message=message)

    def verdict(self, decision: Decision, *, reason: str | None = None, message: str | None = None) -> Verdict:
        """Return the verdict with all that is known."""
        rule, logit, reading = self.rule, self.logit, self.reading
        return Verdict(
            decision=decision,
            score=None if logit is None else float(rule.score(logit)),
            p_value=None if logit is None else rule.p_value(logit),
            logit=logit,
            threshold=rule.threshold,
            target_fpr=rule.target_fpr,
            fpr_interval=rule.false_positives,
            tpr_interval=rule.true_positives,
            reason=reason,
            message=message,
            form=None if reading is None else "; ".join([str(reading.form), *reading.undone]),
            access=None if reading is None else str(reading.access),
            competence=self.competence,
            novelty=self.novelty,
            queries=len(self.fp.queries),
            noise=None if self.answers is None else self.answers.noise,
            commitment=self.fp.commitment,
            suspect=harmless(self.suspect.description),
            class_names=self.fp.task.class_names,
            asking=self.answers.record if isinstance(self.answers, CarefulAnswers) else self.record,
            recipe=_recipe_of(self.fp),
        )


def _recipe_of(fp: Fingerprint) -> str | None:
    """Return "told" or "drawn" as the fingerprint's check says; None where it says nothing of that kind."""
    standing = fp.check.get("standing")
    recipe = standing.get("recipe") if isinstance(standing, Mapping) else None
    return recipe if recipe in ("told", "drawn") else None


def _flips(fp: Fingerprint, reading: Reading, answers: Answers, rule: AccessRule, matched: bool) -> float:
    """Return the share of simulations, with noise as it was measured added to the answers, that change the decision."""
    differences = answers.differences
    if differences is None or (answers.noise or 0.0) <= ROUNDING:
        return 0.0
    scale = reading.form.scale if reading.form.is_distribution else 1.0
    random = np.random.default_rng(0)
    flipped = 0
    for _ in range(SIMULATIONS):
        # the difference of two answers has twice the variance of one; whole rows keep how outputs vary together
        noise = differences[random.integers(len(differences), size=len(reading.rows))] / (math.sqrt(2) * scale)
        noisy = reading.rows + noise * random.choice([-1.0, 1.0], size=(len(noise), 1))
        logit = _logit(fp, rule, readable(_like(reading.rows, noisy, fp.task.places), reading.access, fp.task.places))
        flipped += logit is None or (logit >= rule.calibration.threshold) != matched
    return flipped / SIMULATIONS


def _logit(fp: Fingerprint, rule: AccessRule, rows: FloatArray) -> float | None:
    """Return the logit of answers (N, outputs), None where it would not be finite."""
    if not np.isfinite(rows).all():
        return None
    try:
        return float(rule.meta_verifier.logits(rows[None])[0])
    except OverflowError:  # the answers are finite, their logits are not
        return None


def _like(responses: NDArray[Any], noisy: NDArray[Any], places: Places | None) -> NDArray[Any]:
    """Return noisy answers, made probabilities again where the answers, or their places, are probabilities.

    The view would otherwise read them as logits.
    """
    if places is not None:
        return places.joined(_like(places.rows(responses), places.rows(noisy), None))
    sums = responses.sum(axis=1, keepdims=True)
    if (responses < 0).any() or (np.abs(sums - 1) > 1e-2).any():
        return noisy
    clipped = np.maximum(noisy, 0.0)
    totals = clipped.sum(axis=1, keepdims=True)
    normalised: NDArray[Any] = clipped / np.where(totals > 0, totals, 1.0)
    return np.where(totals > 0, normalised, responses)
