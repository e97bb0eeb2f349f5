"""The choice of the few queries that tell most."""

from __future__ import annotations

import numpy as np

from metav.optimization.query_pool import choose_queries
from metav.optimization.shares import Shares


def shares_of(signal, roles=(2, 1, 1, 1, 0, 0, 0, 0), repeats=8):
    """Answers (models, queries, 1): of every query a multiple of the class plus noise; the others are noise alone."""
    random = np.random.default_rng(0)
    roles = np.tile(np.array(roles, dtype=np.uint8), repeats)
    sign = np.where(roles > 0, 1.0, -1.0)[:, None, None]
    answers = random.normal(size=(2, len(roles), len(signal), 1)) + sign * np.array(signal)[:, None]
    optimize, select = np.ascontiguousarray(answers, dtype=np.float32)
    derived = roles > 0
    return Shares(
        owner=optimize[:1],
        optimize=optimize,
        optimize_roles=roles.tobytes(),
        optimize_free=np.zeros(len(roles), bool),
        select=select,
        select_free=select[:0],
        select_derived=derived,
        calibrate=select[:0],
        calibrate_derived=derived[:0],
        calibrate_free=derived[:0],
        calibrate_families=(),
    )


def test_the_queries_that_tell_most_are_chosen_first():
    assert choose_queries(shares_of([0.0, 1.0, 0.0, 3.0, 0.2, 2.0]), "identity", 3) == [3, 5, 1]
    assert sorted(choose_queries(shares_of([0.0, 1.0, 0.5]), "identity", 9)) == [0, 1, 2]


def test_a_query_that_repeats_another_is_chosen_last():
    shares = shares_of([2.0, 0.0, 1.0])
    for answers in (shares.optimize, shares.select):
        answers[:, 1] = answers[:, 0]
    assert choose_queries(shares, "identity", 3) == [0, 2, 1]
