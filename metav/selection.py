"""The final verifiers on the final queries: candidates, the choice among them, and their cross-fitted training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metav import _core
from metav.curves import roc_auc
from metav.ensembles import Ensemble
from metav.errors import ZooError
from metav.optimization_options import OptimizationOptions
from metav.progress import progress_bar
from metav.randomness import derive_seed
from metav.verifiers import (
    QUERY_PARTS,
    VERIFIER_KINDS,
    FloatArray,
    Member,
    MetaVerifier,
    paired_features,
    reads_distances,
)
from metav.zoo import Zoo, ZooModel

FITTED_LOSS = 1e-3  # loss without augmentation at which a verifier has nothing left to learn
CHECK_EVERY = 25  # updates between two looks at that loss
AUC_SLACK = 0.02  # a candidate this far below the best on the selection share has no say,
SEPARATION_CAP = 5.0  # more deviations than this the few models of the selection share cannot tell apart
SEPARATION_SHARE = 0.85  # nor one that holds the classes apart by less than this share of the best
PREFERRED = "mlp"  # other kinds look as good on the selection share, and do worse on data and architectures unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One verifier on one share of the queries, with its quality on the selection share."""

    member: Member
    auc: float
    separation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFitted:
    """The final meta-verifier, and the logits of the calibration models, each from members that it did not train."""

    meta_verifier: MetaVerifier
    positives: NDArray[np.float64]
    negatives: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Raw responses of the shares on the final queries, with roles and families."""

    owner: FloatArray
    optimize: FloatArray
    optimize_roles: bytes
    select: FloatArray
    select_derived: NDArray[np.bool_]
    calibrate: FloatArray
    calibrate_derived: NDArray[np.bool_]
    calibrate_families: tuple[str, ...]

    @classmethod
    def of(cls, owner: nn.Module, zoo: Zoo, queries: FloatArray) -> Shares:
        """Asks the owner's model and all surrogates."""
        tensor = torch.from_numpy(queries)

        def answers(models: Sequence[nn.Module]) -> FloatArray:
            with torch.no_grad():
                return as_array(Ensemble(models).responses(tensor))

        optimize, select, calibration = (zoo.share(name) for name in ("optimize", "select", "calibrate"))
        own = answers([owner])
        return cls(
            owner=own,
            optimize=np.concatenate([own, answers([item.model for item in optimize])]),
            optimize_roles=bytes([_core.ROLE_OWNER, *(role_of(item) for item in optimize)]),
            select=answers([item.model for item in select]),
            select_derived=np.array([item.is_positive for item in select]),
            calibrate=answers([item.model for item in calibration]),
            calibrate_derived=np.array([item.is_positive for item in calibration]),
            calibrate_families=tuple(item.family for item in calibration),
        )


