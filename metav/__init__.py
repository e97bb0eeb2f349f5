"""Fingerprints of trained models: was this suspect derived from mine?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metav import obfuscations
    from metav.errors import (
        ArtefactError,
        CacheError,
        InputError,
        MetavError,
        MissingDependencyError,
        ModelError,
        ObfuscationError,
        SuspectError,
        ZooError,
    )
    from metav.evaluation import Evaluation, evaluate
    from metav.fingerprinting import fingerprint
    from metav.fingerprints import Fingerprint, load
    from metav.optimization_options import OptimizationOptions
    from metav.processor import CpuInfo, cpu_info, get_num_threads, set_num_threads
    from metav.tasks import Classification, Generation, Regression, Task
    from metav.verdicts import Decision, Verdict, verify
    from metav.zoo import Zoo, build_suspects, build_zoo

    __version__: str

__all__ = [
    "ArtefactError",
    "CacheError",
    "Classification",
    "CpuInfo",
    "Decision",
    "Evaluation",
    "Fingerprint",
    "Generation",
    "InputError",
    "MetavError",
    "MissingDependencyError",
    "ModelError",
    "ObfuscationError",
    "OptimizationOptions",
    "Regression",
    "SuspectError",
    "Task",
    "Verdict",
    "Zoo",
    "ZooError",
    "__version__",
    "build_suspects",
    "build_zoo",
    "cpu_info",
    "evaluate",
    "fingerprint",
    "get_num_threads",
    "load",
    "obfuscations",
    "set_num_threads",
    "verify",
]

_HOMES = {
    "errors": (
        "ArtefactError CacheError InputError MetavError MissingDependencyError ModelError ObfuscationError "
        "SuspectError ZooError"
    ),
    "evaluation": "Evaluation evaluate",
    "fingerprinting": "fingerprint",
    "fingerprints": "Fingerprint load",
    "optimization_options": "OptimizationOptions",
    "processor": "CpuInfo cpu_info get_num_threads set_num_threads",
    "tasks": "Classification Generation Regression Task",
    "verdicts": "Decision Verdict verify",
    "zoo": "Zoo build_suspects build_zoo",
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    # Names are imported when first used: PyTorch only where models run, and not to read a fingerprint.
    if name == "__version__":
        value: Any = _version()
    elif name == "obfuscations":
        value = _imported(name)
    elif name in _MODULE_OF:
        value = getattr(_imported(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'metav' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _imported(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"metav.{module}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from metav.errors import MissingDependencyError

        raise MissingDependencyError(
            f'metav.{module} needs PyTorch, which is not installed; install the extra "torch" of metav-fingerprint'
        ) from error


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("metav-fingerprint")
    except PackageNotFoundError:
        return "0+unknown"
