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


def batch_sizes(count: int, most: int) -> list[int]:
    """Return the sizes of the batches of `count` examples, each up to `most`; a last one of 1 gets another."""
    sizes = [most] * (count // most) + [count % most] * (count % most > 0)
    if len(sizes) > 1 and sizes[-1] == 1 and most > 2:
        sizes[-2:] = [most - 1, 2]
    return sizes
