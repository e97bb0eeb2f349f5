"""How a model is run and copied without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from metav.errors import ModelError
from metav.models.copying import duplicate
from metav.models.staging import HOST, on_device
from metav.models.stored_tensors import StoredTensor, gathered_rows, joined_rows
from metav.support.arrays import batch_sizes
from metav.support.locks import ForkSafeLock
from metav.support.shared_changes import SharedChange

Teacher = Callable[[Tensor], Tensor]
"""A module or callable whose outputs another model is trained on."""


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer, the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the body with all of the model's parts in eval mode and no gradients, then restore the mode of each part.

    Several threads may do so with one model: the last one restores.
    """
    with _eval_mode(model), torch.no_grad():
        yield


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Run the body with a model in eval mode; each part gets its mode back when no body needs it any more."""
    entered: dict[int, SharedChange[bool]] = {}
    try:
        with _MODES_LOCK:
            modules = {id(module): module for module in model.modules()}
            if any(module.training or key in _MODES for key, module in modules.items()):
                for key, module in modules.items():
                    entered[key] = _MODES.setdefault(key, _mode_of(module))
                    entered[key].enter()
            model.eval()
        yield
    finally:
        with _MODES_LOCK:
            for key, mode in entered.items():
                mode.leave()
                if not mode.is_made:
                    _MODES.pop(key, None)


def _mode_of(module: nn.Module) -> SharedChange[bool]:
    def undo(mode: bool) -> None:
        module.training = mode

    return SharedChange(lambda: module.training, undo)


_MODES: dict[int, SharedChange[bool]] = {}
"""The modules that are in eval mode for a while, by their id; each entry keeps its module alive."""
_MODES_LOCK = ForkSafeLock()


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Run the body so that answers in eval mode have a gradient: cuDNN's recurrent layers have none there."""
    recurrent = device_of(model).type == "cuda" and any(isinstance(part, nn.RNNBase) for part in model.modules())
    if not recurrent:
        yield
        return
    with torch.backends.cudnn.flags(enabled=False):
        yield


def predict(
    model: Teacher,
    inputs: Tensor,
    *,
    rows: Tensor | None = None,
    batch_size: int = 512,
    device: torch.device = HOST,
) -> Tensor:
    """Return the outputs (n, ...) of a module (in eval mode, on its device) or callable, float32 on the CPU.

    inputs: (n, ...).
    rows: which of them, (m,); None for all.
    batch_size: how many of them are run at once; a last batch is never a single one, on which some models fail.
    device: where the outputs are wanted instead; those that stay on the model's are waited for by nobody.

    Raises ModelError where the outputs are no tensor.
    """
    if not isinstance(model, nn.Module):
        with torch.no_grad():
            outputs = (_as_output(model(batch), batch, device) for batch in _batches(inputs, rows, batch_size))
            return _joined(outputs, inputs, rows)
    own = device_of(model)
    with evaluating(model):
        batches = _batches(inputs, rows, batch_size)
        outputs = (_as_output(model(on_device(batch, own)), batch, device) for batch in batches)
        return _joined(outputs, inputs, rows)


def _joined(outputs: Iterator[Tensor], inputs: Tensor, rows: Tensor | None) -> Tensor:
    if isinstance(inputs, StoredTensor):
        return gathered_rows(outputs, len(inputs if rows is None else rows))
    return joined_rows(outputs, "the answers")


def _batches(inputs: Tensor, rows: Tensor | None, batch_size: int) -> Iterator[Tensor]:
    if rows is None:
        yield from torch.split(inputs, batch_sizes(len(inputs), batch_size))
        return
    for part in torch.split(rows, batch_sizes(len(rows), batch_size)):
        yield inputs[part]


def _as_output(output: object, inputs: Tensor, device: torch.device) -> Tensor:
    if not isinstance(output, Tensor):
        raise ModelError(
            f"a model must answer with one tensor, got {type(output).__name__}; name the part that counts with "
            "output=, or pass metav.adapt_model(model, output=...)"
        )
    if output.is_complex():
        raise ModelError(f"a model must answer with real numbers, got {output.dtype}; return .real, .abs() or both")
    # a model that squeezes its answers gives a single one without the axis of examples
    squeezed = len(inputs) == 1 and (output.ndim == 0 or len(output) != 1)
    return on_device((output[None] if squeezed else output).detach().to(dtype=torch.float32), device)


def copied(model: nn.Module) -> nn.Module:
    """Return a float32 copy in eval mode whose floating parameters can be trained; the model itself is not touched.

    What only says how a model runs (`torch.compile`, `DataParallel`) is left away.

    Raises ModelError for a model that cannot be copied.
    """
    clone = _prepared(duplicate(model).float())
    for parameter in clone.parameters():
        parameter.grad = None
        parameter.requires_grad_(parameter.is_floating_point())
    return clone


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a private copy for inference: eval mode, no parameter gradients; the original stays untouched.

    Raises ModelError for a model that cannot be copied.
    """
    return frozen(_prepared(duplicate(model)))


def frozen(model: nn.Module) -> nn.Module:
    """Return the model itself, with parameters that take no gradient; scripted ones lack `requires_grad_`."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return model


def _prepared(clone: nn.Module) -> nn.Module:
    try:
        return clone.eval()
    except Exception as error:
        raise ModelError(
            f"the model of class {type(clone).__qualname__} cannot be put in eval mode ({type(error).__name__}: "
            f"{error}); pass the module that it was exported from"
        ) from error
