"""A PyTorch module as a suspect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, final

from metav.errors import SuspectError
from metav.support.arrays import FloatArray
from metav.suspects.base import AskedSuspect

if TYPE_CHECKING:
    from torch import nn


@final
class ModuleSuspect(AskedSuspect):
    """A torch.nn.Module, asked in eval mode, without gradients, on its own device and in its own precision.

    module: the model; the mode of each of its parts and the global random state come back as they were. One that was
        wrapped by `torch.compile` or `DataParallel` is asked without the wrapper. Modules
        that are asked in several threads take turns.
    """

    runs_in_this_thread = True

    def __init__(self, module: nn.Module) -> None:
        from metav.models.copying import unwrapped

        self.module = unwrapped(module)
        self.description = f"module {type(self.module).__qualname__}"

    @property
    def identity(self) -> str:
        """Digest of the model's structure and weights."""
        from metav.models.identity import state_digest

        return state_digest(self.module)

    @contextmanager
    def _session(self) -> Iterator[None]:
        import torch

        from metav.models.running import evaluating
        from metav.support.arithmetic import fixed_arithmetic
        from metav.support.randomness import isolated_rng

        empty = [
            name
            for name, entry in (*self.module.named_parameters(), *self.module.named_buffers())
            if torch.nn.parameter.is_lazy(entry) or entry.is_meta
        ]
        if empty:
            raise SuspectError("failed", f"the suspect has no values in {empty[0]} yet; load its weights first")
        # seeded once, not before the second asking: a random model then gives other answers, and its noise is measured
        with fixed_arithmetic(), isolated_rng(0), ExitStack() as stack:
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
        from metav.support.torch_state import default_dtype

        floating = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        dtype = next(floating, torch.float32)
        # what a model in double precision makes itself, such as a first hidden state, has to be in double precision too
        with default_dtype(torch.float64 if dtype == torch.float64 else torch.float32):
            return self.module(torch.from_numpy(batch).to(device=device_of(self.module), dtype=dtype))
