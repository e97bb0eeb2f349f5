"""Forms: what answers look like is decided over all rows, and undoing it gives what the core reads the same way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from answer_forms import LOSSLESS, LOSSY, gaussian, heavy_tailed, one_hot, real_answers, softmax, top, trained_logits
from hypothesis import given, settings
from hypothesis import strategies as st

from metav import _core
from metav.errors import InputError
from metav.verifiers.forms import Form, as_probabilities, read_form, undo_form

SIZES = [(5, 2), (20, 3), (100, 10), (30, 100)]
TYPES = [np.float32, np.float64]


def read(responses):
    return read_form(responses, classes=True)


def logs(p):
    return np.log(np.maximum(p, 1e-5))


def core(responses):
    return _core.apply_view(np.ascontiguousarray(responses, dtype=np.float32)[None], "logprob")[0]


# What is read --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("queries", "outputs"), SIZES)
@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0, 100.0])
def test_logits_of_any_scale_are_logits_and_stay_as_they_are(queries, outputs, scale, dtype):
    base = gaussian(queries, outputs, scale)
    for logits in (base, scale * heavy_tailed(queries, outputs), base + 50 * scale, np.maximum(base, 0)):
        form = read(logits.astype(dtype))
        assert form.kind == "logits"
        np.testing.assert_array_equal(undo_form(logits.astype(dtype), form), logits.astype(dtype))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("queries", "outputs"), SIZES)
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 10.0, 30.0])
def test_probabilities_of_any_confidence_are_whole_probabilities(queries, outputs, scale, dtype):
    form = read(softmax(trained_logits(queries, outputs, scale).astype(dtype)))
    assert form == Form(kind="probabilities", outputs=outputs)


def test_single_precision_one_hot_is_one_hot_only_where_it_is_exactly():
    p = softmax(trained_logits(50, 10, 30.0)).astype(np.float32)
    assert (p.max(axis=1) == 1).mean() > 0.8
    assert read(p).kind == "probabilities"
    exact = one_hot(p)
    assert read(exact).kind == "one-hot"
    exact[3], exact[7] = 0.1, 0.1  # two honest rows show that more than labels is told
    assert read(exact).kind == "probabilities"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: 100 * p, {"kind": "percent", "scale": 100.0}),
        (lambda p: np.round(100 * p), {"kind": "percent", "scale": 100.0, "decimals": 0}),
        (lambda p: np.round(100 * p, 1), {"kind": "percent", "scale": 100.0, "decimals": 1}),
        (lambda p: np.round(p, 4), {"kind": "probabilities", "decimals": 4}),
        (lambda p: np.round(p, 2), {"kind": "probabilities", "decimals": 2}),
        (lambda p: np.round(p, 1), {"kind": "probabilities", "decimals": 1}),
        (lambda p: np.clip(p, 0.01, 0.99), {"kind": "probabilities", "clipped": (0.01, 0.99)}),
        (lambda p: top(p, 3), {"kind": "probabilities", "top": 3, "complete": False}),
        (lambda p: top(p, 1), {"kind": "probabilities", "top": 1, "complete": False}),
        (lambda p: 100 * top(p, 2), {"kind": "percent", "scale": 100.0, "top": 2, "complete": False}),
        (lambda p: top(p, 3) / top(p, 3).sum(1, keepdims=True), {"kind": "probabilities", "top": 3}),
        (lambda p: 255 * p, {"kind": "probabilities", "scale": 255.0}),
        (np.log, {"kind": "log-probabilities"}),
        (one_hot, {"kind": "one-hot"}),
        (lambda p: p.argmax(axis=1), {"kind": "labels", "outputs": 1}),
    ],
)
def test_each_form_is_read_as_what_it_is(change, expected, dtype):
    form = read(change(softmax(trained_logits(60, 10, 1.5))).astype(dtype))
    assert form == Form(**({"outputs": 10} | expected))


@pytest.mark.parametrize("low", [-1.0, 0.01])
def test_labels_in_any_two_numbers_are_one_hot_and_say_so(low):
    labels = one_hot(gaussian(30, 5, 1.0))
    form = read(np.where(labels == 1, 1 - abs(low) * (low > 0), low))
    assert form.kind == "one-hot"
    assert "written as" in str(form)
    np.testing.assert_array_equal(
        undo_form(np.where(labels == 1, 1.0, low), read(np.where(labels == 1, 1.0, low))), labels
    )


@pytest.mark.parametrize("name", ["wine", "cancer", "iris"])
@pytest.mark.parametrize("model", ["logistic", "bayes", "tree", "forest"])
@pytest.mark.parametrize("change", [*LOSSLESS, *LOSSY])
def test_answers_of_real_models_are_read_in_every_form_and_keep_their_best_class(name, model, change):
    p, _ = real_answers(name, model)
    sent = ({**LOSSLESS, **LOSSY}[change](p)).astype(np.float32)
    form = read(sent)
    assert form.is_distribution or form.kind == "one-hot"
    undone = undo_form(sent, form)
    kept = undone.argmax(axis=1) == sent.argmax(axis=1)
    assert kept.sum() >= len(p) - (change == "one entry -1e-9")


def test_forests_look_rounded_and_trees_like_labels_which_is_what_they_tell():
    assert read(real_answers("wine", "forest")[0]).decimals == 2
    assert read(real_answers("iris", "tree")[0]).kind == "one-hot"
    assert read(real_answers("wine", "logistic")[0]) == Form(kind="probabilities", outputs=3)


def test_smoothed_leaves_sum_to_one_and_count_as_no_clipping():
    leaves = softmax(np.round(trained_logits(60, 4, 1.0)))
    assert read(leaves).clipped is None


@pytest.mark.parametrize(("decimals", "seed"), [(2, 0), (1, 1), (2, 2), (3, 3)])
def test_rounded_numbers_repeat_without_being_clipped(decimals, seed):
    for outputs in (2, 3, 10, 100):
        form = read(np.round(softmax(gaussian(100, outputs, 0.5, seed)), decimals))
        assert form.clipped is None


# One bad row ---------------------------------------------------------------------------------------------------------


def _spoilt(rows, how):
    spoilt = np.array(rows, dtype=np.float64)
    if how == "slightly negative":
        spoilt[0, spoilt[0].argmin()] = -1e-9
    elif how == "negative":
        spoilt[1, 0] = -3.0
    elif how == "no sum":
        spoilt[2] *= 0.5
    elif how == "zeros":
        spoilt[3] = 0.0
    else:
        spoilt[4] = np.linspace(-1, 2, spoilt.shape[1])
    return spoilt


@pytest.mark.parametrize("how", ["slightly negative", "negative", "no sum", "zeros", "logits"])
@pytest.mark.parametrize("queries", [5, 20, 100])
@pytest.mark.parametrize(
    "change",
    [
        lambda p: p,
        lambda p: 100 * p,
        lambda p: np.round(100 * p),
        lambda p: np.round(p, 2),
        lambda p: np.clip(p, 0.01, 0.99),
        lambda p: top(p, 3),
        np.log,
        lambda p: np.log(p) + 2,
    ],
)
def test_one_bad_row_is_told_and_changes_nothing_for_the_others(change, queries, how):
    good = change(softmax(trained_logits(queries, 10, 2.0, 4)))
    form, spoilt = read(good), _spoilt(good, how)
    found = read(spoilt)
    assert (found.kind, found.decimals, found.clipped, found.top) == (form.kind, form.decimals, form.clipped, form.top)
    changed = np.any(spoilt != good, axis=1)
    np.testing.assert_allclose(undo_form(spoilt, found)[~changed], undo_form(good, form)[~changed], atol=1e-12)
    if how == "negative" and form.is_distribution:
        assert "1 of" in str(found)


def test_a_number_lifted_from_below_zero_gets_what_its_row_lacks():
    p = softmax(gaussian(20, 3, 1.0))
    sent = p.copy()
    sent[4, 1] = -1e-9
    np.testing.assert_allclose(undo_form(sent, read(sent)), p, atol=1e-12)


def test_many_bad_rows_are_another_form():
    p = softmax(gaussian(100, 5, 1.0))
    p[:30] -= 0.5
    assert read(p).kind == "logits"


# What the core makes of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("change", LOSSLESS)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_core_reads_lossless_forms_like_the_probabilities_themselves(change, scale, dtype):
    p = softmax(trained_logits(40, 10, scale))
    sent = LOSSLESS[change](p).astype(dtype)
    np.testing.assert_allclose(core(undo_form(sent, read(sent))), logs(p), atol=2e-3)


@given(
    queries=st.integers(5, 60),
    outputs=st.sampled_from([2, 3, 10, 100]),
    scale=st.floats(0.05, 20),
    change=st.sampled_from([*LOSSLESS, *LOSSY]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_undone_distributions_are_distributions_to_the_core(queries, outputs, scale, change, seed):
    p = softmax(trained_logits(queries, outputs, scale, seed))
    sent = {**LOSSLESS, **LOSSY}[change](p).astype(np.float32)
    form = read(sent)
    undone = undo_form(sent, form)
    assert undone.dtype == np.float64
    if form.kind not in ("logits", "log-probabilities"):
        assert (undone >= 0).all()
        np.testing.assert_allclose(undone.sum(axis=1), 1.0, atol=1e-9)
        np.testing.assert_allclose(core(undone), logs(undone), atol=1e-5)


@given(rows=st.integers(1, 40), outputs=st.integers(2, 12), alpha=st.floats(0.05, 20), seed=st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_dirichlet_rows_come_back_as_they_went(rows, outputs, alpha, seed):
    p = np.random.default_rng(seed).dirichlet(np.full(outputs, alpha), rows)
    np.testing.assert_allclose(logs(undo_form(p, read(p))), logs(p), atol=1e-5)


@given(rows=st.integers(5, 30), outputs=st.integers(2, 8), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_neither_the_order_of_rows_nor_of_columns_changes_the_form(rows, outputs, seed):
    random = np.random.default_rng(seed)
    sent = list({**LOSSLESS, **LOSSY}.values())[seed % 10](softmax(trained_logits(rows, outputs, 1.5, seed)))
    mixed = sent[random.permutation(rows)][:, random.permutation(outputs)]
    assert read(mixed) == read(sent)


def test_models_answer_in_their_own_form_and_are_read_as_the_core_reads_them():
    logits = trained_logits(20, 5, 2.0)
    both = np.stack([logits, softmax(logits)])
    np.testing.assert_allclose(as_probabilities(both), np.stack([softmax(logits)] * 2), atol=1e-12)


# Values and edges ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decimals", "unit"), [(2, 1.0), (0, 50.0), (-2, 3000.0), (1, 1.0)])
def test_rounding_of_values_is_found_and_values_stay_as_they_are(decimals, unit):
    values = np.round(gaussian(50, 3, unit), decimals)
    form = read_form(values.astype(np.float32), classes=False)
    assert form == Form(kind="values", outputs=3, decimals=decimals)
    np.testing.assert_array_equal(undo_form(values, form), values)
    assert read_form(gaussian(50, 3, unit).astype(np.float32), classes=False).decimals is None


def test_a_form_prints_in_one_line_and_as_json():
    form = read(np.round(100 * softmax(trained_logits(40, 10, 1.0))))
    assert str(form) == "percent, whole numbers"
    assert json.loads(json.dumps(form.to_dict()))["scale"] == 100
    spoilt = top(softmax(trained_logits(40, 10, 1.0)), 3)
    spoilt[0, 0] = -2
    assert (
        str(read(spoilt)) == "probabilities, the best 3 of 10 only; 1 of 40 rows no distribution, read like the others"
    )


def test_class_numbers_become_one_hot_and_others_are_refused():
    labels = np.array([0, 2, 1, 2, 0])
    np.testing.assert_array_equal(undo_form(labels, read(labels), outputs=3), np.eye(3)[labels])
    with pytest.raises(InputError, match="outputs="):
        undo_form(labels, read(labels))
    with pytest.raises(InputError, match="whole numbers in 0"):
        undo_form(labels, read(labels), outputs=2)
    with pytest.raises(InputError, match="class number"):
        read(np.array([0.5, 1.0]))


@pytest.mark.parametrize("wrong", [np.zeros((0, 3)), np.zeros((2, 2, 2)), np.full((3, 2), np.nan), [["a", "b"]]])
def test_what_is_no_answer_is_refused(wrong):
    with pytest.raises(InputError, match="answers must"):
        read(wrong)


def test_a_form_of_other_answers_is_refused():
    with pytest.raises(InputError, match="read from 4"):
        undo_form(np.ones((3, 5)), read(gaussian(10, 4, 1.0)))
