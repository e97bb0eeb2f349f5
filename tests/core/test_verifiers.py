"""Verifiers of the C core against the float64 twin, autograd, AdamW and their own laws."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metav import _core

KINDS: list[_core.VerifierKind] = ["mlp", "local", "matched"]
ROLES = bytes([2, 1, 1, 0, 0, 0, 1])
MODELS, QUERIES, OUTPUTS = len(ROLES), 4, 3
NEGATIVES = [index for index, role in enumerate(ROLES) if role == _core.ROLE_NEGATIVE]

FloatArray = NDArray[np.float32]


def make_responses(models: int = MODELS, seed: int = 0) -> FloatArray:
    """Raw responses (models, 4, 3) with a scale and an offset."""
    return np.random.default_rng(seed).normal(1.0, 2.0, size=(models, QUERIES, OUTPUTS)).astype(np.float32)


def make_verifier(
    kind: _core.VerifierKind, responses: FloatArray, *, view: str = "identity", seed: int = 3
) -> _core.Verifier:
    """A standardised verifier, fitted where the kind wants it."""
    verifier = _core.Verifier(kind, *responses.shape[1:], view=view, hidden=5, seed=seed)
    verifier.standardize(responses)
    if kind == "matched":
        verifier.fit_closed_form(responses[0], responses[NEGATIVES])
    return verifier


def twin_loss(
    verifier: _core.Verifier,
    responses: Any,
    *,
    roles: bytes = ROLES,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    features: Any = None,
    augmentation: reference.Augmentation | None = None,
) -> float:
    """The loss of the float64 twin with the verifier's parameters."""
    own = verifier.parameters()
    viewed = reference.apply_view(responses, verifier.view) if features is None else features(responses)
    z = (viewed - own["shift"]) / own["scale"]
    if augmentation is not None:
        z = augmentation(z, roles)
    return reference.three_term_loss(reference.unit_logits(verifier.kind, own, z), roles, weights)


