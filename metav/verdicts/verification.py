"""From a suspect's answers to a verdict: score, p-value, decision, and the error rates that stand behind it."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError, SuspectError
from metav.fingerprints.fingerprint import Fingerprint, load
from metav.suspects import Accepts, Answers, Suspect, open_suspect
from metav.verdicts.verdict import Decision, Verdict
from metav.verifiers.views import view_of

SIMULATIONS = 64
"""How often noise as it was measured is added to a suspect's answers, to see whether the decision changes."""
FLIPS_ALLOWED = 0.05
"""Share of the simulations in which the decision may change; above it, the verdict is INCONCLUSIVE."""
ROUNDING = 1e-5
"""Noise up to which answers count as equal, in standard deviations of the answers.

Adding the same numbers in another order makes this much, which says nothing about the suspect.
"""


def verify(
    fp: Fingerprint | str | os.PathLike[str],
    suspect: Any,
    *,
    batch_size: int = 256,
    accepts: Accepts | None = None,
) -> Verdict:
    """Ask a suspect the queries of a fingerprint and judge whether it was derived from the owner's model.

    fp: a fingerprint or its file.
    suspect: a torch.nn.Module, a callable from a float32 batch (n, *input_shape) to answers, an array of recorded
        answers (N, outputs) or its path (.npy, .npz, .csv, .json).
    batch_size: most queries that are sent at once.
    accepts: what a callable is given, "numpy" or "torch"; None tries (see `CallableSuspect`).

    A suspect that fails, or whose answers do not fit, vary too much or not at all, gives INCONCLUSIVE.

    Raises ArtefactError on a broken file, InputError on anything that cannot be a suspect.
    """
    fingerprint = fp if isinstance(fp, Fingerprint) else load(fp)
    opened = open_suspect(suspect, accepts=accepts)
    specification = fingerprint.task
    try:
        answers = opened.answer(
            fingerprint.queries,
            outputs=specification.outputs,
            batch_size=batch_size,
            labels=view_of(specification.view).reads_labels,
        )
    except SuspectError as error:
        return _verdict(fingerprint, opened, reason=error.reason, message=str(error))
    return _judge(fingerprint, opened, answers)


def _judge(fp: Fingerprint, suspect: Suspect, answers: Answers) -> Verdict:
    if (
        not view_of(fp.task.view).reads_labels
        and len(fp.queries) > 1
        and (answers.responses == answers.responses[0]).all()
    ):
        message = "the suspect gives the same answer to every query; check that it reads its input"
        return _verdict(fp, suspect, answers=answers, reason="constant", message=message)
    logit = _logit(fp, answers.responses)
    if logit is None:
        message = "the answers are so large that they have no finite score; check their unit"
        return _verdict(fp, suspect, answers=answers, reason="not_finite", message=message)
    flips = _flips(fp, answers, logit >= fp.calibration.threshold)
    if flips > FLIPS_ALLOWED:
        message = (
            f"the same query gets different answers (by up to {answers.noise:.2g} standard deviations), and noise of "
            f"this size changes the decision in {flips:.0%} of {SIMULATIONS} simulations; average several answers"
        )
        return _verdict(fp, suspect, answers=answers, logit=logit, reason="noisy", message=message)
    return _verdict(fp, suspect, answers=answers, logit=logit)


def _verdict(
    fp: Fingerprint,
    suspect: Suspect,
    *,
    answers: Answers | None = None,
    logit: float | None = None,
    reason: str | None = None,
    message: str | None = None,
) -> Verdict:
    rule = fp.calibration
    decision = Decision.INCONCLUSIVE
    if reason is None and logit is not None:
        decision = Decision.MATCH if logit >= rule.threshold else Decision.NO_MATCH
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
        queries=len(fp.queries),
        noise=None if answers is None else answers.noise,
        commitment=fp.commitment,
        suspect=suspect.description,
    )


def _flips(fp: Fingerprint, answers: Answers, matched: bool) -> float:
    """Return the share of simulations, with noise as it was measured added to the answers, that change the decision."""
    differences = answers.differences
    if differences is None or (answers.noise or 0.0) <= ROUNDING:
        return 0.0
    random = np.random.default_rng(0)
    count = len(answers.responses)
    flipped = 0
    for _ in range(SIMULATIONS):
        # the difference of two answers has twice the variance of one; whole rows keep how outputs vary together
        rows = differences[random.integers(len(differences), size=count)] / math.sqrt(2)
        noisy = answers.responses + rows * random.choice([-1.0, 1.0], size=(count, 1))
        logit = _logit(fp, _like(answers.responses, noisy))
        flipped += logit is None or (logit >= fp.calibration.threshold) != matched
    return flipped / SIMULATIONS


def _logit(fp: Fingerprint, responses: NDArray[Any]) -> float | None:
    """Return the logit of answers (N, outputs), None where it would not be finite."""
    try:
        return float(fp.logits(responses[None])[0])
    except InputError:  # finite and of the right shape, so too large
        return None


def _like(responses: NDArray[np.float32], noisy: NDArray[Any]) -> NDArray[Any]:
    """Return noisy answers, made probabilities again where the answers are probabilities.

    The view would otherwise read them as logits.
    """
    sums = responses.sum(axis=1, keepdims=True)
    if (responses < 0).any() or (np.abs(sums - 1) > 1e-2).any():
        return noisy
    clipped = np.maximum(noisy, 0.0)
    totals = clipped.sum(axis=1, keepdims=True)
    normalised: NDArray[Any] = clipped / np.where(totals > 0, totals, 1.0)
    return np.where(totals > 0, normalised, responses)
