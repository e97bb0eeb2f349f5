"""The identity of models and of code: SHA-256 over named tensors and canonical text, behind cache keys and salts."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def tensor_digest(tensors: Mapping[str, Tensor], options: Mapping[str, Any] | None = None) -> str:
    """Return the hexadecimal SHA-256 over options and tensors.

    tensors: by name; names, dtypes, shapes and bytes enter, sorted by name.
    options: enter as canonical JSON.
    """
    sha = hashlib.sha256(json.dumps(dict(options or {}), sort_keys=True, default=str).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if tensor.numel():
            sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # without a copy
    return sha.hexdigest()


def stated_name(thing: Any) -> str | None:
    """Return the `identity_name` that a class or function itself states, not a base class of it; None for none."""
    name = vars(thing).get("identity_name") if hasattr(thing, "__dict__") else None
    return name if isinstance(name, str) else None


def class_name(cls: type) -> str:
    """Return the name that a class states, else its qualified name within its module."""
    return stated_name(cls) or cls.__qualname__


def source_identity(thing: Any) -> str:
    """Return a text that changes with what a function or class does.

    A class or function that states an `identity_name` goes by it alone: it keeps its identity when it moves or is
        rewritten, and has to state another name (such as "Residual/2") when it computes something else. Any other goes
        by its qualified name and, where it is found, its source.
    """
    stated = stated_name(thing)
    if stated is not None:
        return f"name {stated}"
    name = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    try:
        return f"{name}\n{inspect.getsource(thing)}"
    except (OSError, TypeError):
        return name


def architecture_identity(model: nn.Module) -> str:
    """Return a digest of what a model computes apart from its weights: class, structure, code and state shapes."""
    classes = sorted({source_identity(type(module)) for module in model.modules() if not _is_torch(module)})
    shapes = {name: _shape(value) for name, value in model.state_dict().items()}
    scripts = sorted({module.code for module in model.modules() if isinstance(module, torch.jit.ScriptModule)})
    described = {"repr": repr(model), "classes": classes, "shapes": shapes, **({"scripts": scripts} if scripts else {})}
    return tensor_digest({}, described)


def state_digest(model: nn.Module) -> str:
    """Return a digest of a model's architecture and all its weights and buffers."""
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return tensor_digest(state, {"architecture": architecture_identity(model)})


def _shape(value: Any) -> list[Any]:
    """Return dtype and shape of a tensor, the type of anything else that a state holds."""
    return [str(value.dtype), list(value.shape)] if isinstance(value, Tensor) else [type(value).__qualname__]


def _is_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")
