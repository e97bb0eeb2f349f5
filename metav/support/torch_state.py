"""PyTorch's ambient state: what a user has set around a call neither breaks nor changes what metav computes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

from metav.support.shared_changes import SharedChange

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
        stack.enter_context(without_autocast())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_DTYPE.lasting())
        stack.enter_context(_SLOW_ATTENTION.lasting())
        yield


@contextmanager
def without_autocast() -> Iterator[None]:
    """Run the body without autocast on any kind of device; it is each thread's own."""
    import torch

    with ExitStack() as stack:
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    """Run the body with another default floating dtype of PyTorch, then restore the user's.

    It is the process's: threads that do so have to take turns (`metav.support.randomness.isolated_rng`).
    """
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


def _default_to_float32() -> Any:
    import torch

    before = torch.get_default_dtype()
    if before != torch.float32:
        torch.set_default_dtype(torch.float32)
    return before


def _restore_default(dtype: Any) -> None:
    import torch

    if torch.get_default_dtype() != dtype:
        torch.set_default_dtype(dtype)


def _leave_fast_attention() -> bool:
    import torch

    before = bool(torch.backends.mha.get_fastpath_enabled())
    torch.backends.mha.set_fastpath_enabled(False)
    return before


def _restore_attention(is_fast: bool) -> None:
    import torch

    torch.backends.mha.set_fastpath_enabled(is_fast)


# the process has one of each: among several threads the first one in changes it, and the last one out restores it
_DTYPE: SharedChange[Any] = SharedChange(_default_to_float32, _restore_default)
_SLOW_ATTENTION: SharedChange[bool] = SharedChange(_leave_fast_attention, _restore_attention)


def in_standard_torch_state(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return a function that runs in `standard_torch_state`, with name, signature and docstring unchanged."""

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with standard_torch_state():
            return function(*args, **kwargs)

    return wrapper
