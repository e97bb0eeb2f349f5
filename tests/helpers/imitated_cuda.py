"""A CUDA device for machines without one: tensors with real numbers that say they lie there, and a list of all copies.

What needs the device itself (its speed, its streams) is not imitated; which copies are made, and who waits, is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from metav.models import staging

CUDA = torch.device("cuda", 0)
READING = ("cpu", "numpy", "item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero")
"""Methods of a tensor on a device that make the host wait for its numbers."""


class OnCuda(Tensor):
    """A tensor of the CPU that says it lies on CUDA, as does all that is computed from it."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.device.__get__:
            return CUDA
        name = getattr(func, "__name__", "")
        if name in READING:
            _COPIES[-1].unstaged.append(name)
        result = super().__torch_function__(func, types, args, kwargs or {})
        if func is Tensor.copy_ and not isinstance(args[0], OnCuda):
            return result.as_subclass(Tensor)
        return result


@dataclass
class Copies:
    """What crossed between host and device.

    to_cuda, to_host: staged copies, by shape.
    unstaged: copies that were not staged, and reads of single numbers, by what was called.
    waits: how often the host waited for the device.
    """

    to_cuda: list[tuple[int, ...]] = field(default_factory=list)
    to_host: list[tuple[int, ...]] = field(default_factory=list)
    unstaged: list[str] = field(default_factory=list)
    waits: int = 0


_COPIES: list[Copies] = []


class _MadeThere(TorchFunctionMode):
    """Lets `torch.zeros(..., device=...)` and its like make tensors there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        is_there = func is not Tensor.to and str(options.get("device") or "").startswith("cuda")
        if is_there:
            options["device"] = "cpu"
        result = func(*args, **options)
        return result.as_subclass(OnCuda) if is_there else result


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imitate the device, for models in every module that asks where a model lies, and return what is copied."""
    found, plain_to = Copies(), Tensor.to

    def to(values: Tensor, *args: Any, **options: Any) -> Tensor:
        named = [entry for entry in (*args, options.pop("device", None)) if isinstance(entry, torch.device | str)]
        device = torch.device(named[0]) if named else None
        rest = [entry for entry in args if isinstance(entry, torch.dtype | Tensor)]
        staged = options.pop("non_blocking", False)
        if device is not None and (device.type == "cuda") != isinstance(values, OnCuda):
            if staged:
                found.to_cuda.append(tuple(values.shape))
            else:
                found.unstaged.append(f"to {device.type}")
            copy = values.clone().as_subclass(OnCuda if device.type == "cuda" else Tensor)
            return plain_to(copy, *rest, **options) if rest or options else copy
        return plain_to(values, *rest, **options) if rest or options else values

    def wait_for(device: torch.device) -> None:
        assert device == CUDA
        found.waits += 1

    def pinned_like(values: Tensor) -> Tensor:
        if isinstance(values, OnCuda):
            found.to_host.append(tuple(values.shape))
        return torch.empty_like(values.as_subclass(Tensor))

    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(staging, "_wait_for", wait_for)
    monkeypatch.setattr(staging, "_pinned_like", pinned_like)

    def batched(*args: Any, **options: Any) -> Any:
        inner = torch.func.vmap(*args, **options)
        return lambda *inputs: inner(*inputs).as_subclass(OnCuda)

    monkeypatch.setattr("metav.models.ensembles.vmap", batched)
    for module in (
        "models.running",
        "models.ensembles",
        "models.training",
        "tasks.supervised",
        "tasks.generator_training",
    ):
        monkeypatch.setattr(f"metav.{module}.device_of", lambda model: CUDA)
    _COPIES.append(found)
    with _MadeThere():
        yield found
    _COPIES.pop()
