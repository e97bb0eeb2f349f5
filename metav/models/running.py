"""How a model is run and copied without leaving a trace on it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from metav.errors import ModelError

Teacher = Callable[[Tensor], Tensor]
"""A module or callable whose outputs another model is trained on."""


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer, the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the body with all of the model's parts in eval mode and no gradients, then restore the mode of each part."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def predict(model: Teacher, inputs: Tensor, *, batch_size: int = 512) -> Tensor:
    """Return the outputs (n, ...) of a module (in eval mode, on its device) or callable, float32 on the CPU.

    inputs: (n, ...).
    batch_size: how many of them are run at once.

    Raises ModelError where the outputs are no tensor.
    """
    if not isinstance(model, nn.Module):
        with torch.no_grad():
            return torch.cat([_as_output(model(batch)) for batch in torch.split(inputs, batch_size)])
    device = device_of(model)
    with evaluating(model):
        return torch.cat([_as_output(model(batch.to(device))) for batch in torch.split(inputs, batch_size)])


def _as_output(output: object) -> Tensor:
    if not isinstance(output, Tensor):
        raise ModelError(
            f"a model must answer with one tensor, got {type(output).__name__}; name the part that counts with "
            "output=, or pass metav.adapt_model(model, output=...)"
        )
    return output.detach().to(device="cpu", dtype=torch.float32)


def copied(model: nn.Module) -> nn.Module:
    """Return a float32 copy in eval mode whose floating parameters can be trained; the model itself is not touched.

    Raises ModelError for a model that cannot be copied.
    """
    try:
        clone = copy.deepcopy(model)
    except Exception as error:
        raise ModelError(
            f"the model of class {type(model).__qualname__} cannot be copied ({type(error).__name__}: {error}); "
            "pass a module that copy.deepcopy accepts (use torch.nn.utils.parametrizations.weight_norm, not the old "
            "weight_norm, and keep no open files or computed tensors as attributes)"
        ) from error
    clone = clone.float()
    for parameter in clone.parameters():
        parameter.grad = None
        parameter.requires_grad_(parameter.is_floating_point())
    return clone.eval()


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a private copy for inference: eval mode, no parameter gradients; the original stays untouched.

    Raises ModelError for a model that cannot be copied.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise ModelError(f"the model cannot be copied ({error}); give a model that copy.deepcopy accepts") from error
    twin.eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return twin
