"""Options of the optimisation: what is out of range is refused."""

from __future__ import annotations

import numpy as np
import pytest

from metav.errors import InputError
from metav.optimization.options import OptimizationOptions
from metav.support.json_values import plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 0}, "queries must be a whole number from 1, got 0"),
        ({"queries": 1.5}, "queries must be a whole number from 1, got 1.5"),
        ({"pool": 0}, "pool must be a whole number from 1, got 0"),
        ({"pool": "many"}, "pool must be a whole number from 1, got 'many'"),
        ({"adaptive": "all"}, "adaptive must lie in .0, 1., got 'all'"),
        ({"mix": None}, "mix must lie in .0, 1., got None"),
        ({"adaptive": 1.5}, r"adaptive must lie in \[0, 1\]"),
        ({"verifier": "svm"}, 'verifier must be "auto" or one of mlp, local, matched'),
        ({"repeats": 0}, "repeats must be a whole number from 1"),
        ({"queries": True}, "queries must be a whole number from 1, got True"),
        ({"queries": 10**12}, "queries must be at most 100000, got 1000000000000"),
        ({"refit_steps": 10**9}, "refit_steps must be at most 1000000"),
        ({"levels": 1}, "levels must be a whole number from 2, got 1"),
        ({"learning_rate": "fast"}, "learning_rate must be a number above 0 to 1e.06, got 'fast'"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0"),
        ({"query_learning_rate": float("nan")}, "query_learning_rate must be a number above 0 .* got nan"),
        ({"radius": -0.1}, "radius must be a number from 0"),
        ({"noise": True}, "noise must be a number from 0 .* got True"),
        ({"weights": (1.0, 2.0)}, "weights must be three numbers, of owner, positives and negatives"),
        ({"weights": (1.0, "x", 1.0)}, "each of the weights must be a number from 0"),
        ({"view": "guess"}, "view must be one of identity"),
        ({"view": 3}, "view must be one of identity"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        OptimizationOptions(**options)


def test_numbers_of_numpy_are_options():
    given = OptimizationOptions(queries=np.int64(20), learning_rate=np.float32(0.5), mix=np.float64(0.5))
    assert plain(given.to_dict()) == plain(OptimizationOptions(queries=20, learning_rate=0.5).to_dict())