# Values --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", ["identity", "logprob", "label", "relative", "tempered"])
def test_scores_and_logits_equal_the_float64_twin(kind: _core.VerifierKind, view: str) -> None:
    responses = make_responses()
    verifier = make_verifier(kind, responses, view=view)
    features = reference.apply_view(responses, view)
    own = verifier.parameters()
    np.testing.assert_allclose(verifier.scores(responses), reference.scores(kind, own, features), rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(verifier.logits(responses), reference.logits(kind, own, features), rtol=2e-4, atol=1e-4)


def test_standardization_equals_the_float64_twin() -> None:
    responses = make_responses()
    responses[:, :, 1] = 0.25  # a constant output falls to the floor
    verifier = make_verifier("local", responses)
    shift, scale = reference.standardization(responses.astype(np.float64))
    np.testing.assert_allclose(verifier.parameters()["shift"], shift, rtol=1e-6)
    np.testing.assert_allclose(verifier.parameters()["scale"], scale, rtol=1e-5)
    assert scale[1] < 0.01 * scale[0]


def test_shift_and_scale_start_neutral() -> None:
    own = _core.Verifier("mlp", 2, 3).parameters()
    assert (own["shift"] == 0).all()
    assert (own["scale"] == 1).all()


def test_he_initialisation_has_the_right_spread() -> None:
    own = _core.Verifier("mlp", 50, 10, hidden=64, seed=1).parameters()
    assert own["weight1"].std() == pytest.approx(np.sqrt(2 / 500), rel=0.03)
    assert abs(own["weight1"].mean()) < 4 * np.sqrt(2 / 500 / 32000)
    assert (own["bias1"] == 0).all()


def test_closed_form_equals_the_written_out_covariance() -> None:
    responses = make_responses(12, seed=5)
    verifier = _core.Verifier("matched", QUERIES, OUTPUTS)
    verifier.standardize(responses)
    verifier.fit_closed_form(responses[0], responses[1:], shrinkage=0.3, floor=0.05)
    own = {name: value.astype(np.float64) for name, value in verifier.parameters().items()}
    z = ((responses - own["shift"]) / own["scale"]).reshape(12, -1)
    expected = reference.fit_matched(z[0], z[1:], 0.3, 0.05)
    inverse = np.diag(own["precision"].ravel()) - own["factor"] @ own["factor"].T
    np.testing.assert_allclose(own["mean"].ravel(), expected["mean"], atol=1e-5)
    np.testing.assert_allclose(inverse, expected["inverse"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(own["filter"].ravel(), expected["filter"], rtol=1e-4, atol=1e-5)
    assert verifier.logits(responses[:1])[0] == pytest.approx(7.0, abs=1e-3)  # cosine 1, gain 10, bias -3


def test_closed_form_with_full_shrinkage_is_a_diagonal_filter() -> None:
    responses = make_responses(6, seed=6)
    verifier = _core.Verifier("matched", QUERIES, OUTPUTS)
    verifier.fit_closed_form(responses[0], responses[1:], shrinkage=1.0, floor=0.0)
    own = verifier.parameters()
    assert (own["factor"] == 0).all()
    np.testing.assert_allclose(own["precision"], 1 / responses[1:].astype(np.float64).var(axis=0), rtol=1e-4)


# Gradients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "view", ["identity", "identity_round(1)", "logprob", "round(2)", "topk(1)", "label", "relative", "tempered"]
)
def test_response_gradient_equals_finite_differences_of_the_twin(kind: _core.VerifierKind, view: str) -> None:
    responses = make_responses()
    verifier = make_verifier(kind, responses, view=view)
    weights = (0.5, 1.5, 2.0)
    gradient = np.full_like(responses, np.nan)
    loss = verifier.step(responses, ROLES, gradient=gradient, weights=weights, update=False)
    assert loss == pytest.approx(twin_loss(verifier, responses, weights=weights), rel=1e-4)

    hard = reference.apply_view(responses, view)
    soft = reference.surrogate_view(responses, view)
    offset = hard - soft(responses.astype(np.float64))
    expected = reference.numeric_gradient(
        lambda r: twin_loss(verifier, r, weights=weights, features=lambda x: soft(x) + offset), responses
    )
    np.testing.assert_allclose(gradient, expected, rtol=5e-3, atol=5e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_parameter_gradient_equals_finite_differences_of_the_twin(kind: _core.VerifierKind) -> None:
    """The first Adam step moves by the sign of the gradient; its size stands in the ratio to a tiny weight decay."""
    responses = make_responses()
    verifier = make_verifier(kind, responses)
    before = verifier.parameters()
    names = [name for name in before if name in {"weight1", "bias1", "weight2", "bias2", "weight", "bias", "gain"}]
    z = (responses - before["shift"]) / before["scale"]
    verifier.step(responses, ROLES, learning_rate=1e-3)
    after = verifier.parameters()
    for name in names:

        def loss(value: Any, name: str = name) -> float:
            units = reference.unit_logits(kind, {**before, name: value}, z.astype(np.float64))
            return reference.three_term_loss(units, ROLES, (1.0, 1.0, 1.0))

        gradient = reference.numeric_gradient(loss, before[name])
        clear = np.abs(gradient) > 1e-5
        expected = -1e-3 * gradient / (np.abs(gradient) + 1e-8)
        np.testing.assert_allclose((after[name] - before[name])[clear], expected[clear], atol=3e-6, err_msg=name)
        assert clear.any(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{"mix": 0.5}, {"noise": 0.3}, {"dropout": 0.4}, {"mix": 1.0, "noise": 0.1, "dropout": 0.2}]
)
def test_augmentation_equals_the_twin_in_loss_and_gradient(kind: _core.VerifierKind, options: dict[str, Any]) -> None:
    responses = make_responses()
    verifier = make_verifier(kind, responses, seed=11)
    verifier.step(responses, ROLES)
    augmentation = reference.Augmentation(seed=11, step=1, **options)
    gradient = np.zeros_like(responses)
    loss = verifier.step(responses, ROLES, gradient=gradient, update=False, **options)
    assert loss == pytest.approx(twin_loss(verifier, responses, augmentation=augmentation), rel=1e-4)
    expected = reference.numeric_gradient(lambda r: twin_loss(verifier, r, augmentation=augmentation), responses)
    np.testing.assert_allclose(gradient, expected, rtol=5e-3, atol=5e-4 * np.abs(expected).max())


def test_mixing_needs_a_negative() -> None:
    responses = make_responses(2)
    verifier = _core.Verifier("mlp", QUERIES, OUTPUTS)
    assert verifier.step(responses, b"\x02\x01", mix=1.0, update=False) == verifier.step(
        responses, b"\x02\x01", update=False
    )


@pytest.mark.parametrize("kind", KINDS)
def test_equal_states_augment_equally_and_updates_change_the_augmentation(kind: _core.VerifierKind) -> None:
    responses = make_responses()
    verifier = make_verifier(kind, responses)
    options: dict[str, Any] = {"mix": 0.5, "noise": 0.2, "dropout": 0.2}
    first = verifier.step(responses, ROLES, update=False, **options)
    assert verifier.step(responses, ROLES, update=False, **options) == first
    assert verifier.copy().step(responses, ROLES, update=False, **options) == first
    assert verifier.steps == 0
    verifier.step(responses, ROLES, learning_rate=0.0)
    assert verifier.steps == 1
    assert verifier.step(responses, ROLES, update=False, **options) != first


def test_gradient_and_training_equal_pytorch() -> None:
    """Twenty joint steps of the mlp on log-probabilities: autograd and torch.optim.AdamW in float64."""
    torch = pytest.importorskip("torch")
    responses = make_responses()
    verifier = make_verifier("mlp", responses, view="logprob")
    own = {name: torch.tensor(value, dtype=torch.float64) for name, value in verifier.parameters().items()}
    trained = [own[name].requires_grad_() for name in ("weight1", "bias1", "weight2", "bias2")]
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.1)
    role = torch.tensor(list(ROLES))
    gradient = np.zeros_like(responses)
    for _ in range(20):
        r = torch.tensor(responses, dtype=torch.float64, requires_grad=True)
        features = torch.log_softmax(r, dim=2).clamp(min=float(np.log(1e-5)))
        z = ((features - own["shift"]) / own["scale"]).flatten(1)
        logits = torch.relu(z @ own["weight1"] + own["bias1"]) @ own["weight2"] + own["bias2"]
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, (role > 0).double(), reduction="none")
        loss = 2 * losses[role == 2].mean() + losses[role == 1].mean() + losses[role == 0].mean()
        optimizer.zero_grad()
        loss.backward()
        actual = verifier.step(
            responses, ROLES, gradient=gradient, learning_rate=0.01, weights=(2, 1, 1), weight_decay=0.1
        )
        assert actual == pytest.approx(loss.item(), rel=1e-3)
        np.testing.assert_allclose(gradient, r.grad.numpy(), rtol=1e-2, atol=1e-4)
        optimizer.step()
    for name in ("weight1", "bias1", "weight2", "bias2"):
        np.testing.assert_allclose(verifier.parameters()[name], own[name].detach().numpy(), atol=2e-4)


