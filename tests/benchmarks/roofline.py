"""How close to the machine's limits a joint step comes: measured peaks, and a model of the step's least work.

Work counted: the three products X W, X^T dH and dH W^T, 6 M D H operations. Traffic counted: each array once, as if
caches were perfect within a step and empty between steps: Adam reads and writes parameters and both moments (24 bytes a
parameter; the gradient can be used up while it is still in the cache), the responses are read and their gradient is
written (8 bytes each). A case that fits the caches can therefore exceed the bandwidth, which is that of main memory.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from step_sides import Case
from timing import Row, significant

COPIED_BYTES = 256 << 20
ATTEMPTS = 8
COMPILERS = ("gcc", "clang", "cc")


@dataclass(frozen=True, slots=True)
class Peaks:
    """Operations and bytes in a second, at the present number of threads."""

    operations: float
    bytes: float


def measure_peaks() -> Peaks:
    """Best of some: multiply-adds in registers (fma_peak.c), and a large copy (read and write counted)."""
    source = torch.ones(COPIED_BYTES // 4)
    target = torch.zeros_like(source)
    threads = torch.get_num_threads()
    arrays = (target.numpy(), source.numpy())
    # NumPy's copy has one thread, PyTorch's as many as wanted
    copy = (lambda: np.copyto(*arrays)) if threads == 1 else (lambda: target.copy_(source))
    return Peaks(operations=_measure_operations(threads), bytes=2 * COPIED_BYTES / _best(copy))


def _measure_operations(threads: int) -> float:
    """The sum over as many processes at once as there are threads."""
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        raise SystemExit(f"--roofline compiles a loop to measure the FMA peak: install one of {', '.join(COMPILERS)}")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "fma_peak")
        source = str(Path(__file__).with_name("fma_peak.c"))
        subprocess.run([compiler, "-O3", "-march=native", "-ffp-contract=fast", source, "-o", program], check=True)
        running = [subprocess.Popen([program, "1"], stdout=subprocess.PIPE, text=True) for _ in range(threads)]
        return sum(float(process.communicate()[0].split()[0]) for process in running)


def _best(call: Callable[[], object]) -> float:
    times = []
    for _ in range(ATTEMPTS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def shares(case: Case, milliseconds: float, peaks: Peaks) -> Row:
    """Shares of both peaks that a step of this case reaches, and the limit that is nearer."""
    operations = 6 * case.models * case.responses * case.hidden
    moved = 24 * case.parameters + 8 * case.models * case.responses
    seconds = milliseconds / 1e3
    fma, bandwidth = operations / seconds / peaks.operations, moved / seconds / peaks.bytes
    return {
        "fma_share": significant(fma),
        "bandwidth_share": significant(bandwidth),
        "limit": "FMA" if fma > bandwidth else "bandwidth",
    }