def fit_candidates(
    shares: Shares, adaptive: int, view: str, options: OptimizationOptions, seed: int, progress: bool | None
) -> list[Candidate]:
    """Every kind on the optimised, the natural and all queries, trained on one share and judged on another."""
    count = shares.select.shape[1]
    parts = {"adaptive": (0, adaptive), "natural": (adaptive, count), "all": (0, count)}
    kinds = VERIFIER_KINDS if options.verifier == "auto" else (options.verifier,)
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
                member = _fit_member(
                    f"{kind}:{part}",
                    parts[part],
                    shares.optimize,
                    shares.optimize_roles,
                    view,
                    options,
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

    Only those close to the best one count, by AUC and by separation; where an `mlp` is close to the best AUC, only the
    candidates of that kind.
    """
    auc = max(candidate.auc for candidate in candidates) - AUC_SLACK
    close = [candidate for candidate in candidates if candidate.auc >= auc]
    close = [candidate for candidate in close if candidate.member.verifier.kind == PREFERRED] or close
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


def refit(
    meta_verifier: MetaVerifier, shares: Shares, view: str, options: OptimizationOptions, seed: int
) -> CrossFitted:
    """The chosen members, trained anew `repeats` times, each time on all surrogates but one part of the calibration.

    That part only calibrates the members which it did not train (cross-conformal prediction, Vovk 2015).
    """
    parts = calibration_parts(shares.calibrate_families, options.repeats)
    logits = np.empty(len(parts), dtype=np.float64)
    members: list[Member] = []
    for number in range(options.repeats):
        out = parts == number
        chosen = _refit_without(out, meta_verifier, shares, view, options, derive_seed(seed, "refit", number))
        if out.any():
            logits[out] = MetaVerifier(chosen).logits(np.ascontiguousarray(shares.calibrate[out]))
        members += [replace(member, weight=member.weight / options.repeats) for member in chosen]
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
    view: str,
    options: OptimizationOptions,
    seed: int,
) -> tuple[Member, ...]:
    """The members, trained on the shares but for the calibration models `out`."""
    responses = np.concatenate([shares.optimize, shares.select, shares.calibrate[~out]])
    derived = np.concatenate([shares.select_derived, shares.calibrate_derived[~out]])
    roles = shares.optimize_roles + bytes(_core.ROLE_POSITIVE if own else _core.ROLE_NEGATIVE for own in derived)
    members = []
    for old in meta_verifier.members:
        own_seed = derive_seed(seed, old.name)
        new = _fit_member(old.name, (old.start, old.stop), responses, roles, view, options, own_seed)
        members.append(replace(new, weight=old.weight, center=old.center, spread=old.spread))
    return tuple(members)


def _fit_member(
    name: str,
    part: tuple[int, int],
    responses: FloatArray,
    roles: bytes,
    view: str,
    options: OptimizationOptions,
    seed: int,
) -> Member:
    """A member on queries [start, stop) of the responses, the owner's first; not yet centred."""
    kind: Any = name.partition(":")[0]
    start, stop = part
    own = np.ascontiguousarray(responses[:, start:stop])
    reference = own[0] if kind == PREFERRED and reads_distances(view) else None
    if reference is None:
        verifier = _fit_verifier(kind, own, roles, view, options, seed)
    else:
        verifier = _fit_verifier(kind, paired_features(own, reference, view), roles, "identity", options, seed)
    return Member(
        name=name,
        verifier=verifier,
        start=start,
        stop=stop,
        weight=1.0,
        center=0.0,
        spread=1.0,
        reference=None if reference is None else reference.copy(),
        view="identity" if reference is None else view,
    )


def _fit_verifier(
    kind: Any, own: FloatArray, roles: bytes, view: str, options: OptimizationOptions, seed: int
) -> _core.Verifier:
    """A verifier of one kind, trained until it knows the models given or time is up."""
    final = _core.Verifier(kind, own.shape[1], own.shape[2], view=view, hidden=options.hidden, seed=seed)
    if kind == "matched":
        final.standardize(own)
        negatives = np.frombuffer(roles, dtype=np.uint8) == _core.ROLE_NEGATIVE
        final.fit_closed_form(own[0], np.ascontiguousarray(own[negatives]))
        return final
    # the view is taken once for all updates: no gradient has to pass it here
    own = _core.apply_view(own, view)
    verifier = _core.Verifier(kind, own.shape[1], own.shape[2], hidden=options.hidden, seed=seed)
    verifier.standardize(own)
    settings = options.step_settings()
    for step in range(1, options.refit_steps + 1):
        verifier.step(own, roles, **settings)
        if step % CHECK_EVERY == 0 and verifier.step(own, roles, update=False, weights=options.weights) < FITTED_LOSS:
            break
    final.load_parameters(verifier.parameters())
    return final


def _judge(bare: Member, shares: Shares) -> Candidate:
    """Quality on the selection share; centre and spread put the classes' means at -1 and +1 there."""
    logits = bare.raw_logits(shares.select)
    high, low = logits[shares.select_derived], logits[~shares.select_derived]
    distance = float(high.mean() - low.mean())
    deviation = float(np.sqrt((high.var() + low.var()) / 2)) + 1e-9
    member = replace(bare, center=float(high.mean() + low.mean()) / 2, spread=max(distance / 2, 1e-6))
    return Candidate(member=member, auc=roc_auc(high, low), separation=distance / deviation)


def role_of(item: ZooModel) -> int:
    """The role of a surrogate in the core."""
    return _core.ROLE_POSITIVE if item.is_positive else _core.ROLE_NEGATIVE


def as_array(tensor: Tensor) -> FloatArray:
    """A float32 array in C order, on the CPU."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float32)
