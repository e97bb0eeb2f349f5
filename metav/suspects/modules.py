"""A PyTorch module as a suspect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, final

from metav.errors import SuspectError
from metav.support.arrays import FloatArray
from metav.support.model_interface import call_remedy
from metav.suspects.base import AskedSuspect

if TYPE_CHECKING:
    from torch import nn


@final
class ModuleSuspect(AskedSuspect):
    """A torch.nn.Module, asked in eval mode, without gradients, on its own device and in its own precision.

    module: the model; the mode of each of its parts and the global random state come back as they were.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.description = f"module {type(module).__qualname__}"

    @contextmanager
    def _session(self) -> Iterator[None]:
        from metav.models.running import evaluating
        from metav.support.randomness import isolated_rng

        # seeded once, not before the second asking: a random model then gives other answers, and its noise is measured
        with isolated_rng(0), ExitStack() as stack:
            try:
                stack.enter_context(evaluating(self.module))
            except Exception as error:
                raise SuspectError(
                    "failed",
                    f"the suspect cannot be put in eval mode ({type(error).__name__}: {error}); pass a callable that "
                    "runs it",
                ) from error
            yield

    def _ask(self, batch: FloatArray) -> Any:
        import torch

        from metav.models.running import device_of

        floating = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        dtype = next(floating, torch.float32)
        queries = torch.from_numpy(batch).to(device=device_of(self.module), dtype=dtype)
        try:
            return self.interface.call(self.module, queries)
        except TypeError as error:
            remedy = call_remedy(self.module.forward) if self.interface.calls_plainly else None
            if remedy is None:
                raise
            raise SuspectError("failed", f"the suspect failed ({error}); {remedy}") from error
