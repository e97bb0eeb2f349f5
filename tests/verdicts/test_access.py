"""Access: calibration models are made to look as the suspect's answers do, and no other way."""

from __future__ import annotations

import numpy as np
import pytest
from answer_forms import LOSSLESS, LOSSY, TOP, gaussian, one_hot, real_answers, softmax, top, trained_logits
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metav.errors import InputError
from metav.verdicts.access import Access, access_of, degrade
from metav.verifiers.forms import read_form, undo_form

CHANGES = {**LOSSLESS, **LOSSY, **TOP}


def access(sent):
    return access_of(read_form(sent, classes=True))


def law(whole, change, dtype):
    """Both sides of: degrade(x, access_of(read_form(change(x)))) = undo_form(change(x))."""
    sent = change(softmax(whole)).astype(dtype)
    form = read_form(sent, classes=True)
    return degrade(whole[None], access_of(form), classes=True, seed=0)[0], undo_form(sent, form), form


def read_alike(left, right):
    return np.abs(np.maximum(left, 1e-5) - np.maximum(right, 1e-5)).max(axis=1) < 2e-6


# The law -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("scale", [0.7, 1.5, 4.0])
@pytest.mark.parametrize("outputs", [10, 30])
def test_degraded_models_look_as_their_own_changed_answers_do(outputs, scale, change, dtype):
    logits = trained_logits(100, outputs, scale)
    degraded, undone, _ = law(logits, CHANGES[change], dtype)
    np.testing.assert_allclose(degraded, undone, atol=2e-6)
    # the same from probabilities instead of logits
    from_probabilities, _, form = law(logits, CHANGES[change], dtype)
    again = degrade(softmax(logits)[None], access_of(form), classes=True, seed=0)[0]
    np.testing.assert_allclose(again, from_probabilities, atol=1e-12)


