"""Options of the optimisation: what is out of range is refused."""

from __future__ import annotations

import pytest

from metav.errors import InputError
from metav.optimization.options import OptimizationOptions


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
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        OptimizationOptions(**options)
