"""Views of the C core: values, gradients, invariances and refusals."""

import numpy as np
import pytest
import reference
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metav import _core

VIEWS = ["identity", "identity_round(2)", "logprob", "round(2)", "round(0)", "topk(1)", "topk(3)", "topk(9)", "label"]
VIEWS += ["relative", "tempered"]
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
    view=st.sampled_from(["logprob", "topk(1)", "topk(2)", "label", "relative", "tempered"]),
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


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def amplified(view: str, logits: NDArray[np.float64]) -> float:
    """How many times an error of relative features, logits (N, K), is in the view (d q^(1/4) = q^(1/4) factor / 4)."""
    if view == "relative":
        return 1.0
    u = reference.relative(logits, False)
    factor = reference.tempered_factor(u)
    if factor >= reference.LARGEST_FACTOR:
        return factor / 4
    steps = 1e-6 * np.random.default_rng(0).choice([-1, 1], (50, *u.shape))  # the factor moves with u, too
    moved = max(abs(reference.tempered_factor(u + step) - factor) for step in steps) / 1e-6
    return max(1.0, factor / 4 + moved * float(np.abs(u).max()) / 4)


@pytest.mark.parametrize("view", ["relative", "tempered"])
@example(seed=13, queries=1, outputs=12, temperature=177.0, form="probabilities")
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 5),
    outputs=st.integers(2, 20),
    temperature=st.floats(0.2, 1000),
    form=st.sampled_from(FORMS),
)
def test_features_are_the_same_at_every_temperature(
    view: str, seed: int, queries: int, outputs: int, temperature: float, form: str
) -> None:
    """As far as float32 holds the answers: a high temperature makes them alike."""
    logits = np.random.default_rng(seed).normal(scale=3.0, size=(1, queries, outputs))
    spread = (logits - logits.mean(axis=2, keepdims=True)).std()
    coldest = softmax(logits / min(1.0, temperature))
    assume(spread / temperature > 1e-5 and (form == "logits" or coldest.min() > reference.RELATIVE_FLOOR))
    answers = [logits, logits / temperature] if form == "logits" else [softmax(logits), softmax(logits / temperature)]
    warm, cold = (_core.apply_view(numbers.astype(np.float32), view) for numbers in answers)
    rounding = 4e-7 * (np.abs(logits).max() + max(1.0, temperature)) / spread * amplified(view, logits[0])
    np.testing.assert_allclose(cold, warm, rtol=1e-6, atol=max(rounding, 1e-6))


@pytest.mark.parametrize("view", ["relative", "tempered"])
@pytest.mark.parametrize("factor", [2.0**-20, 0.5, 4.0, 2.0**100])
def test_features_of_multiplied_logits_are_the_same_bit_for_bit(factor: float, view: str) -> None:
    """A power of two changes no digit of a logit, so that nothing is rounded differently."""
    responses = make_responses("logits", seed=7)
    np.testing.assert_array_equal(
        _core.apply_view(responses * np.float32(factor), view), _core.apply_view(responses, view)
    )


@example(seed=309, queries=1, outputs=14)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), queries=st.integers(1, 9), outputs=st.integers(2, 40))
def test_tempered_features_are_roots_of_probabilities_of_one_confidence(seed: int, queries: int, outputs: int) -> None:
    responses = make_responses("logits", (3, queries, outputs), seed)
    probabilities = _core.apply_view(responses, "tempered").astype(np.float64) ** 4
    np.testing.assert_allclose(probabilities.sum(axis=2), 1, rtol=1e-5)
    wanted = 1 / outputs + 0.65 * (1 - 1 / outputs)
    factors = np.array(
        [reference.tempered_factor(reference.relative(model, False)) for model in responses.astype(float)]
    )
    reached = factors < reference.LARGEST_FACTOR  # two classes of one row may be too near each other
    np.testing.assert_allclose(probabilities.max(axis=2).mean(axis=1)[reached], wanted, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=2), responses.argmax(axis=2))


def test_tempered_gradient_neither_shifts_nor_stretches_logits() -> None:
    responses = make_responses("logits", seed=8)
    gradient = _core.view_gradient(responses, make_responses("logits", seed=9), "tempered").astype(np.float64)
    np.testing.assert_allclose(gradient.sum(axis=2), 0, atol=1e-6)
    np.testing.assert_allclose((gradient * responses).sum(axis=(1, 2)), 0, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, -7.1])
def test_a_model_that_is_never_sure_of_one_class_has_the_largest_factor(value: float) -> None:
    """Its two best classes tie in every row, so that no temperature makes it sure."""
    constant = np.full((1, 3, 4), value, dtype=np.float32)
    np.testing.assert_allclose(_core.apply_view(constant, "tempered"), 0.25**0.25, rtol=1e-6)
    tied = np.tile(np.array([2.0, 2.0, 0.0, -1.0], dtype=np.float32), (1, 3, 1))
    features = _core.apply_view(tied, "tempered")
    np.testing.assert_allclose(features, reference.apply_view(tied, "tempered"), atol=1e-6)
    np.testing.assert_allclose(features[..., :2], 0.5**0.25, rtol=1e-6)
    for responses in (constant, tied):
        assert np.isfinite(_core.view_gradient(responses, make_responses("logits", (1, 3, 4)), "tempered")).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), queries=st.integers(1, 9), outputs=st.integers(2, 40))
