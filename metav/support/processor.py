"""The processor that the C core runs on: its instruction set and its threads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from metav import _core


@dataclass(frozen=True)
class CpuInfo:
    """What the C core uses.

    isa: the instruction set of its kernels, the best one of `isas` unless METAV_ISA named another at import.
    isas: those that this processor has kernels for, best first, out of "avx512", "avx2", "neon", "generic".
    cpus: how many CPUs affinity and control group leave to this process.
    threads: how many one call may use; see `set_num_threads`.
    """

    isa: str
    isas: tuple[str, ...]
    cpus: int
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON has them."""
        return {**asdict(self), "isas": list(self.isas)}


def cpu_info() -> CpuInfo:
    """Instruction set and threads of the C core; worth quoting beside every timing."""
    return CpuInfo(**_core.cpu_info())


def get_num_threads() -> int:
    """How many threads one call of the C core may use."""
    return _core.get_num_threads()


def set_num_threads(threads: int, /) -> None:
    """Lets one call of the C core use up to `threads` threads, 1 to 256; results are the same for every number.

    At import it is METAV_NUM_THREADS, else OMP_NUM_THREADS where that is less than the CPUs of this process, else
    those. PyTorch has threads of its own: `torch.set_num_threads`.
    """
    _core.set_num_threads(threads)
