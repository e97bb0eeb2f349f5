"""The fingerprint's update: Adam, bounds, radius, levels."""

from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metav import _core

FloatArray = NDArray[np.float32]


def make_problem(seed: int, shape: tuple[int, ...] = (3, 2, 4)) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Natural queries within bounds, lower, upper; one feature is frozen."""
    generator = np.random.default_rng(seed)
    lower = generator.normal(size=shape[1:]).astype(np.float32)
    upper = lower + generator.uniform(0.1, 3.0, size=shape[1:]).astype(np.float32)
    upper.flat[0] = lower.flat[0]
    share = generator.uniform(size=shape)
    natural = np.clip((lower + share * (upper - lower)).astype(np.float32), lower, upper)
    return natural, lower, upper


@pytest.mark.parametrize("radius", [None, 0.0, 0.05, 2.0])
@pytest.mark.parametrize("levels", [None, 2, 11, 256])
def test_updates_equal_the_float64_twin(radius: float | None, levels: int | None) -> None:
    natural, lower, upper = make_problem(0)
    optimizer = _core.QueryOptimizer(natural, lower, upper, radius=radius, levels=levels)
    twin = reference.QueryOptimizer(natural, lower, upper, radius, levels)
    generator = np.random.default_rng(1)
    queries = natural.copy()
    for _ in range(30):
        gradient = generator.normal(0.5, 1.0, size=natural.shape).astype(np.float32)
        optimizer.update(gradient, queries, learning_rate=0.03)
        np.testing.assert_allclose(queries, twin.update(gradient, 0.03), atol=2e-5)


def test_without_limits_it_is_torch_adam() -> None:
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(2)
    natural = generator.normal(size=(4, 5)).astype(np.float32)
    optimizer = _core.QueryOptimizer(natural, np.full(5, -50, np.float32), np.full(5, 50, np.float32))
    expected = torch.tensor(natural, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([expected], lr=100 * 1e-3)
    queries = natural.copy()
    for _ in range(50):
        gradient = generator.normal(size=natural.shape).astype(np.float32)
        optimizer.update(gradient, queries, learning_rate=1e-3)
        expected.grad = torch.tensor(gradient, dtype=torch.float64)
        adam.step()
    np.testing.assert_allclose(queries, expected.detach().numpy(), atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    radius=st.one_of(st.none(), st.floats(0, 1)),
    levels=st.one_of(st.none(), st.integers(2, 300)),
    learning_rate=st.floats(0, 2),
    scale=st.sampled_from([1e-20, 1.0, 1e30]),
)
def test_bounds_radius_and_levels_always_hold(
    seed: int, radius: float | None, levels: int | None, learning_rate: float, scale: float
) -> None:
    natural, lower, upper = make_problem(seed)
    optimizer = _core.QueryOptimizer(natural, lower, upper, radius=radius, levels=levels)
    generator = np.random.default_rng(seed)
    queries = natural.copy()
    span = upper.astype(np.float64) - lower
    for _ in range(5):
        gradient = (scale * generator.normal(size=natural.shape)).astype(np.float32)
        optimizer.update(gradient, queries, learning_rate=learning_rate)
        assert (queries >= lower).all()
        assert (queries <= upper).all()
        if radius is not None:
            assert (np.abs(queries.astype(np.float64) - natural) <= radius * span + 1e-6).all()
        if levels is not None:
            index = (queries - lower) / np.where(span > 0, span, 1) * (levels - 1)
            on_level = np.abs(index - np.round(index)) < 1e-3
            narrow = radius is not None and radius * (levels - 1) <= 0.5 + 1e-6
            assert narrow or (on_level | (span == 0)).all()


def test_eight_bit_levels_survive_an_image_file() -> None:
    generator = np.random.default_rng(3)
    natural = generator.uniform(size=(5, 8, 8)).astype(np.float32)
    bounds = np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32)
    optimizer = _core.QueryOptimizer(natural, *bounds, radius=0.1, levels=256)
    queries = natural.copy()
    for _ in range(20):
        optimizer.update(generator.normal(size=natural.shape).astype(np.float32), queries)
        stored = np.round(queries * 255).astype(np.uint8)
        np.testing.assert_array_equal(stored.astype(np.float32) / np.float32(255), queries)


def test_the_master_stays_continuous_between_levels() -> None:
    """Steps far smaller than a level add up."""
    optimizer = _core.QueryOptimizer(
        np.full((1, 1), 0.5, np.float32), np.zeros(1, np.float32), np.ones(1, np.float32), levels=11
    )
    queries = np.zeros((1, 1), np.float32)
    written = []
    for _ in range(40):
        optimizer.update(np.full((1, 1), -1.0, np.float32), queries, learning_rate=0.005)
        written.append(float(queries[0, 0]))
    assert sorted(set(np.round(written, 4))) == [0.5, 0.6, 0.7]


def test_a_frozen_feature_stays_and_the_learning_rate_follows_the_range() -> None:
    natural = np.array([[1.0, 5.0, 50.0]], np.float32)
    lower, upper = np.array([1, 0, 0], np.float32), np.array([1, 10, 100], np.float32)
    optimizer = _core.QueryOptimizer(natural, lower, upper)
    queries = natural.copy()
    optimizer.update(np.ones_like(natural), queries, learning_rate=0.01)
    np.testing.assert_allclose(queries, [[1.0, 4.9, 49.0]], rtol=1e-5)


def test_without_levels_what_the_queries_hold_is_what_moves() -> None:
    optimizer = _core.QueryOptimizer(np.full((1, 4), 0.5, np.float32), np.zeros(4, np.float32), np.ones(4, np.float32))
    queries = np.array([[0.2, 7.0, np.nan, -np.inf]], np.float32)
    optimizer.update(np.ones_like(queries), queries, learning_rate=0.01)
    np.testing.assert_allclose(queries, [[0.19, 1.0, 0.0, 0.0]], rtol=1e-5)


@pytest.mark.parametrize("levels", [None, 64])
def test_only_queries_with_a_finite_gradient_move(levels: int | None) -> None:
    """The others keep their moments, too: afterwards all go on as if apart."""
    natural, lower, upper = make_problem(5, (4, 9))
    optimizer = _core.QueryOptimizer(natural, lower, upper, levels=levels)
    healthy = _core.QueryOptimizer(natural, lower, upper, levels=levels)
    generator = np.random.default_rng(6)
    queries, expected = natural.copy(), natural.copy()
    for _ in range(5):
        gradient = generator.normal(size=natural.shape).astype(np.float32)
        healthy.update(gradient, expected)
        broken, kept = gradient.copy(), queries[2].copy()
        broken[2, 8] = np.inf
        with pytest.raises(ValueError, match="stay as they were: gradient contains NaN or infinity"):
            optimizer.update(broken, queries)
        np.testing.assert_array_equal(queries[2], kept)
        np.testing.assert_array_equal(queries[[0, 1, 3]], expected[[0, 1, 3]])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"natural": np.full((2, 3), 2.0, np.float32)}, "natural must be finite and within"),
        ({"natural": np.full((2, 3), np.nan, np.float32)}, "natural must be finite"),
        ({"natural": np.zeros((0, 3), np.float32)}, "empty"),
        ({"lower": np.full(3, 1.5, np.float32)}, "lower <= upper"),
        ({"upper": np.full(3, np.inf, np.float32)}, "must be finite"),
        ({"lower": np.full(3, np.nan, np.float32)}, "must be finite"),
        ({"lower": np.zeros(4, np.float32)}, "lower must have the shape of one query"),
        ({"upper": np.zeros((2, 3), np.float32)}, "upper must have the shape of one query"),
        ({"radius": -0.1}, "radius"),
        ({"radius": float("nan")}, "radius"),
        ({"levels": 1}, "levels"),
        ({"levels": 70000}, "levels"),
    ],
)
def test_an_impossible_problem_is_refused(change: dict[str, Any], match: str) -> None:
    problem: dict[str, Any] = {
        "natural": np.full((2, 3), 0.5, np.float32),
        "lower": np.zeros(3, np.float32),
        "upper": np.ones(3, np.float32),
        "radius": None,
        "levels": None,
    } | change
    tensors = problem.pop("natural"), problem.pop("lower"), problem.pop("upper")
    with pytest.raises(ValueError, match=match):
        _core.QueryOptimizer(*tensors, **problem)


def test_a_refused_update_changes_nothing() -> None:
    natural, lower, upper = make_problem(4)
    optimizer = _core.QueryOptimizer(natural, lower, upper)
    queries = natural.copy()
    gradient = np.ones_like(natural)
    with pytest.raises(ValueError, match="gradient contains NaN"):
        optimizer.update(np.full_like(natural, np.nan), queries)
    with pytest.raises(ValueError, match="learning_rate"):
        optimizer.update(gradient, queries, learning_rate=-1.0)
    with pytest.raises(ValueError, match="gradient must have the shape of natural"):
        optimizer.update(gradient[:2], queries)
    with pytest.raises(ValueError, match="queries must have the shape of natural"):
        optimizer.update(gradient, queries[:, :, :1].copy())
    with pytest.raises(ValueError, match="queries shares memory with gradient"):
        optimizer.update(queries, queries)
    np.testing.assert_array_equal(queries, natural)
    fresh = _core.QueryOptimizer(natural, lower, upper)
    expected = natural.copy()
    optimizer.update(gradient, queries)
    fresh.update(gradient, expected)
    np.testing.assert_array_equal(queries, expected)