def test_local_units_train_like_logistic_regressions() -> None:
    """Each query's unit minimises a loss of its own: the optimum of scikit-learn's LogisticRegression on that query."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(0)
    labels = np.repeat([1, 0], 40)
    responses = (generator.normal(size=(80, 2, 3)) + 0.7 * labels[:, None, None]).astype(np.float32)
    verifier = _core.Verifier("local", 2, 3)
    for _ in range(3000):
        verifier.step(responses, bytes(labels.tolist()), learning_rate=0.02)
    own = verifier.parameters()
    for query in range(2):
        model = linear_model.LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(responses[:, query], labels)
        np.testing.assert_allclose(own["weight"][query], model.coef_[0], atol=0.02)
        np.testing.assert_allclose(own["bias"][query], model.intercept_[0], atol=0.02)


# Laws ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 1000), order=st.permutations(range(MODELS)))
def test_permuting_models_permutes_scores_and_gradients(kind: _core.VerifierKind, seed: int, order: list[int]) -> None:
    responses = make_responses(seed=seed)
    verifier = make_verifier(kind, responses)
    gradient, permuted_gradient = np.zeros_like(responses), np.zeros_like(responses)
    loss = verifier.step(responses, ROLES, gradient=gradient, update=False)
    permuted = responses[order]
    roles = bytes(ROLES[index] for index in order)
    assert verifier.step(permuted, roles, gradient=permuted_gradient, update=False) == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(permuted_gradient, gradient[order], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(verifier.scores(permuted), verifier.scores(responses)[order])


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(KINDS), role=st.sampled_from([0, 1, 2]), copies=st.integers(2, 4))
def test_duplicating_a_class_leaves_the_loss(kind: _core.VerifierKind, role: int, copies: int) -> None:
    responses = make_responses()
    verifier = make_verifier(kind, responses)
    repeats = [copies if own == role else 1 for own in ROLES]
    duplicated = np.repeat(responses, repeats, axis=0)
    roles = bytes(np.repeat(np.frombuffer(ROLES, dtype=np.uint8), repeats))
    loss = verifier.step(responses, ROLES, update=False)
    assert verifier.step(duplicated, roles, update=False) == pytest.approx(loss, rel=1e-6)


def test_a_class_without_rows_contributes_nothing() -> None:
    responses = make_responses(3)
    verifier = make_verifier("mlp", make_responses())
    own = verifier.step(responses, b"\x01\x01\x01", weights=(5.0, 1.0, 7.0), update=False)
    assert own == verifier.step(responses, b"\x01\x01\x01", weights=(0.0, 1.0, 0.0), update=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("models", [1, 2, 5, 400])
def test_scores_do_not_depend_on_the_batch(kind: _core.VerifierKind, models: int) -> None:
    responses = make_responses(models, seed=8)
    verifier = make_verifier(kind, make_responses())
    whole = verifier.scores(responses)
    single = [verifier.scores(responses[index : index + 1].copy())[0] for index in range(min(models, 20))]
    np.testing.assert_array_equal(whole[:20], single)


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss(kind: _core.VerifierKind) -> None:
    responses = make_responses()
    verifier = make_verifier(kind, responses)
    first = verifier.step(responses, ROLES, learning_rate=0.02)
    for _ in range(200):
        last = verifier.step(responses, ROLES, learning_rate=0.02)
    assert last < 0.7 * first


def test_the_seed_decides_the_initialisation() -> None:
    weights = [_core.Verifier("mlp", 2, 3, seed=seed).parameters()["weight1"] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


# Tables --------------------------------------------------------------------------------------------------------------


def test_the_table_tells_what_the_kinds_are() -> None:
    table = _core.verifier_kinds()
    assert list(table) == KINDS
    assert [name for name, kind in table.items() if kind["closed_form"]] == ["matched"]
    assert [name for name, kind in table.items() if kind["preferred"]] == ["mlp"]
    assert [name for name, kind in table.items() if kind["pairs_with_owner"]] == ["mlp"]


@pytest.mark.parametrize("kind", list(_core.verifier_kinds()))
def test_only_kinds_with_a_closed_form_are_fitted_by_it(kind: _core.VerifierKind) -> None:
    responses = make_responses()
    verifier = _core.Verifier(kind, QUERIES, OUTPUTS)
    if _core.verifier_kinds()[kind]["closed_form"]:
        verifier.fit_closed_form(responses[0], responses[1:])
        assert np.isfinite(verifier.scores(responses)).all()
    else:
        with pytest.raises(RuntimeError, match="closed form"):
            verifier.fit_closed_form(responses[0], responses[1:])


@pytest.mark.parametrize("kind", list(_core.verifier_kinds()))
@pytest.mark.parametrize(("queries", "outputs", "options"), [(4, 3, {}), (1, 1, {"hidden": 1}), (9, 2, {"hidden": 7})])
def test_parameter_shapes_are_those_of_a_verifier(
    kind: _core.VerifierKind, queries: int, outputs: int, options: dict[str, int]
) -> None:
    shapes = _core.parameter_shapes(kind, queries, outputs, **options)
    parameters = _core.Verifier(kind, queries, outputs, **options).parameters()
    assert list(shapes) == list(parameters)
    for name, shape in shapes.items():
        actual = parameters[name].shape
        assert len(shape) == len(actual)
        assert all(size in (None, own) for size, own in zip(shape, actual, strict=True))
    assert {name for name, shape in shapes.items() if None in shape} == ({"factor"} if kind == "matched" else set())


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("svm", 2, 3), {}, ValueError),
        (("mlp", 0, 3), {}, ValueError),
        (("mlp", 2, -1), {}, ValueError),
        (("mlp", 2, 2.5), {}, TypeError),
        (("local", 2**40, 2**40), {}, ValueError),
        (("mlp", 2**20, 2**20), {"hidden": 2**30}, ValueError),
        (("mlp", 2, 3), {"hidden": 0}, ValueError),
        (("mlp",), {}, TypeError),
        (("mlp", 2, 3), {"seed": 1}, TypeError),
    ],
)
def test_shapes_are_refused_as_the_constructor_refuses(
    arguments: tuple[Any, ...], options: dict[str, int], error: type[Exception]
) -> None:
    with pytest.raises(error) as refused:
        _core.parameter_shapes(*arguments, **options)
    if error is ValueError:
        with pytest.raises(error) as expected:
            _core.Verifier(*arguments, **options)
        assert str(refused.value) == str(expected.value)


# State ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_continues_bit_for_bit_and_alone(kind: _core.VerifierKind) -> None:
    responses = make_responses()
    verifier = make_verifier(kind, responses, view="logprob")
    verifier.step(responses, ROLES)
    copy = verifier.copy()
    assert (copy.kind, copy.view, copy.hidden, copy.steps) == (kind, "logprob", 5, 1)
    losses = [verifier.step(responses, ROLES, noise=0.1) for _ in range(3)]
    assert copy.steps == 1
    assert [copy.step(responses, ROLES, noise=0.1) for _ in range(3)] == losses


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_parameters_give_the_same_scores_bit_for_bit(kind: _core.VerifierKind) -> None:
    responses = make_responses()
    verifier = make_verifier(kind, responses)
    verifier.step(responses, ROLES)
    other = _core.Verifier(kind, QUERIES, OUTPUTS, hidden=5, seed=99)
    other.load_parameters(verifier.parameters())
    np.testing.assert_array_equal(other.scores(responses), verifier.scores(responses))
    for name, value in verifier.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], value)


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_load_adam_starts_anew(kind: _core.VerifierKind) -> None:
    responses = make_responses()
    used = make_verifier(kind, responses)
    for _ in range(5):
        used.step(responses, ROLES, learning_rate=0.1)
    fresh = _core.Verifier(kind, QUERIES, OUTPUTS, hidden=5)
    for verifier in (used, fresh):
        verifier.load_parameters(make_verifier(kind, responses).parameters())
        verifier.step(responses, ROLES, learning_rate=0.1)
        verifier.step(responses[::-1].copy(), ROLES, learning_rate=0.1)
    assert (used.steps, fresh.steps) == (7, 2)
    for name, value in fresh.parameters().items():
        np.testing.assert_array_equal(used.parameters()[name], value)


def test_the_logit_of_a_saturated_mean_score_is_clamped() -> None:
    verifier = _core.Verifier("local", QUERIES, OUTPUTS)
    ones = np.ones((QUERIES, OUTPUTS), np.float32)
    verifier.load_parameters({**verifier.parameters(), "weight": 100 * ones})
    logits = verifier.logits(np.stack([ones, -ones]))
    np.testing.assert_allclose(logits, [np.log(1e7), -np.log(1e7)], rtol=1e-4)


@pytest.mark.parametrize("rank", [0, 1, 9])
def test_a_factor_of_any_rank_is_loaded(rank: int) -> None:
    responses = make_responses()
    verifier = make_verifier("matched", responses)
    factor = np.full((QUERIES * OUTPUTS, rank), 0.01, dtype=np.float32)
    parameters = {**verifier.parameters(), "factor": factor}
    verifier.load_parameters(parameters)
    np.testing.assert_array_equal(verifier.parameters()["factor"], factor)
    features = reference.apply_view(responses, "identity")
    np.testing.assert_allclose(
        verifier.scores(responses), reference.scores("matched", parameters, features), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"weight1": np.zeros((2, 2), np.float32)}, ValueError, r"weight1 has shape \(2, 2\)"),
        ({"weight1": np.zeros((12, 5))}, TypeError, "weight1 has dtype float64"),
        ({"bias2": np.array([np.nan], np.float32)}, ValueError, "bias2 must be finite"),
        ({"scale": np.zeros(3, np.float32)}, ValueError, "scale must be finite.*positive"),
        ({"weight": np.zeros((4, 3), np.float32)}, ValueError, "weight is not a parameter"),
        ({"bias2": None}, TypeError, "bias2 must be a float32 tensor"),
        ({3: np.zeros(1, np.float32)}, TypeError, "mapping from names"),
    ],
)
def test_a_refused_load_changes_nothing(change: dict[Any, Any], error: type[Exception], match: str) -> None:
    verifier = make_verifier("mlp", make_responses())
    before = verifier.parameters()
    with pytest.raises(error, match=match):
        verifier.load_parameters({**{name: value + 1 for name, value in before.items()}, **change})
    for name, value in verifier.parameters().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_load_must_be_complete() -> None:
    verifier = make_verifier("mlp", make_responses())
    parameters = verifier.parameters()
    del parameters["shift"]
    with pytest.raises(ValueError, match="shift is missing"):
        verifier.load_parameters(parameters)
    with pytest.raises(TypeError, match="mapping"):
        verifier.load_parameters(3)  # type: ignore[arg-type]


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_and_change_nothing(kind: _core.VerifierKind, bad: float) -> None:
    responses = make_responses()
    verifier = make_verifier(kind, responses)
    before = verifier.parameters()
    broken = responses.copy()
    broken[-1, -1, -1] = bad
    for call in (verifier.scores, verifier.logits, verifier.standardize, lambda r: verifier.step(r, ROLES)):
        with pytest.raises(ValueError, match="responses contain NaN or infinity"):
            call(broken)
    assert verifier.steps == 0
    for name, value in verifier.parameters().items():
        np.testing.assert_array_equal(value, before[name])


def test_the_closed_form_refuses_what_it_cannot_fit() -> None:
    responses = make_responses()
    verifier = _core.Verifier("matched", QUERIES, OUTPUTS)
    with pytest.raises(RuntimeError, match="fitted first"):
        verifier.scores(responses)
    with pytest.raises(ValueError, match="2 negatives"):
        verifier.fit_closed_form(responses[0], responses[:1])
    with pytest.raises(ValueError, match="mean negative"):
        verifier.fit_closed_form(responses[:2].mean(axis=0), responses[:2])
    with pytest.raises(ValueError, match="shrinkage"):
        verifier.fit_closed_form(responses[0], responses[1:], shrinkage=0.0)
    with pytest.raises(ValueError, match="owner has shape"):
        verifier.fit_closed_form(responses, responses)
    broken = responses.copy()
    broken[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="negatives contain NaN"):
        verifier.fit_closed_form(responses[0], broken)
    with pytest.raises(ValueError, match="owner contains NaN"):
        verifier.fit_closed_form(broken[1], responses)
    with pytest.raises(RuntimeError, match="'matched'"):
        _core.Verifier("mlp", QUERIES, OUTPUTS).fit_closed_form(responses[0], responses)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"mix": 1.5}, "mix in"),
        ({"noise": -0.1}, "noise"),
        ({"dropout": 1.0}, "dropout in"),
        ({"weight_decay": float("inf")}, "weight_decay"),
        ({"weights": (1.0, -1.0, 1.0)}, "weights"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make_verifier("mlp", make_responses()).step(make_responses(), ROLES, **options)


@pytest.mark.parametrize(
    ("roles", "error", "match"),
    [
        (b"", ValueError, "length 0"),
        (ROLES[:-1], ValueError, "length 6"),
        (bytes([3] * MODELS), ValueError, "ROLE_OWNER"),
        ([0] * MODELS, TypeError, "roles must be bytes"),
    ],
)
def test_wrong_roles_are_refused(roles: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make_verifier("mlp", make_responses()).step(make_responses(), roles)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        (("svm", 2, 3), {}, ValueError, "kind must be"),
        (("mlp", 0, 3), {}, ValueError, "queries must be an integer >= 1"),
        (("mlp", 2, -1), {}, ValueError, "outputs must be an integer >= 1"),
        (("mlp", 2, 2.5), {}, TypeError, "outputs must be an integer"),
        (("mlp", 2**40, 2**40), {}, ValueError, "fit in memory"),
        (("mlp", 2, 3), {"hidden": 0}, ValueError, "hidden must be"),
        (("mlp", 2, 3), {"view": "nonsense"}, ValueError, "unknown view"),
        (("mlp", 2, 1), {"view": "logprob"}, ValueError, "at least 2 outputs"),
        (("mlp", 2, 3), {"seed": -1}, ValueError, "seed must be"),
        (("mlp", 2, 3), {"seed": 2**64}, ValueError, "seed must be"),
    ],
)
def test_an_impossible_verifier_is_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        _core.Verifier(*arguments, **options)


def test_a_loss_that_overflows_is_refused_and_changes_nothing() -> None:
    verifier = _core.Verifier("mlp", QUERIES, OUTPUTS)
    before = verifier.parameters()["weight1"]
    with pytest.raises(OverflowError, match="standardize"):
        verifier.step(np.full((2, QUERIES, OUTPUTS), 3e38, np.float32), b"\x01\x00")
    np.testing.assert_array_equal(verifier.parameters()["weight1"], before)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_that_overflow_are_refused(kind: _core.VerifierKind) -> None:
    verifier = make_verifier(kind, make_responses())
    parameters = verifier.parameters()
    parameters["scale"] = np.full(OUTPUTS, 1e-30, np.float32)
    verifier.load_parameters(parameters)
    with pytest.raises(OverflowError, match="standardize"):
        verifier.scores(np.full((1, QUERIES, OUTPUTS), 1e30, np.float32))


def test_one_handle_in_two_threads_is_refused_or_serialised() -> None:
    """Every call either ends or says that the handle is in use; a refused call changes nothing."""
    responses = np.random.default_rng(0).normal(size=(30, 200, 20)).astype(np.float32)
    roles = bytes([1, 0] * 15)
    verifier = _core.Verifier("mlp", 200, 20)
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for _ in range(20):
            try:
                verifier.step(responses, roles)
                outcomes.append("done")
            except RuntimeError as error:
                outcomes.append("refused" if "in use by another thread" in str(error) else str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 80
    assert set(outcomes) <= {"done", "refused"}
    assert verifier.steps == outcomes.count("done")
    assert "refused" in outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_one_handle_is_read_in_many_threads_at_once(kind: _core.VerifierKind) -> None:
    """Scores, logits, parameters and copies change nothing, so that no call of them is refused or disturbed."""
    responses = np.random.default_rng(0).normal(size=(20, QUERIES, OUTPUTS)).astype(np.float32)
    verifier = make_verifier(kind, responses)
    expected = verifier.scores(responses).tobytes(), verifier.copy().logits(responses).tobytes()
    weights = {name: value.tobytes() for name, value in verifier.parameters().items()}
    start = threading.Barrier(8)

    def read(_: int) -> bool:
        start.wait()
        for _ in range(50):
            found = verifier.scores(responses).tobytes(), verifier.copy().logits(responses).tobytes()
            own = {name: value.tobytes() for name, value in verifier.parameters().items()}
            if found != expected or own != weights:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))
    verifier.load_parameters(verifier.parameters())  # nobody is left inside


FORKED = """
import os, sys, threading
import numpy as np
from metav import _core
responses = np.random.default_rng(0).normal(size=(4000, 40, 20)).astype(np.float32)
few, verifier = responses[:5], _core.Verifier("mlp", 40, 20)
before = verifier.scores(few).tobytes()
work = {"read": lambda: verifier.scores(responses), "changed": lambda: verifier.step(responses, bytes(4000))}

