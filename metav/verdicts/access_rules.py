"""The decision rule for an access: verifiers and threshold for models that answer no more than the suspect does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.errors import ArtefactError, InputError, ZooError
from metav.fingerprints.fingerprint import Fingerprint
from metav.optimization.candidates import LABELS_ALONE, fit_candidates, select_members
from metav.optimization.cross_fitting import refit
from metav.optimization.options import OptimizationOptions
from metav.optimization.shares import Shares
from metav.statistics.calibration import Calibration, threshold_above
from metav.statistics.calibration_models import CalibrationModels
from metav.support.arrays import FloatArray
from metav.support.randomness import derive_seed
from metav.verdicts.access import Access
from metav.verdicts.novelty import KnownModels, known_models
from metav.verdicts.reading import readable, seen_through
from metav.verifiers.meta_verifier import MetaVerifier
from metav.verifiers.places import Places

MOST_BYTES = 512 * 2**20
"""Memory that a fingerprint's rules may take: each suspect that answers with noise of its own has one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelAgreement:
    """How often a model has to give the owner's labels before a few telling queries may decide.

    Of labels, some are given by the owner's model and its copies alone, as far as the zoo shows, so that a verifier
    weighs them heavily. An independent model that happens to give one or two of them stands far outside the scores of
    all calibration models, which a normal limit does not foresee; how often it agrees over all queries stays usual.

    labels: the owner's, (queries,), or of all places of all queries.
    limit: share of equal labels from which on at most the wanted rate of independent models lies.
    places: of answers that hold a class for each of several; None for others.
    """

    labels: NDArray[np.intp]
    limit: float
    places: Places | None = None

    def share(self, rows: NDArray[np.float32]) -> float:
        """Return the share of answers (queries, outputs) whose best class is the owner's."""
        return float((labels_of(rows, self.places) == self.labels).mean())

    def bears_out(self, rows: NDArray[np.float32]) -> bool:
        """Return whether so many labels are the owner's as no independent model is likely to give."""
        return self.share(rows) >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AccessRule:
    """What decides for one access.

    meta_verifier: gives logits to readable answers.
    calibration: threshold and rates, of calibration models seen through the access.
    trained: readable answers of the calibration models that were trained, (models, queries, outputs).
    known: the same models as novelty sees them.
    agreement: where only labels are left, how many of them must be the owner's for a match; else None.
    owner: logit of the owner's own answers, as the access lets them out; None where it is not known.
    size: bytes that it takes at most, besides what is the fingerprint's own.
    """

    meta_verifier: MetaVerifier
    calibration: Calibration
    trained: FloatArray
    known: KnownModels
    agreement: LabelAgreement | None = None
    owner: float | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the final training of verifiers goes by."""

    view: str
    options: OptimizationOptions
    reads_labels_too: bool


def rule_for(fp: Fingerprint, access: Access) -> AccessRule | None:
    """Return the rule for an access; None where nothing that it lets out tells derived from independent models.

    For all scores it is the fingerprint's own. For less, verifiers are trained anew on the answers of the zoo's models
    as the access would have let them out, which takes seconds; the fingerprint keeps them.
    """
    key, models = str(access.to_dict()), fp.calibration_models
    if models is None:
        raise ArtefactError("the fingerprint holds no answers of its zoo's models; make it again")
    with fp.lock:
        if key in fp.accesses:
            fp.accesses[key] = fp.accesses.pop(key)  # the last one asked for is given up last
        else:
            seen = readable(seen_through(fp, access), access, fp.task.places)
            rule = _own(fp, models, seen) if access.is_full else _anew(fp, models, seen)
            if rule is not None and access.reads == "labels":
                rule = replace(rule, agreement=_label_agreement(fp, models, seen))
            fp.accesses[key] = rule
            _give_up_old(fp.accesses)
        found: AccessRule | None = fp.accesses[key]
    return found


def _give_up_old(rules: dict[str, AccessRule | None]) -> None:
    """Remove the rules not asked for longest until the others take at most MOST_BYTES; the last one stays."""
    total = sum(rule.size for rule in rules.values() if rule is not None)
    for key in list(rules)[:-1]:
        if total <= MOST_BYTES:
            break
        rule = rules.pop(key)
        total -= 0 if rule is None else rule.size


def _own(fp: Fingerprint, models: CalibrationModels, seen: FloatArray) -> AccessRule | None:
    try:
        logits = fp.calibration_logits(seen[models.judged])
    except OverflowError:  # what the access lets out is of another size than what the verifiers were made for
        return None
    return _rule(fp, models, seen, fp.meta_verifier, logits)


def _anew(fp: Fingerprint, models: CalibrationModels, seen: FloatArray) -> AccessRule | None:
    if set(models.shares or ()) != {"owner", "optimize", "select", "calibrate"}:
        return _own(fp, models, seen)
    try:
        options = OptimizationOptions.from_dict(fp.options)
    except (InputError, TypeError, ValueError) as error:
        raise ArtefactError(f"the options of the fingerprint cannot be used ({error}); make it again") from error
    labels_too = any(member.name == LABELS_ALONE for member in fp.meta_verifier.members)
    settings = _Settings(fp.task.view, options, labels_too)
    shares = Shares.of_models(models, seen)
    seed = derive_seed(fp.seed, "access")
    try:
        candidates = fit_candidates(shares, fp.adaptive, settings, seed, False)
        final = refit(select_members(candidates), replace(models, responses=seen), settings, seed)
    # no candidate tells the classes apart, or none stays finite: the access lets out too little
    except (ZooError, OverflowError):
        return None
    # of answers that tell less, the few models that queries have not seen decide alone: an honest one that happens to
    # give the owner's few telling labels lies far outside the spread of all others
    return _rule(fp, models, seen, final.meta_verifier, final.logits, pooled=False)


def _label_agreement(fp: Fingerprint, models: CalibrationModels, seen: FloatArray) -> LabelAgreement | None:
    if "owner" not in (models.shares or ()):
        return None
    places = fp.task.places
    labels = labels_of(seen[models.of_share("owner")][0], places)
    shares = (labels_of(seen[models.independent], places) == labels).mean(axis=1)
    limit = threshold_above(np.sort(shares), fp.calibration.target_fpr)
    # the owner's own labels always bear it out
    return LabelAgreement(labels=labels, limit=min(limit, 1.0 - 0.5 / len(labels)), places=places)


def labels_of(rows: NDArray[Any], places: Places | None) -> NDArray[np.intp]:
    """Return the best class of each answer (..., queries), or of each place of each answer (..., queries * places)."""
    split = rows if places is None else places.rows(rows)
    return np.asarray(split.argmax(axis=-1), dtype=np.intp)


def _rule(
    fp: Fingerprint,
    models: CalibrationModels,
    seen: FloatArray,
    meta_verifier: MetaVerifier,
    logits: NDArray[np.float64],
    *,
    pooled: bool = True,
) -> AccessRule:
    trained = np.ascontiguousarray(seen[models.calibrating & ~models.free])
    own = seen[models.of_share("owner")] if models.shares else seen[:0]
    known = known_models(trained, fp.task.view)
    learned = 0 if meta_verifier is fp.meta_verifier else _bytes_of(meta_verifier)
    return AccessRule(
        meta_verifier=meta_verifier,
        calibration=models.calibration(logits, target_fpr=fp.calibration.target_fpr, pooled=pooled),
        trained=trained,
        known=known,
        owner=float(meta_verifier.logits(np.ascontiguousarray(own))[0]) if len(own) else None,
        size=learned + trained.nbytes + known.features.nbytes,
    )


def _bytes_of(meta_verifier: MetaVerifier) -> int:
    """Return how many bytes verifiers take, at most: those of images are far larger than what they learned from."""
    members = meta_verifier.members
    values = sum(value.nbytes for member in members for value in member.verifier.parameters().values())
    references = sum(member.reference.nbytes for member in members if member.reference is not None)
    # three of each value: the verifier's own, and two moments of its optimiser
    return 3 * values + references
