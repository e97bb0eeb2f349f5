"""Whether a suspect held still, told from answers that came twice and from decoys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from linear_fingerprints import QUERY_ARRAY, answers, linear_fingerprint, weights

from metav.suspects.asking_options import AskingOptions
from metav.suspects.asking_plan import plan_asking
from metav.suspects.asking_record import AskingRecord, CarefulAnswers
from metav.verdicts.steadiness import change_point_chance, odd_ones, tail_chance, unsteadiness

FP = linear_fingerprint()
RECORD = AskingRecord(
    log=None, head="", rows=0, planned=0, answered=0, sent=0, failed=0, decoys=0, repeats=0, shuffled=True, cost=None
)


def asked(respond, *, seed: int = 0, decoys: int = 20) -> CarefulAnswers:
    """The answers of respond(item, input) in the order of a plan."""
    plan = plan_asking(FP, AskingOptions(decoys=decoys, seed=seed, batch_size=8, shuffle=True))
    found = np.stack([respond(item, plan.inputs[source]) for item, source in enumerate(plan.sources)])
    firsts = found[plan.firsts]
    return CarefulAnswers(
        responses=firsts[: plan.queries],
        differences=found[plan.pairs[:, 1]] - found[plan.pairs[:, 0]],
        record=RECORD,
        pairs=plan.pairs,
        origins=plan.origins,
        decoys=firsts[plan.queries :].reshape(len(plan.origins), 2, -1),
    )


def linear(matrix):
    return lambda item, row: answers(matrix, row[None])[0]


def labels(matrix):
    def respond(item, row):
        best = answers(matrix, row[None])[0].argmax()
        return (np.arange(3) == best).astype(np.float32)

    return respond


@pytest.mark.parametrize("respond", [linear(weights(derived=True)), labels(weights(derived=True))])
def test_a_model_that_answers_the_same_is_steady(respond):
    assert all(unsteadiness(asked(respond, seed=seed)) is None for seed in range(20))


@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0])
def test_noise_is_no_change_and_no_special_treatment(scale):
    """At most as many false alarms as two tests at 1 % give, with room for chance."""
    random, clean = np.random.default_rng(1), linear(weights(derived=True))

    def respond(item, row):
        return (clean(item, row) + random.normal(scale=scale, size=3)).astype(np.float32)

    assert sum(unsteadiness(asked(respond, seed=seed)) is not None for seed in range(60)) <= 4


@pytest.mark.parametrize("place", [0.15, 0.3, 0.5, 0.7, 0.85])
def test_a_change_is_found_wherever_it_happens(place):
    before, after = linear(weights(derived=True)), linear(weights(derived=False))
    for seed in range(10):
        cut = int(place * len(plan_asking(FP, AskingOptions(decoys=20, seed=seed, batch_size=8)).sources))
        found = unsteadiness(asked(lambda item, row, c=cut: (before if item < c else after)(item, row), seed=seed))
        assert found is not None
        assert found[0] == "changed"


def test_a_change_under_noise_is_found_by_its_place_in_time():
    random = np.random.default_rng(2)
    before, after = linear(weights(derived=True)), linear(-weights(derived=True))

    def respond(item, row):
        return ((before if item < 40 else after)(item, row) + random.normal(scale=0.2, size=3)).astype(np.float32)

    found = [unsteadiness(asked(respond, seed=seed)) for seed in range(10)]
    assert sum(entry is not None and entry[0] == "changed" for entry in found) >= 7


def test_the_permutation_test_keeps_its_level():
    random, low = np.random.default_rng(0), 0
    pairs = plan_asking(FP, AskingOptions(decoys=20, batch_size=8)).pairs
    for _ in range(400):
        low += change_point_chance(np.abs(random.standard_normal(len(pairs))), pairs) <= 0.05
    assert low / 400 <= 0.08


def test_a_run_in_order_is_judged_by_its_noise_alone():
    found = asked(lambda item, row: np.full(3, item, np.float32))
    assert unsteadiness(replace(found, record=replace(RECORD, shuffled=False))) is None


@pytest.mark.parametrize("answer", [linear, labels])
def test_queries_that_are_treated_apart_are_the_odd_ones(answer):
    known = {row.tobytes() for row in QUERY_ARRAY}
    inside, outside = answer(weights(derived=True)), answer(-weights(derived=True))
    found = asked(lambda item, row: (inside if row.tobytes() in known else outside)(item, row))
    assert unsteadiness(found)[0] == "treated_apart"
    assert odd_ones(found) == len(found.origins)


def test_the_chance_of_odd_ones_is_binomial():
    from scipy.stats import binom

    for count, total in ((0, 5), (3, 5), (10, 10), (4, 20)):
        assert tail_chance(count, total, 1 / 3) == pytest.approx(binom.sf(count - 1, total, 1 / 3))