def is_inside():
    try:
        verifier.load_parameters({})
    except (RuntimeError, ValueError, KeyError) as error:
        return "in use" in str(error)

def in_child():
    try:
        same = verifier.scores(few).tobytes() == before
        verifier.step(few, bytes([1, 0, 0, 0, 0]))
        return "whole" if same else "another"
    except RuntimeError as error:
        return str(error)

for _ in range(20):
    thread = threading.Thread(target=work[sys.argv[1]])
    thread.start()
    while thread.is_alive() and not is_inside():
        pass
    child = os.fork()
    if child == 0:
        print(in_child(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("work", ["read", "changed"])
def test_a_forked_child_goes_on_with_a_handle_that_was_only_read(work: str) -> None:
    """The other thread is not there any more: what it read is whole, what it changed may be half changed."""
    done = subprocess.run([sys.executable, "-c", FORKED, work], timeout=120, capture_output=True, text=True, check=True)
    found = done.stdout.splitlines()
    assert len(found) == 20
    if work == "read":
        assert set(found) == {"whole"}
    else:
        message = "this Verifier was being changed by another thread when this process was forked; make a new one"
        assert message in found
        assert set(found) <= {message, "another"}


def test_signatures_stand_in_the_doc_strings() -> None:
    assert _core.Verifier.step.__text_signature__.startswith("($self, responses, roles, /, *, gradient=None")  # type: ignore[attr-defined]
    assert _core.apply_view.__text_signature__ == "($module, responses, view, /, *, out=None)"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["kind", "steps", "view"])
def test_attributes_are_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(_core.Verifier("mlp", 1, 1), name, 1)


def test_unknown_arguments_are_refused() -> None:
    verifier = make_verifier("mlp", make_responses())
    with pytest.raises(TypeError, match="unexpected keyword argument 'lr'"):
        verifier.step(make_responses(), ROLES, lr=1.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="exactly 2 positional"):
        verifier.step(make_responses())  # type: ignore[call-arg]
