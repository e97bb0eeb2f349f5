"""Rounding errors of the joint step against float64, beside PyTorch's in float32, for every instruction set.

METAV_ISA=avx2 python tests/test_core_precision.py prints the errors of one.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import metav
from metav import _core

torch = pytest.importorskip("torch")

CASES = [(20, 1000, 100, 10), (128, 1000, 128, 10), (100, 10000, 256, 10), (16, 7840, 64, 784)]
SEEDS = range(6)
FLOOR = float(np.log(1e-5))
# Both are random: how far the means over the seeds may lie apart by chance.
ALLOWED = 1.05


def make_inputs(models: int, responses: int, hidden: int, outputs: int, seed: int):
    """Responses and the parameters of a verifier, as float32."""
    generator = np.random.default_rng(seed)
    size = (models, responses // outputs, outputs)
    answers = (3 * generator.normal(size=size)).astype(np.float32)
    verifier = _core.Verifier("mlp", *size[1:], view="logprob", hidden=hidden, seed=seed)
    verifier.standardize(answers)
    return answers, verifier


def torch_step(answers, parameters, dtype):
    """Logits and the gradient of the responses in PyTorch."""
    tensors = {name: torch.tensor(value, dtype=dtype) for name, value in parameters.items()}
    inputs = torch.tensor(answers, dtype=dtype, requires_grad=True)
    features = torch.log_softmax(inputs, -1).clamp_min(FLOOR)
    z = ((features - tensors["shift"]) / tensors["scale"]).flatten(1)
    logits = torch.relu(z @ tensors["weight1"] + tensors["bias1"]) @ tensors["weight2"] + tensors["bias2"]
    targets = (torch.arange(len(answers)) % 2).to(dtype)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    loss = losses[targets == 0].mean() + losses[targets == 1].mean()
    loss.backward()
    return logits.detach().numpy(), inputs.grad.numpy()


def core_step(answers, verifier):
    """The same from the core."""
    gradient = np.empty_like(answers)
    logits = verifier.logits(answers)
    verifier.step(answers, bytes(m % 2 for m in range(len(answers))), gradient=gradient, update=False)
    return logits, gradient


def error(found, exact) -> float:
    """Root mean square of the error, relative to that of the exact numbers."""
    return float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)))


def measure() -> list[dict[str, object]]:
    """Mean errors of each case over the seeds: of the logits and of the response gradients."""
    rows: list[dict[str, object]] = []
    for case in CASES:
        errors: dict[str, list[list[float]]] = {"metav": [], "torch": []}
        for seed in SEEDS:
            answers, verifier = make_inputs(*case, seed)
            parameters = verifier.parameters()
            exact = torch_step(answers, parameters, torch.float64)
            found = {"metav": core_step(answers, verifier), "torch": torch_step(answers, parameters, torch.float32)}
            for side, results in found.items():
                errors[side].append([error(result, truth) for result, truth in zip(results, exact, strict=True)])
        rows.append({"case": case} | {side: np.mean(values, axis=0).tolist() for side, values in errors.items()})
    return rows


@pytest.mark.parametrize("isa", metav.cpu_info().isas)
def test_the_joint_step_rounds_no_worse_than_pytorch(isa):
    ran = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=300, env={**os.environ, "METAV_ISA": isa}
    )
    assert ran.returncode == 0, ran.stderr
    for row in json.loads(ran.stdout):
        for ours, theirs in zip(row["metav"], row["torch"], strict=True):
            assert ours <= ALLOWED * theirs, row


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
