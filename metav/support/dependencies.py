"""Optional libraries: what to say where one is missing."""

from __future__ import annotations

from metav.errors import MissingDependencyError


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
