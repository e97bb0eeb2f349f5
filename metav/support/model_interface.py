"""How a model is called, and which part of what it answers counts, where that is more than one tensor to one tensor."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from metav.errors import InputError
from metav.support.model_answers import OutputChoice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelInterface:
    """How a model is asked; the defaults are those of a model from one tensor to one tensor.

    output: which part of its answer counts: a name, a number, or a function from the answer to a tensor; None for the
        one that fits the task.
    input: name of the parameter that takes the queries; None for the first one.
    constants: what its other parameters are given with every batch, by name. An array of two axes and more whose
        first one is 1 is repeated for each query.
    is_of_owner: whether it is said of the model itself, or of the owner's: then a part that is not there is not missed.

    Raises InputError for other types, or a parameter that would be given twice.
    """

    output: OutputChoice | None = None
    input: str | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    is_of_owner: bool = True

    def __post_init__(self) -> None:
        is_choice = self.output is None or isinstance(self.output, str | int) or callable(self.output)
        if not is_choice or isinstance(self.output, bool):
            raise InputError(f"output must be a name, a number or a function, got {type(self.output).__name__}")
        if not (self.input is None or isinstance(self.input, str)):
            raise InputError(
                f"input must be the name of a parameter, got {type(self.input).__name__}; the other "
                "parameters go into constants={name: value}"
            )
        constants = {} if self.constants is None else self.constants
        if not isinstance(constants, Mapping) or not all(isinstance(name, str) for name in constants):
            raise InputError(
                f"constants must map names of parameters to values, got {type(constants).__name__}; pass "
                "{name: value}"
            )
        if self.input in constants:
            raise InputError(f"{self.input!r} cannot carry the queries and be constant; leave it out of constants")
        object.__setattr__(self, "constants", dict(constants))

    @property
    def is_plain(self) -> bool:
        """Whether it says nothing that goes without saying."""
        return self.output is None and self.calls_plainly

    @property
    def calls_plainly(self) -> bool:
        """Whether a model is called with the queries alone, by place."""
        return self.input is None and not self.constants

    def call(self, function: Callable[..., Any], queries: Any) -> Any:
        """Return what a function answers to a batch of queries, an array or a tensor, (n, ...)."""
        constants = {name: _for_batch(value, queries) for name, value in self.constants.items()}
        if self.input is None:
            return function(queries, **constants)
        return function(**{self.input: queries}, **constants)

    def suiting(self, function: Callable[..., Any]) -> ModelInterface:
        """Return the same without the parameters that a function, of another class than the owner's, does not take."""
        taken = parameters_of(function)
        if taken is None:
            return replace(self, is_of_owner=False)
        return replace(
            self,
            is_of_owner=False,
            input=self.input if self.input in taken else None,
            constants={name: value for name, value in self.constants.items() if name in taken},
        )

    def check_call(self, function: Callable[..., Any], name: str) -> None:
        """Raise InputError where a function has no parameter of a name that is given.

        name: of the function, for the message.
        """
        taken = parameters_of(function)
        wanted = [*([] if self.input is None else [self.input]), *self.constants]
        unknown = [entry for entry in wanted if taken is not None and entry not in taken]
        if unknown:
            raise InputError(
                f"{name} has no input {unknown[0]!r}; expected one of {', '.join(taken or ())} in input= and constants="
            )


PLAIN = ModelInterface()
"""The interface of a model from one tensor to one tensor."""


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Return the names of a function's parameters; None where it takes any, or they cannot be told."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(entry.kind is inspect.Parameter.VAR_KEYWORD for entry in parameters):
        return None
    return tuple(entry.name for entry in parameters if entry.kind is not inspect.Parameter.VAR_POSITIONAL)


def call_remedy(function: Callable[..., Any]) -> str | None:
    """Return what to do where a function needs more inputs than the queries; None where it does not."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [entry.name for entry in parameters if entry.default is entry.empty and entry.kind not in positional]
    if len(needed) < 2:
        return None
    others = ", ".join(f'"{name}": ...' for name in needed[1:])
    return (
        f"it takes {', '.join(needed)}: name the input that carries the queries, and give the others, as in "
        f'input="{needed[0]}", constants={{{others}}}'
    )


def _for_batch(value: Any, queries: Any) -> Any:
    """Return a constant as the library of the queries has it, on their device, repeated for each of them."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(queries, torch.Tensor):
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        if not isinstance(value, torch.Tensor):
            return value
        value = value.to(queries.device)
        return value.expand(len(queries), *value.shape[1:]) if value.ndim > 1 and len(value) == 1 else value
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.ndim > 1 and len(value) == 1:
        return np.broadcast_to(value, (len(queries), *value.shape[1:]))
    return value
