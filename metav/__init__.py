"""Fingerprints of trained models, to tell whether a suspect was derived from an owner's."""

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
        QueryLogError,
        SuspectError,
        TransportError,
        ZooError,
    )
    from metav.estimation import Estimate, estimate
    from metav.fingerprinting import fingerprint
    from metav.fingerprints.fingerprint import Fingerprint, load
    from metav.models.adapters import adapt_model
    from metav.optimization.options import OptimizationOptions
    from metav.support.processor import CpuInfo, cpu_info, get_num_threads, set_num_threads
    from metav.suspects.asking_options import AskingOptions
    from metav.tasks.base import Task
    from metav.tasks.classification import Classification
    from metav.tasks.generation import Generation
    from metav.tasks.multi_label import MultiLabelClassification
    from metav.tasks.regression import Regression
    from metav.tasks.segmentation import Segmentation
    from metav.verdicts.evaluation import Evaluation, evaluate
    from metav.verdicts.release_gate import ReleaseGate, check_release
    from metav.verdicts.scanning import scan
    from metav.verdicts.verdict import Decision, Verdict
    from metav.verdicts.verification import verify
    from metav.zoo.building import build_suspects, build_zoo
    from metav.zoo.zoo import Zoo

__version__ = "0.2.0"
"""The version of the Python files, which the C core and the distribution take from here."""

__all__ = [
    "ArtefactError",
    "AskingOptions",
    "CacheError",
    "Classification",
    "CpuInfo",
    "Decision",
    "Estimate",
    "Evaluation",
    "Fingerprint",
    "Generation",
    "InputError",
    "MetavError",
    "MissingDependencyError",
    "ModelError",
    "MultiLabelClassification",
    "ObfuscationError",
    "OptimizationOptions",
    "QueryLogError",
    "Regression",
    "ReleaseGate",
    "Segmentation",
    "SuspectError",
    "Task",
    "TransportError",
    "Verdict",
    "Zoo",
    "ZooError",
    "__version__",
    "adapt_model",
    "build_suspects",
    "build_zoo",
    "check_release",
    "cpu_info",
    "estimate",
    "evaluate",
    "fingerprint",
    "get_num_threads",
    "load",
    "obfuscations",
    "scan",
    "set_num_threads",
    "verify",
]

_HOMES = {
    "metav.errors": (
        "ArtefactError CacheError InputError MetavError MissingDependencyError ModelError ObfuscationError "
        "QueryLogError SuspectError TransportError ZooError"
    ),
    "metav.support.processor": "CpuInfo cpu_info get_num_threads set_num_threads",
    "metav.tasks.base": "Task",
    "metav.tasks.classification": "Classification",
    "metav.tasks.regression": "Regression",
    "metav.tasks.generation": "Generation",
    "metav.tasks.multi_label": "MultiLabelClassification",
    "metav.tasks.segmentation": "Segmentation",
    "metav.models.adapters": "adapt_model",
    "metav.zoo.zoo": "Zoo",
    "metav.zoo.building": "build_suspects build_zoo",
    "metav.optimization.options": "OptimizationOptions",
    "metav.fingerprints.fingerprint": "Fingerprint load",
    "metav.fingerprinting": "fingerprint",
    "metav.estimation": "Estimate estimate",
    "metav.suspects.asking_options": "AskingOptions",
    "metav.verdicts.verdict": "Decision Verdict",
    "metav.verdicts.verification": "verify",
    "metav.verdicts.release_gate": "ReleaseGate check_release",
    "metav.verdicts.scanning": "scan",
    "metav.verdicts.evaluation": "Evaluation evaluate",
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    # Names are imported when first used: PyTorch only where models run, and not to read a fingerprint.
    if name == "_core":  # asked for by `from metav import _core`, as long as it is not loaded
        value: Any = _compiled_core()
    elif name == "obfuscations":
        value = _imported("metav.obfuscations")
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
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from metav.errors import MissingDependencyError

        raise MissingDependencyError(
            f'{module} needs PyTorch, which is not installed; install the extra "torch" of metav-fingerprint'
        ) from error


def _compiled_core() -> Any:
    from importlib import import_module

    try:
        return import_module("metav._core")
    except ModuleNotFoundError as error:
        if error.name != "metav._core":
            raise
        raise ImportError(
            f"the metav in {__path__[0]} is not compiled; if these are its sources and metav is installed elsewhere, "
            "start Python in another folder, else `pip install -e .` in the folder above compiles it",
            name=error.name,
        ) from error
