"""Copies between host and CUDA through pinned memory, so that only who needs the numbers waits for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

HOST = torch.device("cpu")
MOST_STAGED = 2**26
"""Bytes of one copy up to which it goes through pinned memory: PyTorch keeps that for the next one, and a page that is
pinned is lost to all else. Larger ones take so long that the waiting does not count."""


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, itself where it lies there; gradients go the same way back.

    To CUDA nobody waits: the copy takes its turn on the current stream. From CUDA to the host there is one wait, until
    the numbers are there. Between other devices it is what `Tensor.to` does.
    """
    if not _is_staged(values, device):
        return values.to(device)
    if torch.is_grad_enabled() and values.requires_grad:
        return _Moved.apply(values, device)  # type: ignore[no-any-return, no-untyped-call]
    return _staged(values.detach(), device)


class _Moved(torch.autograd.Function):
    """A staged copy whose gradient is staged as well: autograd's own would be pageable, and wait."""

    @staticmethod
    def forward(context: Any, values: Tensor, device: torch.device) -> Tensor:
        """Return the values on the device, and keep where they come from."""
        context.source = values.device
        return _staged(values, device)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> tuple[Tensor, None]:
        """Return the gradient on the device that the values came from."""
        return on_device(gradients[0], context.source), None


def _is_staged(values: Tensor, device: torch.device) -> bool:
    """Return whether a copy to a device goes through pinned memory: between host and CUDA, in either direction."""
    crosses = {values.device.type, device.type} == {"cpu", "cuda"}
    return crosses and values.layout == torch.strided and values.numel() * values.element_size() <= MOST_STAGED


def _staged(values: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        # PyTorch hands this memory out again only once the copy is done
        return _pinned_like(values).copy_(values).to(device, non_blocking=True)
    copy = _pinned_like(values).copy_(values, non_blocking=True)
    _wait_for(values.device)
    return copy


def _pinned_like(values: Tensor) -> Tensor:
    """Return memory of the host, pinned, for such a tensor; PyTorch keeps what has been given back for the next one."""
    return torch.empty_like(values, device=HOST, pin_memory=True)


def _wait_for(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it on the current stream."""
    torch.cuda.current_stream(device).record_event().synchronize()
