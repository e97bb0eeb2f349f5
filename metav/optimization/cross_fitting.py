"""The chosen members, trained anew so that each calibration model is judged by verifiers that it did not train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.optimization.members import fit_member
from metav.optimization.settings import OptimizationSettings
from metav.optimization.shares import Shares
from metav.support.randomness import derive_seed
from metav.verifiers.meta_verifier import Member, MetaVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFitted:
    """The final meta-verifier, and the logits of the calibration models, each from members that it did not train."""

    meta_verifier: MetaVerifier
    positives: NDArray[np.float64]
    negatives: NDArray[np.float64]


def refit(meta_verifier: MetaVerifier, shares: Shares, settings: OptimizationSettings, seed: int) -> CrossFitted:
    """The chosen members, trained anew `repeats` times, each time on all surrogates but one part of the calibration.

    That part only calibrates the members which it did not train (cross-conformal prediction, Vovk 2015).
    """
    parts = calibration_parts(shares.calibrate_families, settings.options.repeats)
    logits = np.empty(len(parts), dtype=np.float64)
    members: list[Member] = []
    for number in range(settings.options.repeats):
        out = parts == number
        chosen = _refit_without(out, meta_verifier, shares, settings, derive_seed(seed, "refit", number))
        if out.any():
            logits[out] = MetaVerifier(chosen).logits(np.ascontiguousarray(shares.calibrate[out]))
        members += [replace(member, weight=member.weight / settings.options.repeats) for member in chosen]
    derived = shares.calibrate_derived
    return CrossFitted(
        meta_verifier=MetaVerifier(tuple(members)), positives=logits[derived], negatives=logits[~derived]
    )


def calibration_parts(families: Sequence[str], count: int) -> NDArray[np.int64]:
    """The part, 0..count-1, of each calibration model; every family is spread over the parts as evenly as it can be."""
    parts = np.empty(len(families), dtype=np.int64)
    # counting on from one family to the next keeps the parts of one size
    order = sorted(range(len(families)), key=lambda index: families[index])
    parts[order] = np.arange(len(families)) % count
    return parts


def _refit_without(
    out: NDArray[np.bool_],
    meta_verifier: MetaVerifier,
    shares: Shares,
    settings: OptimizationSettings,
    seed: int,
) -> tuple[Member, ...]:
    """The members, trained on the shares but for the calibration models `out`."""
    responses = np.concatenate([shares.optimize, shares.select, shares.calibrate[~out]])
    derived = np.concatenate([shares.select_derived, shares.calibrate_derived[~out]])
    roles = shares.optimize_roles + bytes(_core.ROLE_POSITIVE if own else _core.ROLE_NEGATIVE for own in derived)
    members = []
    for old in meta_verifier.members:
        own_seed = derive_seed(seed, old.name)
        new = fit_member(old.name, (old.start, old.stop), responses, roles, settings, own_seed)
        members.append(replace(new, weight=old.weight, center=old.center, spread=old.spread))
    return tuple(members)
