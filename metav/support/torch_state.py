"""PyTorch's ambient state: what a user has set around a call neither breaks nor changes what metav computes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Kinds of device for which autocast is switched off."""


@contextmanager
def standard_torch_state() -> Iterator[None]:
    """Run the body in the state that PyTorch starts in, then restore the user's; without PyTorch loaded, just run it.

    That is: gradients on, no inference mode, no autocast, float32 and the CPU as defaults. The fast path of attention
    is off, as it has no gradient where models run together. Deterministic algorithms stay as they are: they change no
    result, only what raises an error.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(default_dtype(torch.float32))
        attention = torch.backends.mha
        if attention.get_fastpath_enabled():
            attention.set_fastpath_enabled(False)
            stack.callback(attention.set_fastpath_enabled, True)
        yield


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    """Run the body with another default floating dtype of PyTorch, then restore the user's."""
    import torch

    before = torch.get_default_dtype()
    if before == dtype:
        yield
        return
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def in_standard_torch_state(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return a function that runs in `standard_torch_state`, with name, signature and docstring unchanged."""

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with standard_torch_state():
            return function(*args, **kwargs)

    return wrapper
