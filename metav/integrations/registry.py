"""The table of integrations: one row and one file for each framework that trains models."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType

from metav.errors import MissingDependencyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Integration:
    """One framework.

    name: of it, for people.
    home: of what users import, as "module:name".
    libraries: modules that have it, any of which will do, the preferred one first; none for PyTorch itself.
    when: at which point of its training the fingerprint is made.
    """

    name: str
    home: str
    libraries: tuple[str, ...]
    when: str


INTEGRATIONS: tuple[Integration, ...] = (
    Integration(
        name="a loop of one's own",
        home="metav.integrations.loop:fingerprinting",
        libraries=(),
        when="at the end of the context",
    ),
    Integration(
        name="Lightning",
        home="metav.integrations.lightning:FingerprintCallback",
        libraries=("lightning.pytorch", "pytorch_lightning"),
        when="`on_fit_end`, global rank zero",
    ),
    Integration(
        name="Hugging Face Trainer",
        home="metav.integrations.huggingface:FingerprintCallback",
        libraries=("transformers",),
        when="`on_train_end`, world process zero",
    ),
    Integration(
        name="accelerate",
        home="metav.integrations.accelerate:fingerprinting",
        libraries=("accelerate",),
        when="at the end of the context, main process",
    ),
    Integration(
        name="skorch",
        home="metav.integrations.skorch:FingerprintCallback",
        libraries=("skorch",),
        when="`on_train_end`",
    ),
)
"""All of them."""


def integration(name: str) -> Integration:
    """Return an integration by its name."""
    return next(entry for entry in INTEGRATIONS if entry.name == name)


def require_integration(name: str) -> ModuleType:
    """Return the library of an integration: the one that is in use, else one that is installed.

    Raises MissingDependencyError, saying how to install it, where there is none.
    """
    libraries = integration(name).libraries
    missing: list[ImportError] = []
    for library in sorted(libraries, key=lambda library: library not in sys.modules):
        try:
            return importlib.import_module(library)
        except ImportError as error:
            missing.append(error)
    package = libraries[0].partition(".")[0]
    raise MissingDependencyError(
        f'fingerprints in {name} need {package}, which is not installed: pip install ".[{package}]" in the folder of '
        "metav"
    ) from missing[0]
