"""What is sent in which order, and what decoys look like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_fingerprints import ADAPTIVE, QUERIES, linear_fingerprint

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint
from metav.suspects.asking_options import AskingOptions
from metav.suspects.asking_plan import plan_asking
from metav.suspects.decoys import make_decoys

FP = linear_fingerprint()


@settings(max_examples=60, deadline=None)
@given(
    decoys=st.integers(0, 20).map(lambda half: 2 * half),
    repeats=st.none() | st.integers(0, 60),
    shuffle=st.none() | st.just(True),
    seed=st.integers(0, 10),
    batch_size=st.integers(1, 300),
)
def test_every_query_is_planned_once_and_repeats_once_more(decoys, repeats, shuffle, seed, batch_size):
    options = AskingOptions(decoys=decoys, repeats=repeats, shuffle=shuffle, seed=seed, batch_size=batch_size)
    plan = plan_asking(FP, options)
    counts = np.bincount(plan.sources, minlength=len(plan.inputs))
    assert len(plan.inputs) == QUERIES + decoys
    assert (counts[QUERIES:] == 1).all()
    assert counts[:QUERIES].sum() == QUERIES + len(plan.pairs)
    assert counts.max() <= 2
    assert (plan.sources[plan.pairs[:, 0]] == plan.sources[plan.pairs[:, 1]]).all()
    assert (plan.pairs[:, 0] < plan.pairs[:, 1]).all()
    assert sum(plan.parts) == len(plan.sources)
    assert np.array_equal(plan.inputs[plan.sources[plan.firsts]], plan.inputs)
    assert repeats is None or len(plan.pairs) == min(repeats, QUERIES)


def test_the_order_follows_from_seed_and_the_secret_salt():
    options = AskingOptions(shuffle=True)
    first = plan_asking(FP, options)
    assert np.array_equal(first.sources, plan_asking(FP, options).sources)
    other = replace(FP, salt="2" * 64)
    assert not np.array_equal(first.sources, plan_asking(other, options).sources)
    assert not np.array_equal(first.sources, plan_asking(FP, replace(options, seed=1)).sources)
    assert set(first.digests).isdisjoint(plan_asking(other, options).digests), "nobody can guess a query by its digest"


def test_the_first_query_comes_again_at_the_end_and_each_batch_holds_some_that_come_again():
    plan = plan_asking(FP, AskingOptions(shuffle=True, batch_size=8))
    assert plan.pairs[0].tolist() == [0, len(plan.sources) - 1]
    batches = {int(item) // 8 for item in plan.pairs[:, 0]}
    assert batches >= set(range(QUERIES // 8))


def images(levels: int | None = None, *, shape=(1, 6, 6)) -> Fingerprint:
    """A fingerprint on images; its members and responses do not matter here."""
    from small_fingerprints import handmade, handmade_task

    values = np.random.default_rng(0).uniform(size=(6, *shape)).astype(np.float32)
    values[:, :, 0] = 0.0
    if levels is not None:
        values = np.round(values * (levels - 1)) / np.float32(levels - 1)
    bounds = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    return handmade(
        task=handmade_task(input_shape=shape, levels=levels), queries=values, lower=bounds[0], upper=bounds[1]
    )


@pytest.mark.parametrize("levels", [None, 17, 256])
def test_decoys_are_natural_queries_slightly_changed_within_bounds_and_levels(levels):
    fp = images(levels)
    decoys = make_decoys(fp, 8, 1)
    assert len(decoys.inputs) == 8
    assert (decoys.origins >= fp.adaptive).all()
    origins = fp.queries[decoys.origins]
    for side in (0, 1):
        changed = decoys.inputs[side::2]
        assert (changed != origins).any(axis=(1, 2, 3)).all()
        assert np.abs(changed - origins).max() < 0.3
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert (changed[:, :, 0] == 0).all(), "what is the same in all inputs stays"
    assert decoys.inputs[0::2] + decoys.inputs[1::2] == pytest.approx(2 * origins, abs=1e-5)
    if levels is not None:
        steps = decoys.inputs * (levels - 1)
        assert steps == pytest.approx(np.round(steps), abs=1e-3)
    known = {row.tobytes() for row in fp.queries}
    assert not known & {row.tobytes() for row in decoys.inputs}


def test_decoys_of_queries_that_cannot_be_changed_are_refused():
    fp = images()
    black = replace(fp, queries=np.round(fp.queries))
    with pytest.raises(InputError, match=r"only 0 of 4 decoys can be made"):
        make_decoys(black, 4, 0)


def test_decoys_are_made_of_natural_queries_alone():
    assert set(make_decoys(FP, 40, 3).origins) <= set(range(ADAPTIVE, QUERIES))
