"""What owner and surrogates answer to a set of queries, share by share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from metav import _core
from metav.models.ensembles import Ensemble
from metav.support.arrays import FloatArray, as_array
from metav.zoo.zoo import Zoo, ZooModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Raw responses (models, queries, outputs), float32, of the models of each share of the zoo.

    owner: the owner's, (1, queries, outputs).
    optimize: the owner's, followed by those of the share "optimize", its free negatives last.
    optimize_roles: one byte per row of `optimize`, such as ROLE_POSITIVE of the core.
    optimize_free: which rows of `optimize` are free negatives, (models,).
    select: those of the share "select", without free negatives.
    select_free: those of its free negatives, which only the final verifiers see.
    calibrate: those of the share "calibrate", its free negatives last.
    select_derived, calibrate_derived: which of these models derive from the owner's, (models,).
    calibrate_free: which of them are free negatives, (models,).
    calibrate_families: family of each calibration model.
    """

    owner: FloatArray
    optimize: FloatArray
    optimize_roles: bytes
    optimize_free: NDArray[np.bool_]
    select: FloatArray
    select_free: FloatArray
    select_derived: NDArray[np.bool_]
    calibrate: FloatArray
    calibrate_derived: NDArray[np.bool_]
    calibrate_free: NDArray[np.bool_]
    calibrate_families: tuple[str, ...]

    @classmethod
    def of(cls, owner: nn.Module, zoo: Zoo, queries: FloatArray) -> Shares:
        """Return what the owner's model and all surrogates answer to queries (N, *input shape)."""
        tensor = torch.from_numpy(queries)

        def answers(models: Sequence[nn.Module]) -> FloatArray:
            if not models:
                return own[:0]
            with torch.no_grad():
                return as_array(Ensemble(models).responses(tensor))

        with torch.no_grad():
            own = as_array(Ensemble([owner]).responses(tensor))
        free = {entry.run for entry in zoo.free}
        optimize, calibration = (zoo.share(name, free=True) for name in ("optimize", "calibrate"))
        select = zoo.share("select")
        select_free = [item for item in zoo.share("select", free=True) if item.run in free]
        return cls(
            owner=own,
            optimize=np.concatenate([own, answers([item.model for item in optimize])]),
            optimize_roles=bytes([_core.ROLE_OWNER, *(role_of(item) for item in optimize)]),
            optimize_free=np.array([False, *(item.run in free for item in optimize)]),
            select=answers([item.model for item in select]),
            select_free=answers([item.model for item in select_free]),
            select_derived=np.array([item.is_positive for item in select]),
            calibrate=answers([item.model for item in calibration]),
            calibrate_derived=np.array([item.is_positive for item in calibration]),
            calibrate_free=np.array([item.run in free for item in calibration]),
            calibrate_families=tuple(item.family for item in calibration),
        )


def role_of(item: ZooModel) -> int:
    """Return the role of a surrogate in the core: ROLE_POSITIVE or ROLE_NEGATIVE."""
    return _core.ROLE_POSITIVE if item.is_positive else _core.ROLE_NEGATIVE
