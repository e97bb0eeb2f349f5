"""A PyTorch module as a suspect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, final

from metav.errors import SuspectError
from metav.support.arrays import FloatArray
from metav.support.model_answers import OutputChoice
from metav.support.model_interface import ModelInterface, call_remedy
from metav.suspects.base import AskedSuspect

if TYPE_CHECKING:
    from torch import nn


@final
class ModuleSuspect(AskedSuspect):
    """A torch.nn.Module, asked in eval mode, without gradients, on its own device and in its own precision.

    module: the model; the mode of each of its parts and the global random state come back as they were. One that was
        wrapped by `torch.compile` or `DataParallel` is asked without the wrapper. Modules that are asked in several
        threads take turns.
    input, constants, output: which of its inputs takes the queries, what the others are given, and which part of its
        answer counts (see `ModelInterface`).

    Raises InputError for an input that `forward` does not have.
    """

    runs_in_this_thread = True

    def __init__(
        self,
        module: nn.Module,
        *,
        input: str | None = None,
        constants: Mapping[str, Any] | None = None,
        output: OutputChoice | None = None,
    ) -> None:
        from metav.models.copying import unwrapped

        self.module = unwrapped(module)
        self.interface = ModelInterface(output=output, input=input, constants=constants or {})
        name = type(self.module).__qualname__
        if not self.interface.calls_plainly:
            self.interface.check_call(self.module.forward, f"forward of {name}")
        self.description = f"module {name}"

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
        from metav.models.staging import on_device
        from metav.support.torch_state import default_dtype

        floating = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        dtype = next(floating, torch.float32)
        queries = on_device(torch.from_numpy(batch).to(dtype=dtype), device_of(self.module))
        # what a model in double precision makes itself, such as a first hidden state, has to be in double precision too
        with default_dtype(torch.float64 if dtype == torch.float64 else torch.float32):
            try:
                return self.interface.call(self.module, queries)
            except TypeError as error:
                remedy = call_remedy(self.module.forward) if self.interface.calls_plainly else None
                if remedy is None:
                    raise
                raise SuspectError("failed", f"the suspect failed ({error}); {remedy}") from error
