"""Arrays as the core takes them: float32, in C order, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

FloatArray: TypeAlias = NDArray[np.float32]


def as_array(tensor: Tensor) -> FloatArray:
    """Return the values of a tensor as a float32 array in C order, on the CPU."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float32)
