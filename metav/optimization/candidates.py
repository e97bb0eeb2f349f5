"""The final verifiers on the final queries: candidates, the choice among them, and their cross-fitted training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from metav.errors import ZooError
from metav.optimization.members import fit_member
from metav.optimization.settings import OptimizationSettings
from metav.optimization.shares import Shares
from metav.statistics.roc_aruc import roc_auc
from metav.support.progress import progress_bar
from metav.support.randomness import derive_seed
from metav.verifiers.kinds import VERIFIER_KINDS, verifier_kind
from metav.verifiers.meta_verifier import QUERY_PARTS, Member, MetaVerifier

AUC_SLACK = 0.02
"""A candidate whose AUC on the selection share is lower than the best one's by more than this is left out."""
SEPARATION_SHARE = 0.85
"""So is one whose separation (distance of the classes' means, in standard deviations) is less than this share of the
best one's."""
SEPARATION_CAP = 5.0
"""Separations above this count as this: the selection share has too few models to tell 5 deviations from 10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One verifier on one share of the queries, with its quality on the selection share."""

    member: Member
    auc: float
    separation: float


def fit_candidates(
    shares: Shares, adaptive: int, settings: OptimizationSettings, seed: int, progress: bool | None
) -> list[Candidate]:
    """Every kind on the optimised, the natural and all queries, trained on one share and judged on another."""
    count = shares.select.shape[1]
    parts = {"adaptive": (0, adaptive), "natural": (adaptive, count), "all": (0, count)}
    kinds = tuple(VERIFIER_KINDS) if settings.options.verifier == "auto" else (settings.options.verifier,)
    wanted = [
        (kind, part)
        for kind in kinds
        for part in QUERY_PARTS
        if parts[part][1] > parts[part][0] and not (part == "all" and adaptive in (0, count))
    ]
    candidates = []
    refused: ValueError | None = None
    with progress_bar(total=len(wanted), description="verifiers", enabled=progress) as bar:
        for kind, part in wanted:
            try:
                member = fit_member(
                    f"{kind}:{part}",
                    parts[part],
                    shares.optimize,
                    shares.optimize_roles,
                    settings,
                    derive_seed(seed, kind, part),
                )
            except ValueError as error:
                # the core's word for queries on which this kind has nothing to read, such as labels that all agree
                refused = error
            else:
                candidates.append(_judge(member, shares))
            bar.update(1)
    if not candidates:
        raise ZooError(f"no verifier can be made from these answers: {refused}; give more queries") from refused
    return candidates


def select_members(candidates: Sequence[Candidate]) -> MetaVerifier:
    """Weighs the candidates by the square of how far apart they hold the two classes of the selection share.

    Only those close to the best one count, by AUC and by separation; where one of a preferred kind is close to the best
    AUC, only the candidates of preferred kinds.
    """
    auc = max(candidate.auc for candidate in candidates) - AUC_SLACK
    close = [candidate for candidate in candidates if candidate.auc >= auc]
    close = [candidate for candidate in close if verifier_kind(candidate.member.verifier.kind).preferred] or close
    separations = [min(max(candidate.separation, 0.0), SEPARATION_CAP) for candidate in close]
    least = SEPARATION_SHARE * max(separations)
    gains = [separation**2 if separation >= least else 0.0 for separation in separations]
    total = sum(gains)
    if total <= 0:
        raise ZooError(
            "no verifier tells derived from independent models on the selection share; "
            "the zoo is too small or too alike: give more positives and negatives, or more queries"
        )
    return MetaVerifier(
        tuple(replace(c.member, weight=gain / total) for c, gain in zip(close, gains, strict=True) if gain > 0)
    )


def _judge(bare: Member, shares: Shares) -> Candidate:
    """Quality on the selection share; centre and spread put the classes' means at -1 and +1 there."""
    logits = bare.raw_logits(shares.select)
    high, low = logits[shares.select_derived], logits[~shares.select_derived]
    distance = float(high.mean() - low.mean())
    deviation = float(np.sqrt((high.var() + low.var()) / 2)) + 1e-9
    member = replace(bare, center=float(high.mean() + low.mean()) / 2, spread=max(distance / 2, 1e-6))
    return Candidate(member=member, auc=roc_auc(high, low), separation=distance / deviation)
