"""A small computation of the C core beside NumPy in float64: `python -m metav.support.core_check` prints the deviation.

The instruction set is chosen at import, so that each one takes a process of its own with METAV_ISA.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav import _core

ALLOWED = 1e-4
"""Largest deviation, in units of the largest value, that float32 explains."""
MODELS, QUERIES, OUTPUTS, HIDDEN = 7, 33, 11, 19
"""Sizes that fill no vector register evenly."""


def core_check() -> dict[str, Any]:
    """Return the instruction set, the relative deviation of each computation, and whether threads change a bit."""
    responses = (4.0 * np.random.default_rng(0).standard_normal((MODELS, QUERIES, OUTPUTS))).astype(np.float32)
    deviations = {"log-probabilities": _deviation(_core.apply_view(responses, "logprob"), log_softmax(responses))}
    verifier = _core.Verifier("mlp", QUERIES, OUTPUTS, view="identity", hidden=HIDDEN, seed=1)
    verifier.standardize(responses)
    deviations["logits"] = _deviation(verifier.logits(responses), _mlp_logits(verifier.parameters(), responses))
    return {
        "isa": _core.cpu_info()["isa"],
        "deviations": deviations,
        "same_for_all_threads": _is_same_for_all_threads(responses),
    }


def log_softmax(responses: NDArray[Any], floor: float = 1e-5) -> NDArray[np.float64]:
    """Return what the view "logprob" stands for, in float64."""
    exact = responses.astype(np.float64)
    masses = np.exp(exact - exact.max(axis=-1, keepdims=True))
    logs: NDArray[np.float64] = np.log(np.maximum(masses / masses.sum(axis=-1, keepdims=True), floor))
    return logs


def _mlp_logits(parameters: dict[str, NDArray[np.float32]], responses: NDArray[Any]) -> NDArray[np.float64]:
    exact = {name: value.astype(np.float64) for name, value in parameters.items()}
    features = ((responses - exact["shift"]) / exact["scale"]).reshape(len(responses), -1)
    hidden = np.maximum(features @ exact["weight1"] + exact["bias1"], 0)
    result: NDArray[np.float64] = hidden @ exact["weight2"].reshape(-1) + exact["bias2"].reshape(-1)
    return result


def _is_same_for_all_threads(responses: NDArray[np.float32]) -> bool:
    """Return whether training steps give the same numbers, bit for bit, on one thread and on all."""
    many = np.tile(responses, (8, 4, 1))
    roles = bytes([_core.ROLE_OWNER, _core.ROLE_POSITIVE, _core.ROLE_NEGATIVE] * 19)[: len(many)]
    threads, found = _core.get_num_threads(), []
    try:
        for number in (1, max(2, threads)):
            _core.set_num_threads(number)
            verifier = _core.Verifier("mlp", many.shape[1], OUTPUTS, view="logprob", hidden=256, seed=1)
            losses = [verifier.step(many, roles) for _ in range(2)]
            found.append((losses, verifier.logits(many).tobytes()))
    finally:
        _core.set_num_threads(threads)
    return found[0] == found[1]


def _deviation(found: NDArray[Any], exact: NDArray[np.float64]) -> float:
    return float(np.abs(found - exact).max() / np.abs(exact).max())


if __name__ == "__main__":
    print(json.dumps(core_check()))
