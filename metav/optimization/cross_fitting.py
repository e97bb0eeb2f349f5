"""The final training of the chosen members, so that each calibration model is judged by members it did not train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.optimization.members import fit_member
from metav.optimization.shares import Shares
from metav.support.randomness import derive_seed
from metav.verifiers.meta_verifier import Member, MetaVerifier

if TYPE_CHECKING:
    from metav.optimization.members import VerifierSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFitted:
    """The final meta-verifier, and how it judges the calibration models.

    meta_verifier: all members of all repetitions.
    logits: (models,) of the calibration models, each from the members that it did not train.
    parts: number of these members, (models,), as `Member.part`.
    """

    meta_verifier: MetaVerifier
    logits: NDArray[np.float64]
    parts: NDArray[np.int64]


def refit(meta_verifier: MetaVerifier, shares: Shares, settings: VerifierSettings, seed: int) -> CrossFitted:
    """Train the chosen members anew `repeats` times, each time on all surrogates but one part of the calibration share.

    meta_verifier: the chosen members.
    shares: the models' responses to the final queries.

    The calibration share is divided into `repeats` parts, and the members trained without a part calibrate on it alone.

    Source: cross-conformal prediction (Vovk, 2015).
    """
    parts = calibration_parts(shares.calibrate_families, settings.options.repeats)
    logits = np.empty(len(parts), dtype=np.float64)
    members: list[Member] = []
    for number in range(settings.options.repeats):
        out = parts == number
        chosen = _refit_without(out, meta_verifier, shares, settings, derive_seed(seed, "refit", number))
        if out.any():
            logits[out] = MetaVerifier(chosen).logits(np.ascontiguousarray(shares.calibrate[out]))
        share = 1.0 / settings.options.repeats
        members += [replace(member, weight=member.weight * share, part=number) for member in chosen]
    return CrossFitted(meta_verifier=MetaVerifier(tuple(members)), logits=logits, parts=parts)


def calibration_parts(families: Sequence[str], count: int) -> NDArray[np.int64]:
    """Return the part, 0..count-1, of each calibration model; every family is spread as evenly as it can be.

    families: of the calibration models, in order.
    count: number of parts.
    """
    parts = np.empty(len(families), dtype=np.int64)
    # the count is not started anew with each family, so that all parts have the same size, give or take one
    order = sorted(range(len(families)), key=lambda index: families[index])
    parts[order] = np.arange(len(families)) % count
    return parts


def _refit_without(
    out: NDArray[np.bool_],
    meta_verifier: MetaVerifier,
    shares: Shares,
    settings: VerifierSettings,
    seed: int,
) -> tuple[Member, ...]:
    """Return the members, trained on all shares but for the calibration models `out` (a mask)."""
    responses = np.concatenate([shares.optimize, shares.select, shares.select_free, shares.calibrate[~out]])
    no_select = np.zeros(len(shares.select_free), dtype=np.bool_)
    derived = np.concatenate([shares.select_derived, no_select, shares.calibrate_derived[~out]])
    free = np.concatenate(
        [shares.optimize_free, np.zeros(len(shares.select), np.bool_), ~no_select, shares.calibrate_free[~out]]
    )
    roles = shares.optimize_roles + bytes(_core.ROLE_POSITIVE if own else _core.ROLE_NEGATIVE for own in derived)
    members = []
    for old in meta_verifier.members:
        own_seed = derive_seed(seed, old.name)
        new = fit_member(old.name, (old.start, old.stop), responses, roles, free, settings, own_seed)
        members.append(replace(new, weight=old.weight, center=old.center, spread=old.spread))
    return tuple(members)
