"""One seed, one artefact: whatever threads and precision a program has chosen for itself, and those come back."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_fingerprints import make_fingerprint, small_options
from small_models import bits, digits
from torch import Tensor, nn

from metav.support.arithmetic import fixed_arithmetic
from metav.support.randomness import isolated_rng
from metav.tasks.classification import Classification
from metav.zoo.building import build_zoo


class Wide(nn.Module):
    """Convolutions and products that are large enough for several threads, and for every library of PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3)
        self.body, self.head = nn.Linear(32 * 36, 512), nn.Linear(512, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(torch.relu(self.stem(images)).flatten(1))))


def artefact() -> str:
    """A fingerprint's commitment, which covers all that is in it, and that of models trained beside it."""
    images, labels = digits()
    task = Classification(images[:300], labels[:300], epochs=1)
    with isolated_rng(1):
        owner = Wide()
    zoo = build_zoo(
        task.train(owner, seed=1), task, positives=2, negatives=2, families=["finetune_all"], progress=False
    )
    fp = make_fingerprint(options=small_options(steps=4))
    weights = sorted((entry.run, entry.fraction, sorted(bits(entry.model).items())) for entry in zoo)
    return f"{fp.commitment} {hashlib.sha256(repr(weights).encode()).hexdigest()}"


@contextlib.contextmanager
def chosen(put, value, usual):
    put(value)
    try:
        yield
    finally:
        put(usual)


def set_mkldnn(enabled: bool) -> None:
    torch.backends.mkldnn.enabled = enabled


def set_convolutions(precision: str) -> None:
    torch.backends.mkldnn.conv.fp32_precision = precision


def set_fast_kernels(fast: bool) -> None:
    torch.backends.cudnn.benchmark = fast


def set_cuda_convolutions(precision: str) -> None:
    torch.backends.cudnn.conv.fp32_precision = precision
    if precision == "tf32":  # as PyTorch starts: both ways of asking agree
        torch.backends.cudnn.allow_tf32 = True


SETTINGS = {
    "two threads": lambda: chosen(torch.set_num_threads, 2, torch.get_num_threads()),
    "medium precision": lambda: chosen(torch.set_float32_matmul_precision, "medium", "highest"),
    "convolutions in bfloat16": lambda: chosen(set_convolutions, "bf16", "none"),
    "without oneDNN": lambda: chosen(set_mkldnn, False, True),
    "flushed denormals": lambda: chosen(torch.set_flush_denormal, True, False),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


def settings() -> tuple[object, ...]:
    onednn, cudnn = torch.backends.mkldnn, torch.backends.cudnn
    return (
        (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, cudnn.benchmark, cudnn.deterministic),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        onednn.enabled,
        onednn.matmul.fp32_precision,
        onednn.conv.fp32_precision,
        torch.is_autocast_enabled("cpu"),
        float(torch.full((1,), 2.0**-126) * 0.5),
    )


@pytest.fixture(scope="module")
def expected() -> str:
    return artefact()


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_of_the_program_changes_no_bit_and_comes_back(setting, expected):
    with SETTINGS[setting]():
        before = settings()
        found = artefact()
        assert settings() == before
    assert found == expected


@pytest.mark.parametrize(
    "setting",
    [
        lambda: chosen(set_fast_kernels, True, False),
        lambda: chosen(set_cuda_convolutions, "ieee", "tf32"),
        lambda: chosen(set_cuda_convolutions, "none", "tf32"),
    ],
)
def test_cuda_computes_in_full_precision_by_kernels_that_no_clock_picks(setting):
    cudnn = torch.backends.cudnn
    with setting():
        before = settings()
        with fixed_arithmetic():
            assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == (False, False, True)
            assert not {cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision} & {"tf32", "bf16"}
            # layers that go without cuDNN for a gradient ask for all of its settings
            with cudnn.flags(enabled=False):
                pass
            assert (cudnn.allow_tf32, cudnn.deterministic) == (False, True)
        assert settings() == before


@pytest.mark.parametrize("threads", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_the_number_of_threads_of_the_environment_changes_no_bit(threads, expected):
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + (
        "from test_determinism import artefact; print(artefact())"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
