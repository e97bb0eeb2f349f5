"""The processor that the C core runs on: its instruction set and its threads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from metav import _core


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
