"""Fresh models: an owner's class with new weights, plain networks that fit a task, and the check that one does."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metav.errors import ModelError
from metav.randomness import isolated_rng
from metav.tasks import Task
from metav.training import predict

Architecture = Callable[[], nn.Module]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


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
            "weight_norm, and keep no open files or computed tensors as attributes)."
        ) from error
    clone = clone.float()
    for parameter in clone.parameters():
        parameter.grad = None
        parameter.requires_grad_(parameter.is_floating_point())
    return clone.eval()


def reinitialized(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy with new weights: `reset_parameters` of every part, and what no such method redraws (raw
    parameters, weight-norm magnitudes) from a normal distribution with its own mean and standard deviation."""
    clone = copied(model)
    with isolated_rng(seed), torch.no_grad():
        redraw(clone)
    return clone


def redraw(module: nn.Module) -> None:
    """Redraw all weights of a module in place, from torch's global generator."""
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for part in module.modules():
        for method in ("reset_parameters", "_reset_parameters"):
            reset = getattr(part, method, None)
            if callable(reset):
                reset()
                break
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.numel() > 1 and torch.equal(parameter, before[name]) and float(parameter.std()) > 0.0:
                parameter.normal_(float(parameter.mean()), float(parameter.std()))


@dataclass(frozen=True, slots=True)
class OwnerArchitecture:
    """The owner's own class: each call returns a copy, its weights drawn anew from the global generator."""

    model: nn.Module

    def __call__(self) -> nn.Module:
        clone = copied(self.model)
        with torch.no_grad():
            redraw(clone)
        return clone


@dataclass(frozen=True, slots=True)
class PlainArchitecture:
    """A fully connected network for inputs and outputs of any shape.

    Inputs are standardised with `center` and `scale` (one number per feature or one for all); outputs are scaled by
    `output_center` and `output_scale` alike, so that it trains on data of any unit.
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
        """(n, *input_shape) -> (n, *output_shape)."""
        outputs: Tensor = self.body((inputs.flatten(1) - self.center) / self.scale)
        return (outputs * self.output_scale + self.output_center).reshape(len(inputs), *self.output_shape)


def plain_architectures(owner: nn.Module, task: Task, *, unusual: bool = False) -> list[Architecture]:
    """Return two plain networks that fit a task; `unusual` ones have other widths and activations.

    Their scales come from the task's inputs and, for tasks without classes, its targets or samples.
    """
    inputs = _inputs_of(task)
    answers = predict(owner, inputs[:2])
    output_shape = tuple(answers.shape[1:])
    targets = _targets_of(task)
    outputs = math.prod(output_shape)
    if targets is None or targets.flatten(1).shape[1] != outputs:
        output_center, output_scale = torch.zeros(1), torch.ones(1)
    else:
        output_center, output_scale = _statistics(targets.flatten(1))
    center, scale = _statistics(inputs.flatten(1))
    plans = [((96, 48), "gelu"), ((200, 100, 50), "tanh")] if unusual else [((128,), "relu"), ((128, 64), "relu")]
    return [
        PlainArchitecture(
            tuple(task.input_shape), output_shape, widths, activation, center, scale, output_center, output_scale
        )
        for widths, activation in plans
    ]


def build(architecture: Architecture, seed: int) -> nn.Module:
    """Return a fresh model of an architecture, its weights drawn from `seed`; the global random state is untouched."""
    with isolated_rng(seed):
        model = architecture()
    if not isinstance(model, nn.Module):
        raise ModelError(f"an architecture must return a torch.nn.Module, got {type(model).__name__}.")
    return model.float().eval()


def check_architectures(architectures: Sequence[Architecture], task: Task) -> None:
    """Raise ModelError, naming the index, unless each architecture gives a model that fits the task."""
    for index, architecture in enumerate(architectures):
        if not callable(architecture):
            raise ModelError(
                f"architectures[{index}] must be a callable that returns a fresh torch.nn.Module, got "
                f"{type(architecture).__name__}; pass the class or a function, not a model."
            )
        if isinstance(architecture, nn.Module):
            raise ModelError(
                f"architectures[{index}] is a model, expected a callable that returns a fresh one; pass its class or "
                "lambda: YourModel(...)."
            )
        try:
            task.check_model(build(architecture, 0))
        except Exception as error:
            raise ModelError(f"architectures[{index}] does not fit the task: {error}") from error


def _inputs_of(task: Task) -> Tensor:
    """Return up to 512 natural inputs."""
    available = len(getattr(task, "examples", ())) if task.name != "generation" else 512
    return task.natural_queries(min(512, available) if available else 2, seed=0)


def _targets_of(task: Task) -> Tensor | None:
    targets = getattr(task, "examples" if task.name == "generation" else "targets", None)
    if not isinstance(targets, Tensor) or not targets.is_floating_point():
        return None
    return targets if targets.ndim > 1 else targets[:, None]


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean per feature and one scale for all features of a kind: constant features are left as they are."""
    deviation = values.std(dim=0)
    return values.mean(dim=0), torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