@example(queries=27, outputs=3, scale=6.0, change="whole percent", single=False, seed=989)
@example(queries=5, outputs=3, scale=2.0, change="1 decimal", single=False, seed=167)
@given(
    queries=st.integers(5, 100),
    outputs=st.sampled_from([2, 3, 10, 100]),
    scale=st.floats(0.5, 8),
    change=st.sampled_from([*LOSSLESS, *LOSSY]),
    single=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_the_law_holds_up_to_rows_that_too_few_show(queries, outputs, scale, change, single, seed):
    logits = trained_logits(queries, outputs, scale, seed)
    degraded, undone, form = law(logits, CHANGES[change], np.float32 if single else np.float64)
    if form.kind == "logits":
        # to one decimal, a hundred small probabilities are all zero
        assert change == "1 decimal"
        assert outputs == 100
        return
    sent = CHANGES[change](softmax(logits))
    if form.top is not None and change not in TOP and form.decimals is None:
        # every row shows as many classes as if the others were not told, and too few numbers show the rounding
        assert change == "1 decimal"
        assert queries < 40
        assert (np.count_nonzero(sent, axis=1) <= form.top).all()
        return
    off = ~read_alike(degraded, undone)
    # a row that reaches a bound or a tie is one of few, and what it shows is small
    assert off.sum() <= max(2, 0.1 * queries)
    assert np.abs(degraded - undone)[off].max(initial=0) < (0.011 if change.startswith("clipped") else 1.001)


@pytest.mark.parametrize("change", LOSSLESS)
@pytest.mark.parametrize("outputs", [2, 3, 10])
def test_nothing_is_lost_in_another_unit(outputs, change):
    found = access(LOSSLESS[change](softmax(trained_logits(50, outputs, 1.5))))
    assert found.is_full
    assert str(found) == "all"


@pytest.mark.parametrize("factor", [0.2, 0.33, 2.0, 5.0])
def test_temperatures_leave_all(factor):
    logits = trained_logits(50, 10, 1.5)
    for sent in (factor * logits, softmax(factor * logits), np.log(softmax(factor * logits))):
        assert access(sent).is_full


def test_the_one_class_that_is_not_told_is_no_loss():
    p = softmax(trained_logits(40, 3, 1.0))
    sent = top(p, 2)
    assert access(sent).is_full
    np.testing.assert_allclose(undo_form(sent, read_form(sent, classes=True)), p, atol=1e-12)


def test_the_rest_of_the_best_few_is_spread_the_same_whether_zero_or_even():
    p = softmax(trained_logits(60, 10, 1.0))
    zero = top(p, 3)
    even = np.where(zero > 0, zero, (1 - zero.sum(axis=1, keepdims=True)) / 7)
    assert access(zero) == access(even) == Access(reads="probabilities", top=3, complete=False)
    undone = [undo_form(sent, read_form(sent, classes=True)) for sent in (zero, even)]
    np.testing.assert_allclose(undone[0], undone[1], atol=1e-12)


@pytest.mark.parametrize("change", ["whole percent", "2 decimals", "one-hot", "clipped to 0.01-0.99"])
@pytest.mark.parametrize("name", ["wine", "iris", "cancer"])
@pytest.mark.parametrize("model", ["logistic", "bayes", "forest"])
def test_the_law_holds_for_real_models(name, model, change):
    p, _ = real_answers(name, model)
    degraded, undone, _ = law(np.log(np.maximum(p, 1e-300)), CHANGES[change], np.float32)
    assert (~read_alike(degraded, undone)).sum() <= 1


def test_percent_without_decimals_and_two_decimals_are_one_access():
    p = softmax(trained_logits(50, 10, 1.5))
    assert access(np.round(100 * p)) == access(np.round(p, 2)) == Access(reads="probabilities", decimals=2)


# Noise ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_noise_of_probabilities_is_measured_in_probabilities(unit):
    random = np.random.default_rng(0)
    p = softmax(trained_logits(200, 10, 1.0))
    differences = unit * 0.02 * (random.standard_normal((200, 10)) - random.standard_normal((200, 10)))
    sent = unit * p
    found = access_of(read_form(sent, classes=True), responses=sent, differences=differences)
    assert found.noise == pytest.approx(0.02, rel=0.05)
    assert not found.is_full
    assert str(found).startswith("noisy")
    noisy = degrade(p[None], found, classes=True, seed=1)[0]
    np.testing.assert_allclose(noisy.sum(axis=1), 1)
    assert 0.01 < (noisy - p).std() < 0.03


def test_noise_of_logits_and_values_follows_each_models_own_spread():
    random = np.random.default_rng(0)
    logits = gaussian(300, 10, 4.0)
    differences = 0.4 * (random.standard_normal((300, 10)) - random.standard_normal((300, 10)))
    found = access_of(read_form(logits, classes=True), responses=logits, differences=differences)
    soft = degrade(0.1 * logits[None], found, classes=True, seed=1)[0]
    moved = soft - (0.1 * logits - np.log(np.exp(0.1 * logits).sum(axis=1, keepdims=True)))
    assert moved.std() == pytest.approx(0.04, rel=0.3)
    values = gaussian(300, 2, 1.0) * [1.0, 1000.0]
    differences = 0.1 * np.sqrt(2) * random.standard_normal((300, 2)) * [1.0, 1000.0]
    found = access_of(read_form(values, classes=False), responses=values, differences=differences)
    assert found.noise == pytest.approx(0.1, rel=0.1)
    noisy = degrade(values[None], found, classes=False, seed=1)[0]
    np.testing.assert_allclose((noisy - values).std(axis=0), [0.1, 100.0], rtol=0.15)


def test_arithmetic_of_the_hardware_is_no_noise():
    logits = gaussian(50, 10, 2.0)
    form = read_form(logits, classes=True)
    assert access_of(form, responses=logits, differences=1e-6 * gaussian(8, 10, 1.0)).noise == 0
    with pytest.raises(InputError, match="responses="):
        access_of(form, differences=np.zeros((8, 10)))


def test_labels_that_change_fall_to_the_runner_up_as_often():
    logits = trained_logits(2000, 10, 1.0)
    found = Access(reads="labels", noise=0.2)
    first, second = (degrade(logits[None], found, classes=True, seed=seed)[0] for seed in (1, 2))
    assert (first != second).any(axis=1).mean() == pytest.approx(0.18, abs=0.04)
    changed = (first != one_hot(logits)).any(axis=1)
    np.testing.assert_array_equal(first.argmax(axis=1)[changed], np.argsort(-logits, axis=1)[changed, 1])


# Edges ---------------------------------------------------------------------------------------------------------------


def test_values_are_rounded_and_full_access_changes_nothing():
    values = gaussian(20, 3, 5.0)[None]
    np.testing.assert_array_equal(
        degrade(values, Access(reads="values", decimals=1), classes=False, seed=0), np.round(values, 1)
    )
    np.testing.assert_array_equal(degrade(values, Access(reads="values"), classes=False, seed=0), values)
    np.testing.assert_array_equal(degrade(values, Access(reads="logits"), classes=True, seed=0), values)


def test_the_same_seed_gives_the_same_noise_and_inputs_stay_as_they_are():
    logits = trained_logits(20, 4, 1.0)[None]
    before = logits.copy()
    found = Access(reads="probabilities", decimals=2, noise=0.05)
    one, two, other = (degrade(logits, found, classes=True, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    np.testing.assert_array_equal(logits, before)


def test_an_access_of_another_kind_of_answers_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        degrade(np.zeros((1, 2, 3)), Access(reads="values"), classes=True, seed=0)
    with pytest.raises(InputError, match="does not fit"):
        degrade(np.zeros((1, 2, 3)), Access(reads="labels"), classes=False, seed=0)
    with pytest.raises(InputError, match="models, queries, outputs"):
        degrade(np.zeros((2, 3)), Access(reads="labels"), classes=True, seed=0)
