"""What the parts of a fingerprint must hold, so that nothing that loads can fail in a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.errors import InputError
from metav.statistics.calibration_models import SHARES, CalibrationModels
from metav.verifiers.kinds import VERIFIER_KINDS
from metav.verifiers.meta_verifier import MetaVerifier
from metav.verifiers.views import view_of

_LARGEST, _SMALLEST = (float(number) for number in (np.finfo(np.float32).max, np.finfo(np.float32).tiny))
"""Bounds of a member's center and spread: within them every logit of the core, a float32, stays finite in its unit."""


def check_weights(specification: Any, weights: Mapping[str, NDArray[Any]], outputs: Any, queries: int) -> None:
    """Raise InputError for a specification that its tensors do not bear out, before any memory is allocated for it.

    specification: of the members, as in a document.
    weights: tensors by name, "verifier.<member number>.<parameter>".
    outputs, queries: of the fingerprint.
    """
    if not isinstance(specification, list):
        raise InputError("verifier must be a list of members")
    left = dict(weights)
    for number, entry in enumerate(specification):
        for key, shape in _wanted_shapes(f"verifier.{number}", entry, weights, outputs, queries).items():
            array = left.pop(key)
            found = array.shape
            fits = len(found) == len(shape) and all(size in (None, own) for size, own in zip(shape, found, strict=True))
            if not fits:
                raise InputError(f"{key} has shape {found}, expected {shape}")
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise InputError(f"tensor {key} must be float32 and finite")
    if left:
        raise InputError(f"tensor {min(left)} must belong to a member")


def _wanted_shapes(
    name: str, entry: Mapping[str, Any], weights: Mapping[str, NDArray[Any]], outputs: Any, queries: int
) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes of a member's tensors by their names; None stands for any size."""
    start, stop, hidden = entry["start"], entry["stop"], entry["hidden"]
    if entry["kind"] not in VERIFIER_KINDS:
        raise InputError(f"{name} has the kind {entry['kind']!r}, expected one of {', '.join(VERIFIER_KINDS)}")
    if not all(type(value) is int for value in (start, stop, hidden, entry["outputs"])):
        raise InputError(f"start, stop, hidden and outputs of {name} must be whole numbers")
    if not 0 <= start < stop <= queries:
        raise InputError(f"{name} reads the queries {start} to {stop}, expected a range within 0 to {queries}")
    if entry["outputs"] != outputs:
        raise InputError(f"{name} reads {entry['outputs']} outputs, expected {outputs}")
    paired = f"{name}.reference" in weights
    shapes = _core.parameter_shapes(entry["kind"], stop - start, outputs * (2 if paired else 1), hidden=hidden)
    wanted = {"shift": shapes.pop("shift"), **shapes}  # the one that tells the sizes that all have in common
    if paired:
        wanted["reference"] = (stop - start, outputs)
    return {f"{name}.{key}": shape for key, shape in wanted.items()}


def check_members(meta_verifier: MetaVerifier, queries: int, outputs: int) -> None:
    """Raise InputError for members that do not fit the queries and outputs, or could give no finite logits."""
    for member in meta_verifier.members:
        read = member.stop - member.start
        if not 0 <= member.start < member.stop <= queries or member.verifier.queries != read:
            raise InputError(
                f"verifier {member.name} reads the queries {member.start} to {member.stop} and was made for "
                f"{member.verifier.queries}; expected a range within the {queries} queries"
            )
        expected = outputs * (1 if member.reference is None else 2)
        if member.verifier.outputs != expected:
            raise InputError(f"verifier {member.name} reads {member.verifier.outputs} outputs, expected {expected}")
        if member.reference is not None and member.reference.shape != (read, outputs):
            raise InputError(
                f"the reference of verifier {member.name} has shape {member.reference.shape}, expected "
                f"({read}, {outputs})"
            )
        check_view(member.view, outputs)
        numbers = (member.weight, member.center, member.spread)
        if not all(math.isfinite(number) for number in numbers) or member.weight < 0 or member.spread <= 0:
            raise InputError(f"verifier {member.name} has weight, center, spread {numbers}, expected finite, >= 0, > 0")
        if abs(member.center) > _LARGEST or not _SMALLEST <= member.spread <= _LARGEST:
            raise InputError(
                f"verifier {member.name} has center {member.center} and spread {member.spread}, beyond the range of "
                "float32, so that its logits may not be finite"
            )
    if not math.isclose(sum(member.weight for member in meta_verifier.members), 1.0, abs_tol=1e-6):
        raise InputError("the weights of the verifiers must sum to 1")


def check_view(view: str, outputs: int) -> None:
    """Raise InputError for a view that there is not, or that cannot read so many outputs."""
    view_of(view)
    try:
        _core.apply_view(np.ones((1, 1, outputs), dtype=np.float32), view)
    except ValueError as error:
        raise InputError(f"answers of {outputs} numbers cannot be read as {view}: {error}") from error


def is_trained_anew(models: CalibrationModels) -> bool:
    """Return whether verifiers are trained anew on these models for an access: where they are of all shares."""
    return set(models.shares or ()) == set(SHARES)


def check_shares(models: CalibrationModels) -> None:
    """Raise InputError for models that verifiers cannot be trained on anew."""
    if not is_trained_anew(models):
        return
    owner = models.of_share("owner")
    if not owner[0] or owner.sum() != 1 or not models.derived[0]:
        raise InputError("the owner's own answers must be the first of the calibration models, and no others")
    for name in ("optimize", "select"):
        derived = models.derived[models.of_share(name) & ~models.free]
        if not derived.any() or derived.all():
            raise InputError(f"the models of the share {name} must hold derived and independent ones")


def check_tables(**tables: Any) -> None:
    """Raise InputError for what describes a fingerprint and is no table, or a check without its result.

    tables: by name.
    """
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise InputError(f"{name} must be a table, got {type(table).__name__}")
    check = tables.get("check")
    if check:
        matches, score = check.get("owner_matches"), check.get("owner_score")
        if type(matches) is not bool or type(score) is not float or not 0 <= score <= 1:
            raise InputError(
                f"check must say whether the owner's model matches, and its score in [0, 1], got {matches!r} and "
                f"{score!r}"
            )
