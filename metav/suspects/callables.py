"""Any function from a batch of queries to answers as a suspect: a remote call, an ONNX session, another framework."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, final

from metav.errors import InputError, MissingDependencyError, SuspectError
from metav.support.arrays import FloatArray
from metav.support.model_answers import OutputChoice
from metav.support.model_interface import ModelInterface
from metav.suspects.base import AskedSuspect

Accepts: TypeAlias = Literal["numpy", "torch"]

_MISFITS = (TypeError, AttributeError, ValueError, RuntimeError)
"""What a function raises when it is given an array of another library than it expects."""


@final
class CallableSuspect(AskedSuspect):
    """A callable from a float32 batch (n, ...) to answers (n, ...), which are a PyTorch tensor, an array or lists.

    function: the callable.
    accepts: what it is given, "numpy" or "torch". None: an array; where PyTorch is loaded, first a tensor, and an array
        if it fails on that. Then the first batch is sent twice: state what it accepts where each call costs.
    name: that it goes by in verdicts and logs; None is its own, which other functions may have, too.
    input, constants, output: which of its parameters takes the queries, what others are given, and which part of its
        answer counts (see `ModelInterface`).

    Raises InputError for another value of `accepts`, MissingDependencyError where PyTorch is asked for and missing.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        accepts: Accepts | None = None,
        name: str | None = None,
        input: str | None = None,
        constants: Mapping[str, Any] | None = None,
        output: OutputChoice | None = None,
    ) -> None:
        if accepts not in (None, "numpy", "torch"):
            raise InputError(f'accepts must be "numpy", "torch" or None, got {accepts!r}')
        if accepts == "torch":
            _require_torch()
        self.interface = ModelInterface(output=output, input=input, constants=constants or {})
        self.function = function
        self.accepts = accepts
        own = getattr(function, "__qualname__", None) or type(function).__qualname__
        self.description = f"callable {own if name is None else name}"

    def _ask(self, batch: FloatArray) -> Any:
        if self.accepts is None:
            self.accepts, answer = self._tried(batch)
            return answer
        return self._given(batch, self.accepts)

    def _tried(self, batch: FloatArray) -> tuple[Accepts, Any]:
        """Return what the function accepts, "numpy" or "torch", with its answer."""
        if sys.modules.get("torch") is None:
            return "numpy", self._given(batch, "numpy")
        try:
            return "torch", self._given(batch.copy(), "torch")
        except _MISFITS as first:
            try:
                return "numpy", self._given(batch, "numpy")
            except _MISFITS as second:
                raise SuspectError(
                    "failed",
                    f"the suspect failed on queries of shape {batch.shape}, given a tensor "
                    f"({type(first).__name__}: {first}) and given an array ({type(second).__name__}: {second})",
                ) from first

    def _given(self, batch: FloatArray, kind: Accepts) -> Any:
        if kind == "numpy":
            return self.interface.call(self.function, batch)
        import torch

        with torch.no_grad():
            return self.interface.call(self.function, torch.from_numpy(batch))


def _require_torch() -> None:
    try:
        import torch  # noqa: F401 (whether it can be imported is the question)
    except ImportError as error:
        raise MissingDependencyError(
            'accepts="torch" needs PyTorch; install the extra "torch" of metav-fingerprint, or pass accepts="numpy"'
        ) from error
