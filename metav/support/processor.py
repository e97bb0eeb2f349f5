"""The processor that the C core runs on: its instruction set and its threads."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

from metav import _core
from metav.support.arguments import count

JOBS_VARIABLE = "METAV_JOBS"
MOST_JOBS = 1024
"""Largest number of worker processes that can be asked for."""


@dataclass(frozen=True)
class CpuInfo:
    """The processor as the C core uses it.

    isa: the instruction set of its kernels, the best one of `isas` unless METAV_ISA named another at import.
    isas: the instruction sets that the core can use here, best first, out of "avx512", "avx2", "neon", "generic".
    cpus: how many CPUs affinity and control group leave to this process.
    threads: how many one call may use; see `set_num_threads`.
    """

    isa: str
    isas: tuple[str, ...]
    cpus: int
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        return {**asdict(self), "isas": list(self.isas)}


def cpu_info() -> CpuInfo:
    """Return the instruction set and the threads of the C core; worth quoting beside every timing."""
    return CpuInfo(**_core.cpu_info())


def get_num_threads() -> int:
    """Return how many threads one call of the C core may use."""
    return _core.get_num_threads()


def set_num_threads(threads: int, /) -> None:
    """Set how many threads one call of the C core may use; results are the same for every number.

    threads: 1 to 256. At import it is METAV_NUM_THREADS, else OMP_NUM_THREADS where that is less than the CPUs of this
        process, else the number of those CPUs.

    PyTorch has threads of its own: `torch.set_num_threads`.
    """
    _core.set_num_threads(threads)


def job_count(jobs: Any) -> int:
    """Return how many processes an argument `jobs` stands for.

    jobs: 1 to MOST_JOBS; -1 stands for all cores that affinity and control group leave to this process; None for the
        number in the environment variable METAV_JOBS, or the same where there is none.

    Raises InputError for anything else.
    """
    name = "jobs"
    if jobs is None and JOBS_VARIABLE in os.environ:
        name, text = JOBS_VARIABLE, os.environ[JOBS_VARIABLE].strip()
        jobs = int(text) if re.fullmatch("-?[0-9]{1,9}", text) else text
    if jobs is None or (isinstance(jobs, Integral) and not isinstance(jobs, bool) and jobs == -1):
        return cpu_info().cpus
    return count(name, jobs, most=MOST_JOBS, remedy="-1 stands for one process per core")
