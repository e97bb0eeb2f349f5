"""Copies of models: without the wrappers that only say how a model runs, and with all hooks and reparametrisations."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from metav.errors import ModelError

REPARAMETRISING_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)
"""Hooks of PyTorch that compute a weight before each forward pass."""
COMPILED = "_orig_mod."
"""Part of the names in the state of a model that was compiled by `torch.compile`."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside `torch.compile`, `DataParallel` and `DistributedDataParallel`, which compute the same."""
    while _is_parallel(model) or _is_compiled(model):
        model = model._orig_mod if _is_compiled(model) else model.module  # type: ignore[assignment]
    return model


def duplicate(model: nn.Module) -> nn.Module:
    """Return a deep copy of the unwrapped model, its compiled parts as they were before.

    Tensors that a hook computes before each forward pass (pruning, the old weight_norm and spectral_norm) are copied as
    values.

    Raises ModelError, naming what stands in the way, for a model that cannot be copied.
    """
    model = unwrapped(model)
    _check_values(model)
    # deepcopy refuses tensors with a history; put into its memo, they are found copied already
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in _computed_tensors(model)}
    try:
        with torch.no_grad():  # a scripted model would copy its weights with a history
            clone: nn.Module = copy.deepcopy(model, memo)
    except Exception as error:
        raise ModelError(
            f"the model of class {type(model).__qualname__} cannot be copied ({_first_line(error)}){_culprit(model)}; "
            "pass a module that copy.deepcopy accepts, and keep no open files, locks or generators as attributes"
        ) from error
    for module in [part for part in clone.modules() if not isinstance(part, torch.jit.ScriptModule)]:
        for name, child in module._modules.items():
            if child is not None and _is_compiled(child):
                module._modules[name] = unwrapped(child)
    return clone


def recompute_weights(model: nn.Module) -> nn.Module:
    """Return the model, with the weights that hooks compute from others (pruning, the old norms) computed anew.

    A forward pass does so itself; this is for those who read a weight before one.
    """
    for module in model.modules():
        for hook in () if isinstance(module, torch.jit.ScriptModule) else module._forward_pre_hooks.values():
            if isinstance(hook, REPARAMETRISING_HOOKS):
                with torch.no_grad():
                    hook(module, ())
    return model


def _is_compiled(model: nn.Module) -> bool:
    return type(model).__name__ == "OptimizedModule" and type(model).__module__.startswith("torch._dynamo")


def _is_parallel(model: nn.Module) -> bool:
    return isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)


def _check_values(model: nn.Module) -> None:
    """Raise ModelError for parameters or buffers that have no values yet."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ModelError(
                f"{name} of the model has no values yet, as its layer is lazy; run the model once on a batch "
                "before you pass it"
            )
        if tensor.is_meta:
            raise ModelError(
                f"{name} of the model has no values, as it lies on the device meta; load its weights with "
                "model.to_empty(device='cpu') and load_state_dict"
            )


def _computed_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors with a history that the modules hold as attributes, also inside lists and dictionaries."""
    waiting: list[Any] = [value for module in model.modules() for value in vars(module).values()]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if not value.is_leaf:
                yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def _culprit(model: nn.Module) -> str:
    """Return which attribute of which part cannot be copied, as a part of a message; nothing where none is found."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                copy.deepcopy(value, {id(module): module})
            except Exception:
                where = f"{name}.{attribute}" if name else attribute
                return f": its attribute {where} is a {type(value).__name__}"
    return ""


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def is_quantized(module: nn.Module) -> bool:
    """Return whether a module holds quantised weights, which have no gradient."""
    home = type(module).__module__
    from_quantization = home.startswith("torch.ao.nn.") and "quantized" in home
    return from_quantization or any(
        parameter.dtype in (torch.int8, torch.uint8) for parameter in module.parameters(recurse=False)
    )


def state_names(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model's state by name, without what wrappers add to the names."""
    state = unwrapped(model).state_dict()
    return {name.replace(COMPILED, ""): value for name, value in state.items() if isinstance(value, Tensor)}