def test_relative_features_are_centred_and_of_unit_size(seed: int, queries: int, outputs: int) -> None:
    features = _core.apply_view(make_responses("logits", (3, queries, outputs), seed), "relative").astype(np.float64)
    np.testing.assert_allclose(features.sum(axis=2), 0, atol=1e-6 * outputs)
    np.testing.assert_allclose((features**2).mean(axis=(1, 2)), 1, rtol=1e-6)


def test_relative_gradient_neither_shifts_nor_stretches_logits() -> None:
    """What leaves the features as they are has no slope: a number added to a row, a factor of all logits."""
    responses = make_responses("logits", seed=8)
    gradient = _core.view_gradient(responses, make_responses("logits", seed=9), "relative").astype(np.float64)
    np.testing.assert_allclose(gradient.sum(axis=2), 0, atol=1e-6)
    np.testing.assert_allclose((gradient * responses).sum(axis=(1, 2)), 0, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5, 10), (2, 4, 33), (2, 3, 129), (1, 1, 2)])
@pytest.mark.parametrize("form", FORMS)
def test_relative_gradient_equals_autograd(form: str, shape: tuple[int, int, int]) -> None:
    torch = pytest.importorskip("torch")
    responses = make_responses(form, shape, seed=10)
    weights = make_responses("logits", shape, seed=11)
    r = torch.tensor(responses, dtype=torch.float64, requires_grad=True)
    logs = torch.log_softmax(r, dim=2) if form == "logits" else torch.log(r / r.sum(dim=2, keepdim=True))
    centred = logs - logs.mean(dim=2, keepdim=True)
    features = centred / centred.square().mean(dim=(1, 2), keepdim=True).sqrt()
    (features * torch.tensor(weights)).sum().backward()
    actual = _core.view_gradient(responses, weights, "relative")
    np.testing.assert_allclose(_core.apply_view(responses, "relative"), features.detach().numpy(), rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(actual, r.grad.numpy(), rtol=1e-4, atol=1e-6 * max(1.0, float(r.grad.abs().max())))


@pytest.mark.parametrize("outputs", [2, 3, 10, 33])
@pytest.mark.parametrize("form", FORMS)
def test_a_constant_model_has_relative_features_of_zero(form: str, outputs: int) -> None:
    value = 1 / outputs if form == "probabilities" else -7.1
    responses = np.full((2, 5, outputs), value, dtype=np.float32)
    assert (_core.apply_view(responses, "relative") == 0).all()
    gradient = _core.view_gradient(responses, make_responses("logits", responses.shape), "relative")
    assert np.isfinite(gradient).all()
    assert gradient.any()


def test_relative_counts_tiny_probabilities_as_its_floor() -> None:
    responses = np.array([[[1.0, 0.0, 1e-38], [0.5, 0.25, 0.25]]], dtype=np.float32)
    floor = float(np.log(reference.RELATIVE_FLOOR))
    centred = np.array([[-2 * floor, floor, floor], [2 * np.log(2), -np.log(2), -np.log(2)]]) / 3
    expected = centred / np.sqrt((centred**2).mean())
    np.testing.assert_allclose(_core.apply_view(responses, "relative")[0], expected, rtol=1e-6)
    gradient = _core.view_gradient(responses, make_responses("logits", responses.shape), "relative")
    assert (gradient[0, 0, 1:] == 0).all()
    assert (gradient[0, 1] != 0).all()


def test_rounded_probabilities_still_count_as_probabilities() -> None:
    p = make_responses("probabilities", (1, 5, 10), seed=3)
    rounded = np.round(p, 2)
    expected = np.log(np.maximum(rounded / rounded.sum(axis=2, keepdims=True), 1e-5))
    np.testing.assert_allclose(_core.apply_view(rounded, "logprob"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("view", ["logprob", "relative"])
def test_one_row_that_is_no_distribution_makes_the_model_answer_logits(view: str) -> None:
    responses = make_responses("probabilities", (2, 3, 4), seed=4)
    responses[1, 2] *= 3
    features = _core.apply_view(responses, view)
    np.testing.assert_allclose(features, reference.apply_view(responses, view), rtol=1e-5)
    if view == "relative":
        spread = responses[1] - responses[1].mean(axis=1, keepdims=True)
        np.testing.assert_allclose(features[1], spread / np.sqrt((spread**2).mean()), rtol=1e-5)
        return
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
    assert list(table) == ["identity", "identity_round", "logprob", "round", "topk", "label", "relative", "tempered"]
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
