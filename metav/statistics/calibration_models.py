"""What the models of a zoo answered: kept in the fingerprint, so that a verdict sees them as it sees a suspect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError
from metav.statistics.calibration import Calibration, calibrate
from metav.support.arrays import FloatArray

SHARES = ("owner", "optimize", "select", "calibrate")
ALL_TRAINED = -1
"""The part of a model that every repetition of the final training has seen."""
_PER_MODEL = (("derived", np.bool_), ("free", np.bool_), ("finished", np.bool_), ("parts", np.int64))
"""Arrays with one entry per model, and their types."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibrationModels:
    """Raw answers of the models that calibrate, and of those that the verifiers learned from.

    responses: (models, queries, outputs) float32, in full precision.
    derived: which models derive from the owner's, (models,).
    free: which of them nobody trained (`metav.zoo.free_negatives`), (models,); they set no threshold.
    families: of the models, in order.
    parts: number of the members that did not train on each model, (models,), as `Member.part`; ALL_TRAINED where all
        did, which no model that calibrates has.
    shares: of each model, one of SHARES; None where all calibrate.
    finished: which are no snapshots from the middle of a training, (models,); None: all.

    Raises InputError where these do not fit each other.
    """

    responses: FloatArray
    derived: NDArray[np.bool_]
    free: NDArray[np.bool_]
    families: tuple[str, ...]
    parts: NDArray[np.int64]
    shares: tuple[str, ...] | None = None
    finished: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        responses = np.array(self.responses, dtype=np.float32, order="C")
        count = len(responses)
        if responses.ndim != 3 or not count or not np.isfinite(responses).all():
            raise InputError(f"calibration responses must be finite, (models, queries, outputs), got {responses.shape}")
        found: dict[str, NDArray[Any]] = {"responses": responses}
        for name, dtype in _PER_MODEL:
            given = getattr(self, name)
            found[name] = np.ones(count, np.bool_) if given is None else np.array(given, dtype=dtype)
            if found[name].shape != (count,):
                raise InputError(f"{name} must have shape ({count},), got {found[name].shape}")
        if len(self.families) != count or not all(isinstance(family, str) for family in self.families):
            raise InputError(f"families must be {count} names, got {len(self.families)}")
        shares = ("calibrate",) * count if self.shares is None else tuple(self.shares)
        if len(shares) != count or not set(shares) <= set(SHARES) or "calibrate" not in shares:
            raise InputError(f"shares must be {count} of {', '.join(SHARES)}, one of them calibrate at least")
        calibrating = np.array([name == "calibrate" for name in shares])
        if (found["free"] & found["derived"]).any() or (found["parts"] < np.where(calibrating, 0, ALL_TRAINED)).any():
            raise InputError(
                "a free negative cannot derive from the owner's model, and parts are numbers from 0, or "
                f"{ALL_TRAINED} of models that do not calibrate"
            )
        for name, array in found.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "shares", shares)

    def of_share(self, *names: str) -> NDArray[np.bool_]:
        """Return which models are of one of these shares, (models,)."""
        return np.isin(np.array(self.shares), names)

    @property
    def calibrating(self) -> NDArray[np.bool_]:
        """Which models calibrate, (models,)."""
        return self.of_share("calibrate")

    @property
    def independent(self) -> NDArray[np.bool_]:
        """Which models that calibrate were trained independently, free negatives apart, (models,)."""
        found: NDArray[np.bool_] = self.calibrating & ~self.derived & ~self.free
        return found

    @property
    def finished_independent(self) -> NDArray[np.bool_]:
        """Which models, of any share, were trained independently and to the end, free negatives apart, (models,)."""
        found: NDArray[np.bool_] = np.asarray(self.finished, dtype=np.bool_) & ~self.derived & ~self.free
        return found & ~self.of_share("owner")

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Which models can be judged by members that did not train on them, (models,)."""
        found: NDArray[np.bool_] = self.parts > ALL_TRAINED
        return found

    def calibration(self, logits: NDArray[np.float64], *, target_fpr: float, pooled: bool = True) -> Calibration:
        """Return the decision rule that follows from the logits (models,) of those that are judged, in order.

        pooled: whether the other shares' independent models say, too, how far such logits spread.
        """
        of_all = np.full(len(self.parts), np.nan)
        of_all[self.judged] = logits
        showing = self.judged & self.finished_independent  # how far independent ones spread
        return calibrate(
            of_all[self.calibrating & self.derived],
            of_all[self.independent],
            others=[of_all[showing & self.of_share(name)] for name in ("select", "optimize") if pooled],
            target_fpr=target_fpr,
        )

    def document(self) -> dict[str, Any]:
        """Return what stands beside the responses in a file, plain values."""
        return {
            "derived": [bool(entry) for entry in self.derived],
            "free": [bool(entry) for entry in self.free],
            "families": list(self.families),
            "finished": [bool(entry) for entry in np.asarray(self.finished)],
            "parts": [int(entry) for entry in self.parts],
            "shares": list(self.shares or ()),
        }
