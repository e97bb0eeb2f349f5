"""Candidates for the final verifier: trained on the final queries, judged on the selection share, and chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from metav.errors import ZooError
from metav.optimization.members import fit_member
from metav.optimization.shares import Shares
from metav.statistics.roc_aruc import roc_auc
from metav.support.progress import progress_bar
from metav.support.randomness import derive_seed
from metav.verifiers.kinds import VERIFIER_KINDS, verifier_kind
from metav.verifiers.meta_verifier import QUERY_PARTS, Member, MetaVerifier

if TYPE_CHECKING:
    from metav.optimization.members import VerifierSettings

LABELS_ALONE = "mlp:all:label"
"""The candidate that reads nothing but labels, of all queries (see `metav.optimization.members.fit_member`)."""
LABELS_WEIGHT = 0.4
"""Its weight beside all others', each in standard deviations of a class. On the owners' models that metav was developed
with, 0.25 to 0.7 did alike; more lost copies whose weights were changed much."""
AUC_SLACK = 0.02
"""How far a candidate's AUC on the selection share may lie below the best one's; other candidates are left out."""
SEPARATION_SHARE = 0.85
"""How large a candidate's separation must be, as a share of the largest one; other candidates are left out.

The separation is the distance between the mean logits of derived and of independent models of the selection share, in
standard deviations of a class.
"""
SEPARATION_CAP = 5.0
"""Largest separation that counts, in standard deviations; a larger one is treated like this one.

With the few models of the selection share, 5 and 10 deviations cannot be told apart reliably.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One verifier on one part of the queries, with its quality on the selection share.

    member: the verifier and its queries.
    auc: area under the ROC curve, in [0, 1].
    separation: distance between the mean logits of the two classes, in standard deviations of a class.
    """

    member: Member
    auc: float
    separation: float


def fit_candidates(
    shares: Shares, adaptive: int, settings: VerifierSettings, seed: int, progress: bool | None
) -> list[Candidate]:
    """Return every kind of verifier on the optimised, on the natural and on all queries, trained and judged.

    shares: the models' responses; candidates are trained on "optimize" and judged on "select".
    adaptive: number of optimised queries, which come first.
    progress: None shows a bar on a terminal, False never, True always.

    Raises ZooError where no verifier can be made from the responses.
    """
    count = shares.select.shape[1]
    parts = {"adaptive": (0, adaptive), "natural": (adaptive, count), "all": (0, count)}
    kinds = tuple(VERIFIER_KINDS) if settings.options.verifier == "auto" else (settings.options.verifier,)
    names = [
        f"{kind}:{part}"
        for kind in kinds
        for part in QUERY_PARTS
        if parts[part][1] > parts[part][0] and not (part == "all" and adaptive in (0, count))
    ]
    if settings.reads_labels_too and "mlp" in kinds:
        names.append(LABELS_ALONE)
    candidates = []
    refused: Exception | None = None
    with progress_bar(total=len(names), description="verifiers", enabled=progress) as bar:
        for name in names:
            part = name.split(":")[1]
            try:
                member = fit_member(
                    name,
                    parts[part],
                    shares.optimize,
                    shares.optimize_roles,
                    shares.optimize_free,
                    settings,
                    derive_seed(seed, *name.split(":")),
                )
            except (ValueError, OverflowError) as error:
                # the core cannot make this kind from these queries, for example where all models give the same labels
                refused = error
            else:
                candidates.append(_judge(member, shares))
            bar.update(1)
    if not candidates:
        raise ZooError(f"no verifier can be made from these answers: {refused}; give more queries") from refused
    return candidates


def select_members(candidates: Sequence[Candidate]) -> MetaVerifier:
    """Return the candidates that are good enough as one meta-verifier.

    Candidates that learned by steps and those of a closed form have half of the weight each, where there are both: the
    former find what the zoo holds best, the latter, made from the owner's and the independent models' answers alone,
    are not misled by a derived family or a recipe that the zoo lacks. Within a half, weights are the squares of the
    separations. One that reads labels alone comes on top (LABELS_WEIGHT): it finds copies taught by labels, which have
    their confidence from elsewhere.

    Raises ZooError where no candidate tells the classes apart.
    """
    of_labels = [entry for entry in candidates if entry.member.name == LABELS_ALONE]
    others = [entry for entry in candidates if entry.member.name != LABELS_ALONE]
    halves = [_weighed(others, closed_form=closed_form) for closed_form in (False, True)]
    halves = [half for half in halves if half]
    members = [replace(member, weight=member.weight / len(halves)) for half in halves for member in half]
    labels = _weighed(of_labels, closed_form=False)
    if not (members or labels):
        raise ZooError(
            "no verifier tells derived from independent models on the selection share; "
            "the zoo is too small or too alike: give more positives and negatives, or more queries"
        )
    if members and labels:
        # the spread of a member's logits is as large as its separation is small
        gain = LABELS_WEIGHT * _largest_separation(of_labels) / _largest_separation(others)
        members = [replace(member, weight=member.weight / (1 + gain)) for member in members]
        labels = [replace(member, weight=member.weight * gain / (1 + gain)) for member in labels]
    return MetaVerifier((*members, *labels))


def _largest_separation(candidates: Sequence[Candidate]) -> float:
    """Return the largest separation that counts."""
    return max(_counting_separation(entry) for entry in candidates)


def _counting_separation(candidate: Candidate) -> float:
    return min(max(candidate.separation, 0.0), SEPARATION_CAP)


def _weighed(candidates: Sequence[Candidate], *, closed_form: bool) -> list[Member]:
    """Return the members of one half with weights that sum to 1; none where no candidate tells the classes apart.

    Good enough are those whose AUC and whose separation are close to the best of the half (AUC_SLACK,
    SEPARATION_SHARE). Where a candidate of a preferred kind is close to the best AUC, only preferred kinds count.
    """
    own = [entry for entry in candidates if verifier_kind(entry.member.verifier.kind).closed_form is closed_form]
    auc = max((entry.auc for entry in own), default=0.0) - AUC_SLACK
    close = [entry for entry in own if entry.auc >= auc]
    close = [entry for entry in close if verifier_kind(entry.member.verifier.kind).preferred] or close
    separations = [_counting_separation(entry) for entry in close]
    least = SEPARATION_SHARE * max(separations, default=0.0)
    gains = [separation**2 if separation >= least else 0.0 for separation in separations]
    total = sum(gains)
    return [replace(entry.member, weight=gain / total) for entry, gain in zip(close, gains, strict=True) if gain > 0]


def _judge(bare: Member, shares: Shares) -> Candidate:
    """Return a member with its quality on the selection share.

    Its center and spread put the mean logits of the two classes there at -1 and +1.
    """
    logits = bare.raw_logits(shares.select)
    high, low = logits[shares.select_derived], logits[~shares.select_derived]
    distance = float(high.mean() - low.mean())
    deviation = float(np.sqrt((high.var() + low.var()) / 2)) + 1e-9
    member = replace(bare, center=float(high.mean() + low.mean()) / 2, spread=max(distance / 2, 1e-6))
    return Candidate(member=member, auc=roc_auc(high, low), separation=distance / deviation)
