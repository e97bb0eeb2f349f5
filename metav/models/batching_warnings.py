"""PyTorch's warning that an operation has no batching rule: told once per architecture, not at every pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch._C import _functorch

_LOCK = threading.Lock()
_TOLD: set[str] = set()
"""Architectures that have run before. Python's own register of what was told is emptied by every change of filters."""
_SILENT: list[str] = []
"""Architectures that run now, and were told before."""


@contextmanager
def told_once(architecture: str) -> Iterator[None]:
    """Run the body, which uses vmap, with that warning the first time that it comes with this architecture.

    architecture: the signature of the models.

    Whether vmap is worth it without the rule has been measured, so that the warning asks nothing of a user.
    """
    # a filter would change what all threads are told, and PyTorch has no public switch
    switch: Any = getattr(_functorch, "_set_vmap_fallback_warning_enabled", None)
    with _LOCK:
        is_silent = architecture in _TOLD and switch is not None
        _TOLD.add(architecture)
        if is_silent:
            _SILENT.append(architecture)
            switch(False)
    try:
        yield
    finally:
        with _LOCK:
            if is_silent:
                _SILENT.remove(architecture)
                if not _SILENT:
                    switch(True)  # as PyTorch starts with
