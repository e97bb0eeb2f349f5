"""Every entry point of the C core that takes a tensor, with honest arguments in the order in which it reads them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav import _core

MODELS, QUERIES, OUTPUTS = 4, 3, 5
RESPONSES = (MODELS, QUERIES, OUTPUTS)
ONE = (QUERIES, OUTPUTS)
ROLES = bytes([_core.ROLE_OWNER, _core.ROLE_POSITIVE, _core.ROLE_NEGATIVE, _core.ROLE_NEGATIVE])

Tensors = Mapping[str, Any]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Entry:
    """One entry point: shapes of its tensors, which of them it writes, and how to call it on a handle."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    writes: tuple[str, ...]
    make: Callable[[], Any]
    call: Callable[[Any, Tensors], Any]
    any_rank: tuple[str, ...] = ()

    def arrays(self, seed: int = 0) -> dict[str, FloatArray]:
        """Arguments that are accepted."""
        generator = np.random.default_rng(seed)
        arrays = {name: generator.uniform(-1, 1, shape).astype(np.float32) for name, shape in self.shapes.items()}
        fixed = {"lower": -1.0, "upper": 1.0, "scale": 1.5}
        return {name: np.full_like(array, fixed[name]) if name in fixed else array for name, array in arrays.items()}


def make_verifier() -> _core.Verifier:
    return _core.Verifier("mlp", QUERIES, OUTPUTS, hidden=6, view="logprob")


def make_queries() -> _core.QueryOptimizer:
    natural = np.zeros(RESPONSES, np.float32)
    return _core.QueryOptimizer(natural, natural[0] - 1, natural[0] + 1)


ENTRIES = [
    Entry(
        "apply_view",
        {"responses": RESPONSES, "out": RESPONSES},
        ("out",),
        lambda: None,
        lambda _, t: _core.apply_view(t["responses"], "logprob", out=t["out"]),
    ),
    Entry(
        "view_gradient",
        {"responses": RESPONSES, "feature_gradient": RESPONSES, "out": RESPONSES},
        ("out",),
        lambda: None,
        lambda _, t: _core.view_gradient(t["responses"], t["feature_gradient"], "topk(2)", out=t["out"]),
    ),
    Entry(
        "Verifier.standardize",
        {"responses": RESPONSES},
        (),
        make_verifier,
        lambda handle, t: handle.standardize(t["responses"]),
    ),
    Entry(
        "Verifier.fit_closed_form",
        {"owner": ONE, "negatives": RESPONSES},
        (),
        lambda: _core.Verifier("matched", QUERIES, OUTPUTS),
        lambda handle, t: handle.fit_closed_form(t["owner"], t["negatives"]),
    ),
    Entry(
        "Verifier.step",
        {"responses": RESPONSES, "gradient": RESPONSES},
        ("gradient",),
        make_verifier,
        lambda handle, t: handle.step(t["responses"], ROLES, gradient=t["gradient"], mix=0.2, noise=0.1, dropout=0.1),
    ),
    Entry(
        "Verifier.logits",
        {"responses": RESPONSES, "out": (MODELS,)},
        ("out",),
        make_verifier,
        lambda handle, t: handle.logits(t["responses"], out=t["out"]),
    ),
    Entry(
        "Verifier.scores",
        {"responses": RESPONSES, "out": (MODELS,)},
        ("out",),
        make_verifier,
        lambda handle, t: handle.scores(t["responses"], out=t["out"]),
    ),
    Entry(
        "Verifier.load_parameters",
        {"shift": ONE, "scale": (OUTPUTS,), "weight": ONE, "bias": (QUERIES,)},
        (),
        lambda: _core.Verifier("local", QUERIES, OUTPUTS),
        lambda handle, t: handle.load_parameters(t),
    ),
    Entry(
        "QueryOptimizer",
        {"natural": RESPONSES, "lower": ONE, "upper": ONE},
        (),
        lambda: None,
        lambda _, t: _core.QueryOptimizer(t["natural"], t["lower"], t["upper"], radius=0.5, levels=16),
        any_rank=("natural", "lower", "upper"),
    ),
    Entry(
        "QueryOptimizer.update",
        {"gradient": RESPONSES, "queries": RESPONSES},
        ("queries",),
        make_queries,
        lambda handle, t: handle.update(t["gradient"], t["queries"]),
        any_rank=("gradient", "queries"),
    ),
    Entry(
        "apply_view, all rows together",
        {"responses": RESPONSES, "out": RESPONSES},
        ("out",),
        lambda: None,
        lambda _, t: _core.apply_view(t["responses"], "relative", out=t["out"]),
    ),
    Entry(
        "view_gradient, all rows together",
        {"responses": RESPONSES, "feature_gradient": RESPONSES, "out": RESPONSES},
        ("out",),
        lambda: None,
        lambda _, t: _core.view_gradient(t["responses"], t["feature_gradient"], "relative", out=t["out"]),
    ),
    Entry(
        "apply_view, at one confidence",
        {"responses": RESPONSES, "out": RESPONSES},
        ("out",),
        lambda: None,
        lambda _, t: _core.apply_view(t["responses"], "tempered", out=t["out"]),
    ),
    Entry(
        "view_gradient, at one confidence",
        {"responses": RESPONSES, "feature_gradient": RESPONSES, "out": RESPONSES},
        ("out",),
        lambda: None,
        lambda _, t: _core.view_gradient(t["responses"], t["feature_gradient"], "tempered", out=t["out"]),
    ),
]
