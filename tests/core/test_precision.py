"""Rounding errors of the joint step against float64 NumPy, held to a bound, for every instruction set.

METAV_ISA=avx2 python tests/test_core_precision.py prints those of one.
"""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import metav
from metav import _core

Array = NDArray[Any]

# models, features, hidden, outputs; sums over the features make the logits, sums over the hidden units the gradients
CASES = [(20, 1000, 100, 10), (128, 1000, 128, 10), (100, 10000, 256, 10), (16, 7840, 64, 784), (16, 100, 10000, 10)]
SEEDS = range(5)
FLOOR = float(np.log(1e-5))
UNIT = 2.0**-24  # one rounding of a number near 1 in float32; errors and bounds are in these
BLOCK = 128  # SUM_LENGTH of csrc/mv_gemm.c
LANES = 4  # at least, of the vectors in which a unit's logit is summed
VIEW = 25  # as roundings: log-softmax and standardisation round numbers up to five times as large as what they return


def chain(terms: int) -> int:
    """Additions that the first term of a sum passes through, where parts of BLOCK terms are summed on their own."""
    return min(terms, BLOCK) + -(-terms // BLOCK)


def bounds(case: tuple[int, int, int, int], logits: Array) -> list[float]:
    """Of the errors of logits and response gradients, relative to their root mean square, in units.

    c roundings in a row err by sqrt(c) units: N. J. Higham and T. Mary, SIAM J. Sci. Comput. 41 (2019), A2815-A2835.
    Logits that err by e change the loss's derivative by a share of e at most.
    """
    _, features, hidden, outputs = case
    of_logits = np.sqrt(chain(features) + hidden / LANES + outputs + VIEW)
    of_gradients = np.sqrt(chain(hidden) + outputs + VIEW)
    return [of_logits, of_gradients + of_logits * float(np.sqrt(np.mean(logits**2)))]


def make_inputs(case: tuple[int, int, int, int], seed: int) -> tuple[Array, _core.Verifier]:
    """Responses and a standardised verifier."""
    models, features, hidden, outputs = case
    generator = np.random.default_rng(seed)
    answers = (3 * generator.normal(size=(models, features // outputs, outputs))).astype(np.float32)
    verifier = _core.Verifier("mlp", features // outputs, outputs, view="logprob", hidden=hidden, seed=seed)
    verifier.standardize(answers)
    # small logits: their errors shall not hide those of the gradients' sums
    own = verifier.parameters()
    verifier.load_parameters({**own, "weight2": own["weight2"] * np.float32(0.01)})
    return answers, verifier


def targets(models: int) -> Array:
    """Every other model is derived."""
    return np.arange(models) % 2


def core_step(answers: Array, verifier: _core.Verifier) -> list[Array]:
    """Logits and the gradient of the responses from the core."""
    gradient = np.empty_like(answers)
    verifier.step(answers, targets(len(answers)).astype(np.uint8).tobytes(), gradient=gradient, update=False)
    return [verifier.logits(answers), gradient]


def exact_step(answers: Array, own: dict[str, Array]) -> list[Array]:
    """The same in float64."""
    own = {name: value.astype(np.float64) for name, value in own.items()}
    centred = answers - answers.max(axis=2, keepdims=True).astype(np.float64)
    log_p = centred - np.log(np.exp(centred).sum(axis=2, keepdims=True))
    z = ((np.maximum(log_p, FLOOR) - own["shift"]) / own["scale"]).reshape(len(answers), -1)
    before = z @ own["weight1"] + own["bias1"]
    logits = np.maximum(before, 0) @ own["weight2"] + own["bias2"]
    wanted = targets(len(answers))
    by_logit = (1 / (1 + np.exp(-logits)) - wanted) / np.where(wanted == 1, wanted.sum(), (1 - wanted).sum())
    by_unit = by_logit[:, None] * own["weight2"] * (before > 0)
    by_feature = (by_unit @ own["weight1"].T).reshape(answers.shape) / own["scale"] * (log_p > FLOOR)
    return [logits, by_feature - np.exp(log_p) * by_feature.sum(axis=2, keepdims=True)]


def error(found: Array, exact: Array) -> float:
    """Root mean square of the error, relative to that of the exact numbers, in units."""
    return float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)) / UNIT)


def measure() -> list[dict[str, Any]]:
    """Errors and bounds of each case, of logits and of gradients.

    Medians over the seeds: now and then a hidden unit falls on the other side of its rectifier.
    """
    rows: list[dict[str, Any]] = []
    for case in CASES:
        errors, limits = [], []
        for seed in SEEDS:
            answers, verifier = make_inputs(case, seed)
            exact = exact_step(answers, verifier.parameters())
            found = core_step(answers, verifier)
            errors.append([error(ours, truth) for ours, truth in zip(found, exact, strict=True)])
            limits.append(bounds(case, exact[0]))
        rows.append(
            {"case": case, "errors": np.median(errors, axis=0).tolist(), "bounds": np.min(limits, axis=0).tolist()}
        )
    return rows


@pytest.mark.parametrize("isa", metav.cpu_info().isas)
def test_the_joint_step_rounds_within_its_bound(isa: str) -> None:
    environment = {**os.environ, "METAV_ISA": isa}
    command = [sys.executable, __file__]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert ran.returncode == 0, ran.stderr
    for row in json.loads(ran.stdout):
        for ours, bound in zip(row["errors"], row["bounds"], strict=True):
            assert ours <= bound, row


@pytest.mark.parametrize(("case", "which"), [(CASES[2], 0), (CASES[4], 1)])
def test_a_plain_sum_would_break_the_bound(case: tuple[int, int, int, int], which: int) -> None:
    """One term after the other in float32, as np.cumsum adds: what the bound is there to notice."""
    terms = case[1] if which == 0 else case[2]
    factors = np.random.default_rng(0).normal(size=(2, 2000, terms)).astype(np.float32)
    plain = np.cumsum(factors[0] * factors[1], axis=1)[:, -1]
    exact = (factors[0].astype(np.float64) * factors[1]).sum(axis=1)
    assert error(plain, exact) > bounds(case, np.zeros(1))[which]


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
