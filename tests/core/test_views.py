"""Views of the C core: values, gradients, invariances and refusals."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metav import _core

VIEWS = ["identity", "identity_round(2)", "logprob", "round(2)", "round(0)", "topk(1)", "topk(3)", "topk(9)", "label"]
CLASS_VIEWS = [view for view in VIEWS if not view.startswith("identity")]
FORMS = ["logits", "probabilities"]


def make_responses(form: str, shape: tuple[int, int, int] = (3, 4, 6), seed: int = 0) -> NDArray[np.float32]:
    """Random answers (M, N, K) as logits or as probabilities."""
    values = np.random.default_rng(seed).normal(scale=2.0, size=shape)
    if form == "probabilities":
        values = np.exp(values) / np.exp(values).sum(axis=2, keepdims=True)
    return values.astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("view", VIEWS)
def test_features_equal_the_float64_twin(view: str, form: str) -> None:
    responses = make_responses(form)
    features = _core.apply_view(responses, view)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, reference.apply_view(responses, view), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("view", VIEWS)
def test_gradient_equals_finite_differences_of_the_twin(view: str, form: str) -> None:
    responses = make_responses(form, seed=1)
    feature_gradient = np.random.default_rng(2).normal(size=responses.shape).astype(np.float32)
    surrogate = reference.surrogate_view(responses, view)
    expected = reference.numeric_gradient(lambda r: float((feature_gradient * surrogate(r)).sum()), responses, 1e-7)
    actual = _core.view_gradient(responses, feature_gradient, view)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


def test_logprob_gradient_is_zero_where_the_floor_holds() -> None:
    responses = np.array([[[0.0, -30.0, -40.0], [2.0, 1.0, -50.0]]], dtype=np.float32)
    feature_gradient = np.zeros_like(responses)
    feature_gradient[0, :, 2] = 1.0
    assert (_core.apply_view(responses, "logprob")[0, :, 2] == np.float32(np.log(1e-5))).all()
    assert (_core.view_gradient(responses, feature_gradient, "logprob") == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    outputs=st.integers(2, 12),
    shift=st.floats(-20, 20),
    view=st.sampled_from(["logprob", "topk(1)", "topk(2)", "label"]),
)
def test_logits_log_probabilities_and_probabilities_give_the_same_features(
    seed: int, outputs: int, shift: float, view: str
) -> None:
    logits = np.random.default_rng(seed).normal(scale=3.0, size=(2, 3, outputs))
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    forms = (logits + shift, log_probabilities, np.exp(log_probabilities))
    features = [_core.apply_view(form.astype(np.float32), view) for form in forms]
    np.testing.assert_allclose(features[0], features[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features[1], features[2], rtol=1e-4, atol=1e-4)


def test_rounded_probabilities_still_count_as_probabilities() -> None:
    p = make_responses("probabilities", (1, 5, 10), seed=3)
    rounded = np.round(p, 2)
    expected = np.log(np.maximum(rounded / rounded.sum(axis=2, keepdims=True), 1e-5))
    np.testing.assert_allclose(_core.apply_view(rounded, "logprob"), expected, rtol=1e-5, atol=1e-5)


def test_one_row_that_is_no_distribution_makes_the_model_answer_logits() -> None:
    responses = make_responses("probabilities", (2, 3, 4), seed=4)
    responses[1, 2] *= 3
    features = _core.apply_view(responses, "logprob")
    np.testing.assert_allclose(features, reference.apply_view(responses, "logprob"), rtol=1e-5)
    assert not np.allclose(np.exp(features[1, 0]), responses[1, 0], atol=1e-3)
    np.testing.assert_allclose(np.exp(features[0]), responses[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("view", CLASS_VIEWS)
def test_extreme_logits_stay_finite(view: str) -> None:
    responses = np.array([[[3e38, -3e38, 0.0], [1e30, 1e30, 1e30]]], dtype=np.float32)
    assert np.isfinite(_core.apply_view(responses, view)).all()
    assert np.isfinite(_core.view_gradient(responses, np.ones_like(responses), view)).all()


def test_ties_go_to_the_lower_index() -> None:
    responses = np.array([[[1.0, 3.0, 3.0, 0.0]]], dtype=np.float32)
    assert _core.apply_view(responses, "label")[0, 0].tolist() == [0, 1, 0, 0]
    top = _core.apply_view(responses, "topk(1)")[0, 0]
    assert top[1] > top[2] == top[0] == top[3]


@pytest.mark.parametrize("view", VIEWS)
def test_models_are_viewed_independently(view: str) -> None:
    responses = make_responses("logits", seed=5)
    order = np.array([2, 0, 1])
    whole = _core.apply_view(responses, view)
    np.testing.assert_array_equal(_core.apply_view(responses[order], view), whole[order])
    np.testing.assert_array_equal(_core.apply_view(responses[1:2].copy(), view), whole[1:2])


def test_out_is_filled_and_returned() -> None:
    responses = make_responses("logits")
    out = np.empty_like(responses)
    assert _core.apply_view(responses, "logprob", out=out) is out
    np.testing.assert_array_equal(out, _core.apply_view(responses, "logprob"))


@pytest.mark.parametrize(
    ("view", "match"),
    [
        ("softmax", "unknown view"),
        ("", "unknown view"),
        ("logprob(1)", "unknown view"),
        ("round", "unknown view"),
        ("round()", "unknown view"),
        ("round(-1)", "unknown view"),
        ("round(2) ", "unknown view"),
        ("round(9)", "out of range"),
        ("round(99999999999999999999)", "out of range"),
        ("topk(0)", "out of range"),
    ],
)
def test_an_unknown_view_is_refused(view: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        _core.apply_view(make_responses("logits"), view)


@pytest.mark.parametrize("view", CLASS_VIEWS)
def test_class_views_need_two_outputs(view: str) -> None:
    with pytest.raises(ValueError, match="at least 2 outputs"):
        _core.apply_view(np.zeros((1, 1, 1), dtype=np.float32), view)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    responses = make_responses("logits")
    broken = responses.copy()
    broken[2, 3, 5] = bad
    with pytest.raises(ValueError, match="responses contain NaN or infinity"):
        _core.apply_view(broken, "identity")
    with pytest.raises(ValueError, match=r"feature_gradient.*NaN or infinity"):
        _core.view_gradient(responses, broken, "identity")


def test_the_table_tells_what_each_view_reads() -> None:
    table = _core.views()
    assert list(table) == ["identity", "identity_round", "logprob", "round", "topk", "label"]
    assert {name for name, view in table.items() if view["parameter"]} == {"identity_round", "round", "topk"}
    assert {name for name, view in table.items() if not view["reads_classes"]} == {"identity", "identity_round"}
    assert {name for name, view in table.items() if view["reads_labels"]} == {"label"}
    for view in VIEWS:
        assert table[view.partition("(")[0]]["parameter"] == ("(" in view)


@pytest.mark.parametrize("name", list(_core.views()))
def test_a_view_is_what_its_traits_say(name: str) -> None:
    """Only one that reads labels alone gives the same features to answers with the same best class."""
    traits = _core.views()[name]
    view = f"{name}(1)" if traits["parameter"] else name
    responses = np.array([[[4.0, 1.0, 0.0], [0.3, 5.0, 2.0]]], dtype=np.float32)
    others = np.array([[[9.0, 0.0, 0.0], [3.0, 5.0, 4.7]]], dtype=np.float32)
    assert np.array_equal(_core.apply_view(responses, view), _core.apply_view(others, view)) == traits["reads_labels"]
    alone = np.full((1, 1, 1), 7, np.float32)
    if traits["reads_classes"]:
        with pytest.raises(ValueError, match="at least 2 outputs"):
            _core.apply_view(alone, view)
    else:
        assert _core.apply_view(alone, view) == 7
    with pytest.raises(ValueError, match=f"unknown view; use .*{name}"):
        _core.apply_view(responses, name if traits["parameter"] else f"{name}(1)")


def test_empty_responses_are_refused() -> None:
    with pytest.raises(ValueError, match=">= 1"):
        _core.apply_view(np.zeros((0, 2, 3), dtype=np.float32), "identity")
