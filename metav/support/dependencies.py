"""Optional libraries: what to say where one is missing."""

from __future__ import annotations

import importlib

from metav.errors import MissingDependencyError


def require(purpose: str, *modules: str, extra: str) -> None:
    """Raise MissingDependencyError, saying how to install it, where a module of an extra cannot be imported.

    purpose: what needs the modules, the start of the message.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingDependencyError(
                f'{purpose} needs {module}, which is not installed: pip install ".[{extra}]" in the folder of metav'
            ) from error


def require_torch(purpose: str) -> None:
    """Raise MissingDependencyError, saying how to install it, where PyTorch is missing.

    purpose: what needs PyTorch, the start of the message.
    """
    try:
        import torch  # noqa: F401 (whether it can be imported is the question)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs PyTorch, which is not installed: pip install torch (from the folder of metav: "
            'pip install ".[torch]")'
        ) from error
