"""What owner and surrogates answer to the final queries, share by share."""

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


def role_of(item: ZooModel) -> int:
    """The role of a surrogate in the core."""
    return _core.ROLE_POSITIVE if item.is_positive else _core.ROLE_NEGATIVE
