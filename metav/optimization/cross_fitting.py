"""The final training of the chosen members, so that each model can be judged by members that it did not train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.optimization.members import fit_member
from metav.optimization.shares import Shares
from metav.statistics.calibration_models import ALL_TRAINED, CalibrationModels
from metav.support.progress import progress_bar
from metav.support.randomness import derive_seed
from metav.verifiers.meta_verifier import Member, MetaVerifier

if TYPE_CHECKING:
    from metav.optimization.members import VerifierSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFitted:
    """The final meta-verifier, and how it judges the models of the zoo.

    meta_verifier: all members of all repetitions.
    logits: (models,) of the models that have a part, each from the members that it did not train.
    """

    meta_verifier: MetaVerifier
    logits: NDArray[np.float64]


def refit(
    meta_verifier: MetaVerifier,
    models: CalibrationModels,
    settings: VerifierSettings,
    seed: int,
    progress: bool | None = False,
) -> CrossFitted:
    """Train the chosen members anew `repeats` times, each time on all surrogates but one part of them.

    meta_verifier: the chosen members.
    models: all that there are, the owner's first, with the part of each (see `model_parts`).
    progress: None shows a bar on a terminal, False never, True always.

    Source: cross-conformal prediction (Vovk, 2015).
    """
    logits = np.full(len(models.parts), np.nan)
    members: list[Member] = []
    with progress_bar(total=settings.options.repeats, description="calibrate", enabled=progress) as bar:
        for number in range(settings.options.repeats):
            out = models.parts == number
            own_seed = derive_seed(seed, "refit", number)
            chosen = _refit_without(out, meta_verifier, models, settings, own_seed)
            if out.any():
                logits[out] = MetaVerifier(chosen).logits(np.ascontiguousarray(models.responses[out]))
            share = 1.0 / settings.options.repeats
            members += [replace(member, weight=member.weight * share, part=number) for member in chosen]
            bar.update(1)
    return CrossFitted(meta_verifier=MetaVerifier(tuple(members)), logits=logits[models.judged])


def model_parts(shares: Shares, count: int) -> NDArray[np.int64]:
    """Return the part, 0..count-1, of each model, in the order of `Shares.sizes`: without it some members are trained.

    count: number of parts.

    Calibration models all have one, the other surrogates where there are several; the owner's model and the free
    negatives of other shares, which judge nothing, have ALL_TRAINED. Snapshots share the part of their run. Each class,
    share and family is spread as evenly as it can be.
    """
    optimize, select, select_free, calibrate = shares.sizes
    parts = np.full(optimize + select + select_free + calibrate, ALL_TRAINED, dtype=np.int64)
    positive = np.frombuffer(shares.optimize_roles, dtype=np.uint8) == _core.ROLE_POSITIVE
    derived = [*positive, *shares.select_derived, *[False] * select_free, *shares.calibrate_derived]
    families = [*(shares.other_families or [""] * (len(parts) - calibrate)), *shares.calibrate_families]
    runs = [*(shares.optimize_runs or map(str, range(optimize))), *map(str, range(optimize, len(parts)))]
    divided = {
        "calibrate": range(len(parts) - calibrate, len(parts)),
        "select": range(optimize, optimize + select),
        "optimize": [place for place in range(1, optimize) if not shares.optimize_free[place]],
    }
    # the count is not started anew with each family or share, so that all parts have the same size, give or take one
    turns: dict[str, int] = {}
    for is_derived in (True, False):
        for name, places in divided.items():
            if name == "calibrate" or count > 1:
                own = [place for place in places if derived[place] == is_derived]
                for place in sorted(own, key=families.__getitem__):
                    parts[place] = turns.setdefault(runs[place], len(turns)) % count
    return parts


def _refit_without(
    out: NDArray[np.bool_],
    meta_verifier: MetaVerifier,
    models: CalibrationModels,
    settings: VerifierSettings,
    seed: int,
) -> tuple[Member, ...]:
    """Return the members, trained on all models but `out` (a mask)."""
    every = np.where(models.derived, _core.ROLE_POSITIVE, _core.ROLE_NEGATIVE).astype(np.uint8)
    every[0] = _core.ROLE_OWNER
    roles, free = every[~out].tobytes(), models.free[~out]
    kept = np.ascontiguousarray(models.responses[~out])
    members = []
    for old in meta_verifier.members:
        own_seed = derive_seed(seed, old.name)
        new = fit_member(old.name, (old.start, old.stop), kept, roles, free, settings, own_seed)
        members.append(replace(new, weight=old.weight, center=old.center, spread=old.spread))
    return tuple(members)
