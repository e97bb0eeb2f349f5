"""Whether a suspect held still while it was asked, and answered the fingerprint's queries as it answers others.

Both are told from the answers alone: from queries that came twice, and from decoys on both sides of a query.
"""

from __future__ import annotations

import numpy as np

from metav.support.arrays import FloatArray
from metav.suspects.asking_record import CarefulAnswers
from metav.verifiers.forms import Numbers

STEADY = 1e-3
"""Differences up to this, in standard deviations of the answers, are arithmetic in batches of other sizes."""
OTHER = 0.05
"""Difference from which on an answer counts as another one, beside others that come again unchanged."""
SAME = 0.2
"""Share of answers that come again unchanged from which on others are no noise, which would be in all of them."""
CHANCE = 0.01
"""Largest chance of what is seen if answers hold still, or all inputs are treated alike."""
SHUFFLES = 999


def unsteadiness(answers: CarefulAnswers) -> tuple[str, str] | None:
    """Return the reason code and the message why answers of a shuffled run cannot be judged; None where they can."""
    if not answers.record.shuffled:
        return None
    deviation = float(np.sqrt(answers.responses.var(axis=0, dtype=np.float64).mean()))
    if deviation == 0:
        return None
    return _changed(answers, deviation) or _treated_apart(answers)


def _changed(answers: CarefulAnswers, deviation: float) -> tuple[str, str] | None:
    if answers.differences is None or not answers.differences.any():
        return None
    sizes = np.sqrt(np.mean(np.asarray(answers.differences, np.float64) ** 2, axis=1)) / deviation
    remedy = "find out whether several models answer there, and ask again"
    others = sizes > OTHER
    if others.any() and not _are_labels(answers.responses) and (sizes <= STEADY).mean() >= SAME:
        message = (
            f"{int(others.sum())} of {len(sizes)} queries that came twice got another answer, the others the very "
            f"same: the suspect changed while it was asked, or mixes up its answers; {remedy}"
        )
        return "changed", message
    if others.any() and change_point_chance(sizes, answers.pairs) <= CHANCE:
        message = (
            f"queries that came twice got other answers where a point in time lies between: the suspect changed while "
            f"it was asked; {remedy}"
        )
        return "changed", message
    return None


def change_point_chance(sizes: Numbers, pairs: np.ndarray) -> float:
    """Return the chance of differences so much larger across one point in time, if they have nothing to do with time.

    sizes: of the differences, (r,). pairs: places (r, 2) of the two answers in the order of asking.

    A permutation test of the largest gap between the mean rank of pairs across a cut and of all others.
    """
    cuts = np.unique(pairs)[1:]
    across = (pairs[:, 0] < cuts[:, None]) & (cuts[:, None] <= pairs[:, 1])
    across = across[(across.sum(axis=1) >= 2) & ((~across).sum(axis=1) >= 2)]
    if len(sizes) < 6 or not len(across) or np.ptp(sizes) == 0:
        return 1.0
    _, places, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts + 1) / 2)[places]
    orders = np.random.default_rng(0).permuted(np.tile(ranks, (SHUFFLES, 1)), axis=1)
    weights = across / across.sum(axis=1, keepdims=True) - ~across / (~across).sum(axis=1, keepdims=True)
    scale = 1 / np.sqrt(1 / across.sum(axis=1) + 1 / (~across).sum(axis=1))
    seen, by_chance = (float((weights @ ranks * scale).max()), (orders @ weights.T * scale).max(axis=1))
    return float((1 + np.count_nonzero(by_chance >= seen - 1e-9)) / (SHUFFLES + 1))


def _treated_apart(answers: CarefulAnswers) -> tuple[str, str] | None:
    odd, total = odd_ones(answers), len(answers.origins)
    # among three inputs treated alike one is the odd one out in a third of the cases, the middle one in fewer
    if not total or tail_chance(odd, total, 1 / 3) > CHANCE:
        return None
    message = (
        f"in {odd} of {total} cases the answer to a query of the fingerprint is unlike those to slightly changed "
        "inputs on both sides of it, which are like each other: the suspect treats the fingerprint's queries "
        "apart; whoever answers knows them, make a new fingerprint"
    )
    return "treated_apart", message


def odd_ones(answers: CarefulAnswers) -> int:
    """Return how many origins of decoys have answers farther from those of both neighbours than these are apart."""
    middle = np.asarray(answers.responses[answers.origins], np.float64)
    one, other = (np.asarray(answers.decoys[:, side], np.float64) for side in (0, 1))
    apart = np.linalg.norm(one - other, axis=1)
    nearest = np.minimum(np.linalg.norm(middle - one, axis=1), np.linalg.norm(middle - other, axis=1))
    return int(np.count_nonzero(nearest > apart * (1 + 1e-6)))


def tail_chance(count: int, total: int, rate: float) -> float:
    """Return the chance of at least `count` of `total` at a rate (binomial)."""
    # SciPy's own, from scipy.stats, takes a second to import
    from scipy.special import bdtrc

    return 1.0 if count == 0 else float(bdtrc(count - 1, total, rate))


def _are_labels(responses: FloatArray) -> bool:
    values = np.unique(responses)
    return bool(np.isin(values, (0, 1)).all())
