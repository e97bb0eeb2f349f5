"""Orders and units: found where the true answers show them beyond doubt, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from answer_forms import gaussian, one_hot, real_answers, softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from metav.errors import InputError
from metav.verdicts.orders import find_affine, find_class_order, find_image_form, find_row_order

TRUTH = np.random.default_rng(8).integers(10, size=50)


def good(truth=TRUTH, outputs=10, seed=0, gap=4.0):
    return gap * np.eye(outputs)[truth] + gaussian(len(truth), outputs, 1.0, seed)


# Classes -------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 300), outputs=st.sampled_from([2, 3, 5, 10]), gap=st.floats(3.5, 8), labels=st.booleans())
@settings(max_examples=60, deadline=None)
def test_columns_in_another_order_are_found_exactly(seed, outputs, gap, labels):
    random = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(outputs), random.integers(outputs, size=50)])
    answers = softmax(good(truth, outputs, seed, gap))
    order = np.roll(np.arange(outputs), 1) if seed % 2 or outputs < 5 else random.permutation(outputs)
    if (order == np.arange(outputs)).mean() > 0.5:
        return
    sent = answers[:, order]
    found = find_class_order(one_hot(sent) if labels else sent, truth)
    assert found is not None
    np.testing.assert_array_equal(sent[:, found], answers)


@pytest.mark.parametrize("name", ["wine", "cancer", "iris"])
@pytest.mark.parametrize("model", ["logistic", "bayes", "tree", "forest"])
def test_real_models_in_order_are_left_and_turned_ones_found(name, model):
    p, truth = real_answers(name, model)
    assert find_class_order(p, truth) is None
    assert find_row_order(p, truth, np.arange(len(p)), "classification") is None
    turned = find_class_order(p[:, ::-1], truth)
    if name == "cancer":
        np.testing.assert_array_equal(turned, [1, 0])
    rolled = find_class_order(np.roll(p, 1, axis=1), truth)
    np.testing.assert_array_equal(rolled, np.roll(np.arange(p.shape[1]), -1))


@pytest.mark.parametrize("outputs", [2, 3, 10, 30])
@pytest.mark.parametrize("queries", [5, 10, 50])
def test_noise_constants_and_shuffled_rows_have_no_order(outputs, queries):
    for seed in range(12):
        truth = np.random.default_rng(seed).integers(outputs, size=queries)
        for answers in (gaussian(queries, outputs, 1.0, seed + 50), np.tile(np.eye(outputs)[0], (queries, 1))):
            assert find_class_order(answers, truth) is None
            assert find_row_order(answers, truth, np.arange(queries), "classification") is None


def test_weak_models_and_single_confusions_are_left():
    weak = good(gap=1.5)
    assert 0.3 < (weak.argmax(axis=1) == TRUTH).mean() < 0.8
    assert find_class_order(weak, TRUTH) is None
    swapped = good()[:, [1, 0, *range(2, 10)]]
    assert find_class_order(swapped, TRUTH) is None


# Rows ----------------------------------------------------------------------------------------------------------------


def test_rows_from_last_to_first_are_found_among_all_queries():
    answers = np.concatenate([gaussian(30, 10, 1.0, 7), good()])
    natural = np.arange(30, 80)
    assert find_row_order(answers, TRUTH, natural, "classification") is None
    order = find_row_order(answers[::-1], TRUTH, natural, "classification")
    np.testing.assert_array_equal(answers[::-1][order], answers)
    mixed = answers[np.random.default_rng(0).permutation(80)]
    assert find_row_order(mixed, TRUTH, natural, "classification") is None


def test_rows_of_values_are_found_too_and_images_have_no_true_answers():
    truth = gaussian(40, 2, 3.0)
    answers = truth + gaussian(40, 2, 0.5, 1)
    order = find_row_order(answers[::-1], truth, np.arange(40), "regression")
    np.testing.assert_array_equal(order, np.arange(40)[::-1])
    assert find_row_order(answers, truth, np.arange(40), "regression") is None
    assert find_row_order(answers, truth, np.arange(40), "generation") is None


# Units ---------------------------------------------------------------------------------------------------------------


@given(
    power=st.sampled_from([-3, -2, 2, 3]),
    sign=st.sampled_from([1, -1]),
    noise=st.floats(0.05, 0.5),
    center=st.sampled_from([0.0, 5.0, -40.0]),
    seed=st.integers(0, 300),
)
@settings(max_examples=80, deadline=None)
def test_a_power_of_ten_is_found_exactly(power, sign, noise, center, seed):
    truth = center + gaussian(50, 1, 1.0, seed)
    factor = sign * 10.0**power
    found = find_affine(factor * (truth + gaussian(50, 1, noise, seed + 1)), truth)
    assert found is not None
    if center == 0 or abs(center) * 0.1 > noise:
        # noise in the answers flattens a fitted line to 1 / (1 + noise^2), give or take five standard errors
        flatter = 1 / (1 + noise**2)
        np.testing.assert_allclose(found[0], 1 / factor, rtol=1 - flatter + 5 * flatter * noise / np.sqrt(48))
    if found[1][0] == 0:
        np.testing.assert_allclose(found[0], 1 / factor)


def test_degrees_and_standardised_values_are_mapped_back():
    celsius = 20 + gaussian(60, 1, 8.0)
    guessed = celsius + gaussian(60, 1, 1.0, 1)
    scale, offset = find_affine(1.8 * guessed + 32, celsius)
    np.testing.assert_allclose(scale * (1.8 * guessed + 32) + offset, guessed, atol=1.0)
    scale, offset = find_affine((guessed - 20) / 8, celsius)
    np.testing.assert_allclose(scale * (guessed - 20) / 8 + offset, guessed, atol=1.0)


def test_outliers_do_not_bend_the_map():
    truth = gaussian(60, 1, 1.0)
    sent = 100 * (truth + gaussian(60, 1, 0.2, 1))
    sent[:4] = 1e5
    scale, offset = find_affine(sent, truth)
    np.testing.assert_allclose([scale[0], offset[0]], [0.01, 0.0], atol=1e-12)


def test_each_output_has_a_map_of_its_own():
    truth = gaussian(50, 3, 2.0)
    answers = truth + gaussian(50, 3, 0.5, 1)
    scale, offset = find_affine(answers * [1.0, 100.0, -1.0], truth)
    np.testing.assert_allclose(scale, [1.0, 0.01, -1.0])
    np.testing.assert_allclose(offset, 0.0)


@given(
    outputs=st.integers(1, 5),
    queries=st.integers(5, 60),
    unit=st.sampled_from([0.01, 1.0, 100.0]),
    seed=st.integers(0, 300),
)
@settings(max_examples=80, deadline=None)
def test_noise_and_constants_have_no_unit(outputs, queries, unit, seed):
    truth = gaussian(queries, outputs, 1.0, seed)
    assert find_affine(gaussian(queries, outputs, unit, seed + 1000), truth) is None
    assert find_affine(np.full((queries, outputs), unit), truth) is None


def test_true_answers_that_are_mostly_zero_show_no_unit_or_the_right_one():
    for share in (0.3, 0.6, 0.9):
        for seed in range(10):
            random = np.random.default_rng(seed)
            truth = np.where(random.random(50) < share, 0.0, random.exponential(1.0, 50))[:, None]
            found = find_affine(100 * truth, truth)
            assert found is None or found[0][0] == pytest.approx(0.01)
            assert find_affine(random.standard_normal((50, 1)), truth) is None
            assert find_affine(truth[::-1], np.zeros((50, 1))) is None


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.0, 3.0])
def test_models_in_the_right_unit_are_left_however_weak(noise):
    for seed in range(20):
        truth = gaussian(50, 1, 1.0, seed)
        answers = truth / (1 + noise**2) + gaussian(50, 1, noise / (1 + noise**2), seed + 1)
        assert find_affine(answers, truth) is None


# Images --------------------------------------------------------------------------------------------------------------


def images(models, shape, seed=0):
    """Smooth images in 0..1, mostly dark, (models, 20, D)."""
    random = np.random.default_rng(seed)
    channels, height, width = shape
    rows, columns = np.mgrid[0:height, 0:width]
    places = random.uniform(0, height, (models, 20, channels, 2, 1, 1))
    blobs = np.exp(-((rows - places[..., 0, :, :]) ** 2 + (columns - places[..., 1, :, :]) ** 2) / 12)
    return blobs.reshape(models, 20, -1)


RANGES = {"0..1": lambda x: x, "-1..1": lambda x: 2 * x - 1, "0..255": lambda x: 255 * x}


@pytest.mark.parametrize("sent", RANGES)
@pytest.mark.parametrize("expected", RANGES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("last", [False, True])
def test_ranges_and_layouts_of_images_are_found_and_undone(sent, expected, channels, last):
    shape = (channels, 12, 12)
    calibration, own = images(8, shape), images(1, shape, 1)[0]
    answers = RANGES[sent](own)
    if last:
        answers = answers.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(len(own), -1)
    found = find_image_form(answers, RANGES[expected](calibration), shape)
    if sent == expected and not (last and channels > 1):
        assert found is None
        return
    assert (found.range, found.expected, found.channels_last) == (sent, expected, last and channels > 1)
    np.testing.assert_allclose(found.undo(answers, shape), RANGES[expected](own), atol=1e-9)
    assert str(found)


def test_brighter_images_and_noise_are_no_other_range():
    shape = (3, 12, 12)
    calibration, own = images(8, shape), images(1, shape, 1)[0]
    for answers in (np.clip(1.3 * own + 0.1, 0, 1), own**2, np.random.default_rng(0).random(own.shape)):
        for expected in RANGES:
            assert find_image_form(RANGES[expected](answers), RANGES[expected](calibration), shape) is None


def test_answers_that_do_not_fit_the_truth_are_refused():
    with pytest.raises(InputError, match="true classes"):
        find_class_order(np.zeros((3, 2)), np.array([0, 1, 2]))
    with pytest.raises(InputError, match="one shape"):
        find_affine(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(InputError, match="expected answers"):
        find_image_form(np.zeros((3, 4)), np.zeros((2, 3, 5)), (5,))


def test_ranks_of_few_queries_are_no_evidence_of_a_unit():
    truth = np.arange(5.0)[:, None]
    assert find_affine(100 * truth, truth) is None
    assert find_affine(100 * np.arange(12.0)[:, None], np.arange(12.0)[:, None]) is not None


def test_classes_that_are_often_confused_are_ordered_by_their_probabilities():
    truth = np.concatenate([np.arange(10), np.random.default_rng(3).integers(10, size=40)])
    for seed in range(20):
        answers = softmax(good(truth, 10, seed, 2.8))
        assert (answers.argmax(axis=1) == truth).mean() < 0.95
        order = np.random.default_rng(seed).permutation(10)
        found = find_class_order(answers[:, order], truth)
        np.testing.assert_array_equal(order[found], np.arange(10))
