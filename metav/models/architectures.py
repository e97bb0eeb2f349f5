"""Fresh models: an owner's class with new weights, plain networks that fit a task, and the check that one does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metav.errors import ModelError
from metav.models.copying import unwrapped
from metav.models.running import copied
from metav.support.randomness import isolated_rng

Architecture = Callable[[], nn.Module]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


def reinitialized(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a model with new weights.

    Every part calls its `reset_parameters`. What no such method redraws (raw parameters, weight-norm magnitudes) is
    drawn from a normal distribution with its own mean and standard deviation.

    seed: of the new weights; the global random state is untouched.
    """
    clone = copied(model)
    with isolated_rng(seed), torch.no_grad():
        redraw(clone)
    return clone


def redraw(module: nn.Module) -> None:
    """Redraw all weights of a module in place, from torch's global generator; masks of pruned weights are shuffled."""
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for part in module.modules():
        for method in ("reset_parameters", "_reset_parameters"):
            reset = getattr(part, method, None)
            if callable(reset):
                reset()
                break
    with torch.no_grad():
        redraw_normally([entry for name, entry in module.named_parameters() if torch.equal(entry, before[name])])
        for part in module.modules():
            for name, mask in part.named_buffers(recurse=False):
                if name.endswith("_mask") and hasattr(part, f"{name.removesuffix('_mask')}_orig"):
                    mask.copy_(_shuffled(mask))


def redraw_normally(parameters: Iterable[Tensor]) -> None:
    """Redraw parameters in place from normal distributions with the mean and the standard deviation of each."""
    with torch.no_grad():
        for parameter in parameters:
            if parameter.is_floating_point() and parameter.numel() > 1 and float(parameter.std()) > 0.0:
                parameter.normal_(float(parameter.mean()), float(parameter.std()))


def _shuffled(mask: Tensor) -> Tensor:
    """Return a mask (channels, ...) with its entries in random order; whole channels where these are masked whole."""
    rows = mask.flatten(1) if mask.ndim > 1 else mask[:, None]
    if bool((rows == rows[:, :1]).all()):
        return mask[torch.randperm(len(mask)).to(mask.device)]
    return mask.flatten()[torch.randperm(mask.numel()).to(mask.device)].reshape(mask.shape)


@dataclass(frozen=True, slots=True)
class OwnerArchitecture:
    """The owner's own class: each call returns a copy, its weights drawn anew from the global generator."""

    model: nn.Module

    def __call__(self) -> nn.Module:
        """Return a copy of the owner's model with new weights."""
        clone = copied(self.model)
        with torch.no_grad():
            redraw(clone)
        return clone


@dataclass(frozen=True, slots=True)
class PlainArchitecture:
    """A fully connected network for inputs and outputs of any shape; each call returns a fresh one.

    Inputs are standardised and outputs scaled, so that the network trains on data of any unit.

    input_shape, output_shape: of one input and of one output.
    widths: units of each hidden layer.
    activation: a name in ACTIVATIONS.
    center, scale: mean and scale of the inputs, one number per feature or one for all.
    output_center, output_scale: the same of the outputs.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    widths: tuple[int, ...]
    activation: str
    center: Tensor
    scale: Tensor
    output_center: Tensor
    output_scale: Tensor

    def __call__(self) -> nn.Module:
        """Return a fresh network."""
        return PlainNetwork(self)


class PlainNetwork(nn.Module):
    """The network of a PlainArchitecture."""

    center: Tensor
    scale: Tensor
    output_center: Tensor
    output_scale: Tensor

    def __init__(self, plan: PlainArchitecture) -> None:
        super().__init__()
        self.output_shape = plan.output_shape
        for name in ("center", "scale", "output_center", "output_scale"):
            self.register_buffer(name, getattr(plan, name).clone())
        sizes = (math.prod(plan.input_shape), *plan.widths)
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[plan.activation]()]
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], math.prod(plan.output_shape)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs (n, *output_shape) of inputs (n, *input_shape)."""
        outputs: Tensor = self.body((inputs.flatten(1) - self.center) / self.scale)
        return (outputs * self.output_scale + self.output_center).reshape(len(inputs), *self.output_shape)


def build(architecture: Architecture, seed: int) -> nn.Module:
    """Return a fresh model of an architecture, its weights drawn from `seed`; the global random state is untouched.

    Raises ModelError where the architecture returns no module.
    """
    with isolated_rng(seed):
        model = architecture()
    if not isinstance(model, nn.Module):
        raise ModelError(f"an architecture must return a torch.nn.Module, got {type(model).__name__}")
    return unwrapped(model).float().eval()
