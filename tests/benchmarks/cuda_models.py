"""Models on CUDA beside the CPU: training a zoo, a step of the joint optimisation, and a verification.

    python tests/benchmarks/cuda_models.py

Owner, surrogates and suspect are ResNet-18s (`--width`) on scikit-learn's digits 0 to 6, enlarged to 28 x 28 in three
channels. Each side trains in one process with one thread of the CPU, as metav does on one core; on CUDA the zoo is
trained once more under autocast in bfloat16. Without a CUDA device the command says so, measures nothing and ends
with 0; `--on-cpu-alone` measures the CPU's side by itself.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from timing import Disagreement, Row, print_rows, progress, significant
from torch import nn

import metav
from metav.experiments.scenarios.architectures.skin import skin_resnet18
from metav.optimization.joint_optimization import JointOptimization
from metav.optimization.options import OptimizationOptions
from metav.optimization.settings import resolve_settings
from metav.support.arithmetic import fixed_arithmetic
from metav.support.randomness import isolated_rng
from metav.zoo.zoo import Zoo

CLASSES = 7
TOLERANCE = 1e-2
"""Largest difference of answers of one model on both sides, relative to the largest answer."""


def enlarged_digits(count: int, epochs: float) -> metav.Classification:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    chosen = np.flatnonzero(bunch.target < CLASSES)[:count]
    images = torch.from_numpy(bunch.images[chosen, None].astype(np.float32) / 16.0)
    images = nn.functional.interpolate(images, size=28, mode="bilinear").repeat(1, 3, 1, 1)
    return metav.Classification(images.numpy(), bunch.target[chosen], epochs=epochs, bounds=(0.0, 1.0))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, until the device has done all of it, and what it returns."""
    started = time.perf_counter()
    found = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, found


class Side:
    """One device, with the owner's model on it.

    seconds: by case.
    answers: of the owner's model to some images, to compare the sides by.
    """

    def __init__(
        self, owner: nn.Module, task: metav.Classification, device: str, arguments: argparse.Namespace
    ) -> None:
        self.owner, self.task, self.device, self.arguments = copy.deepcopy(owner).to(device), task, device, arguments
        self.answers = task.answers(self.owner, task.examples[:20])  # the first pass makes the device ready
        self.seconds = dict(self._measured())

    def _measured(self) -> Iterator[tuple[str, float]]:
        name = f"train a zoo of {2 * self.arguments.surrogates} models"
        yield name, timed(lambda: self._zoo())[0]
        if self.device != "cpu":
            yield f"{name} in bfloat16", timed(lambda: self._zoo("bfloat16"))[0]
        zoo = self._zoo(epochs=0.1)
        yield self._joint_step(zoo)
        yield self._verification(zoo)

    def _zoo(self, autocast: str | None = None, epochs: float | None = None) -> Zoo:
        progress(f"{self.device}: a zoo{'' if autocast is None else ' in ' + autocast}")
        task = self.task if epochs is None else self.task.with_epochs(epochs)
        count = self.arguments.surrogates
        options = {"architectures": [], "free_negatives": False, "jobs": 1, "progress": False, "autocast": autocast}
        return metav.build_zoo(self.owner, task, positives=count, negatives=count, snapshots=0, **options)

    def _joint_step(self, zoo: Zoo) -> tuple[str, float]:
        progress(f"{self.device}: the joint optimisation")
        queries, steps = self.arguments.queries, self.arguments.steps
        options = OptimizationOptions(queries=queries, adaptive=1.0, steps=steps, evaluate_every=steps)
        settings = resolve_settings(options, self.task, zoo)
        start = self.task.natural_queries(queries, seed=1).numpy()
        with fixed_arithmetic(), isolated_rng(1):
            joint = JointOptimization(self.owner, self.task, zoo, start, settings=settings, seed=1)
            joint.run(False)  # warms up
            seconds, _ = timed(lambda: joint.run(False))
        return f"joint step, {queries} queries", seconds / steps

    def _verification(self, zoo: Zoo) -> tuple[str, float]:
        progress(f"{self.device}: the verification")
        queries, repeats = self.arguments.queries, self.arguments.repeats
        options = OptimizationOptions(queries=queries, steps=2, refit_steps=20, repeats=1)
        task = self.task.with_epochs(0.1)  # the one that the zoo was built for
        fp = metav.fingerprint(self.owner, task, zoo=zoo, options=options, progress=False)
        metav.verify(fp, self.owner)  # warms up
        seconds, _ = timed(lambda: [metav.verify(fp, self.owner) for _ in range(repeats)])
        return f"verify a suspect, {queries} queries", seconds / repeats


def check_agreement(here: torch.Tensor, there: torch.Tensor) -> None:
    """Refuse the times of sides that do not compute the same."""
    error = float((here - there).abs().max() / here.abs().max())
    if not error <= TOLERANCE:
        raise Disagreement(
            f"the owner's answers on the two devices differ by {error:.2g} relative, above {TOLERANCE:g}"
        )


def rows_of(here: Side, there: Side | None) -> list[Row]:
    """One row a case; `ratio` says how many times faster CUDA is, bfloat16 beside the CPU's full precision."""
    rows: list[Row] = []
    for case in (here if there is None else there).seconds:
        cpu = here.seconds[case.removesuffix(" in bfloat16")]
        row: Row = {"case": case, "cpu_ms": significant(1e3 * cpu)}
        if there is not None:
            cuda = there.seconds[case]
            row |= {"cuda_ms": significant(1e3 * cuda), "ratio": significant(cpu / cuda)}
        rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout instead of a table")
    parser.add_argument("--width", type=int, default=64, help="channels of the first block")
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--epochs", type=float, default=2.0, help="of each training")
    parser.add_argument("--surrogates", type=int, default=6, help="of each class")
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--steps", type=int, default=20, help="of the joint optimisation")
    parser.add_argument("--repeats", type=int, default=10, help="verifications")
    parser.add_argument("--on-cpu-alone", action="store_true", help="measure the CPU's side, whatever there is")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.on_cpu_alone:
        print(f"skipped: PyTorch {torch.__version__} finds no CUDA device here, so that there is nothing to compare")
        return 0
    warnings.simplefilter("ignore", UserWarning)  # so small a zoo makes a weak fingerprint
    torch.set_num_threads(1)
    task = enlarged_digits(arguments.images, arguments.epochs)
    with isolated_rng(0):
        owner = skin_resnet18(arguments.width)
    task.train(owner, seed=0)
    progress(f"CPU: {platform.processor() or platform.machine()}, one thread; PyTorch {torch.__version__}")
    here, there = Side(owner, task, "cpu", arguments), None
    if not arguments.on_cpu_alone:
        progress(
            f"CUDA: {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
        there = Side(owner, task, "cuda", arguments)
        check_agreement(here.answers, there.answers)
    print_rows(rows_of(here, there), as_json=arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
