"""The training loop: shuffled batches, a learning rate that rises and falls, and a check for divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metav.errors import InputError, ModelError
from metav.models.running import device_of
from metav.models.staging import HOST, on_device
from metav.support.randomness import derive_seed, isolated_rng

OnEpoch = Callable[[float, nn.Module], None]
"""Called after each epoch with the share of the training that is done, in (0, 1], and the model."""


OPTIMIZERS = ("adamw", "adam", "sgd")
"""Names of the optimisers: Adam with decoupled decay, Adam, and gradient descent with MOMENTUM."""
MOMENTUM = 0.9
SCHEDULES = ("warm_up_cosine", "cosine", "constant")
"""Names of the ways in which the learning rate changes in the course of a training."""
AUTOCASTS = ("bfloat16",)
"""Names of the dtypes that a model's passes may be computed in while it trains, under PyTorch's autocast."""
AUGMENTATIONS = ("shift", "noise")
"""Names of the random changes of each batch that need no code of the user's (`metav.tasks.augmentations`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How a task trains.

    epochs: > 0, fractions allowed.
    batch_size: examples per step, > 1.
    learning_rate: > 0.
    weight_decay: >= 0; decoupled for "adamw".
    optimizer: one of OPTIMIZERS.
    schedule: of the learning rate, one of SCHEDULES.
    smoothing: share of each label that is spread over all classes, in [0, 1); of classifiers only.
    augmentation: one of AUGMENTATIONS; None for none.
    until: lack of fit (`SupervisedTask.lack_of_fit`) after whose first epoch the training ends early; None for never.
    autocast: one of AUTOCASTS, the dtype of the model's passes; weights, losses and updates stay in full precision.
        None for full precision in all.

    Raises InputError for values outside these ranges.
    """

    epochs: float
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    schedule: str = "warm_up_cosine"
    smoothing: float = 0.0
    augmentation: str | None = None
    until: float | None = None
    autocast: str | None = None

    def __post_init__(self) -> None:
        for name, value, lowest in (
            ("epochs", self.epochs, 0.0),
            ("batch_size", self.batch_size, 1),
            ("learning_rate", self.learning_rate, 0.0),
        ):
            if not (math.isfinite(value) and value > lowest):
                raise InputError(f"{name} must be a finite number above {lowest}, got {value!r}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0.0):
            raise InputError(f"weight_decay must be a finite number from 0, got {self.weight_decay!r}")
        if not 0.0 <= self.smoothing < 1.0:
            raise InputError(f"smoothing must lie in [0, 1), got {self.smoothing!r}")
        augmentations, autocasts = (None, *AUGMENTATIONS), (None, *AUTOCASTS)
        for name, chosen, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("augmentation", self.augmentation, augmentations),
            ("autocast", self.autocast, autocasts),
        ):
            if chosen not in known:
                raise InputError(f"{name} must be one of {', '.join(map(str, known))}, got {chosen!r}")

    def unusual(self) -> dict[str, Any]:
        """Return what is not the default of optimiser, schedule, smoothing, augmentation, end, autocast, by name."""
        usual = {
            "optimizer": "adamw",
            "schedule": "warm_up_cosine",
            "smoothing": 0.0,
            "augmentation": None,
            "until": None,
            "autocast": None,
        }
        return {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}


def trained_pass(model: nn.Module, inputs: Tensor, options: TrainingOptions) -> Any:
    """Return a model's answer to inputs on its device, computed under autocast where the options say so.

    What comes back is then in bfloat16; `full_precision` undoes that before a loss is made of it.
    """
    if options.autocast is None:
        return model(inputs)
    # no cache: a weight is cast once in a pass, and casts made without gradients must not serve one with them
    with torch.autocast(inputs.device.type, dtype=getattr(torch, options.autocast), cache_enabled=False):
        return model(inputs)


def full_precision(outputs: Tensor, options: TrainingOptions) -> Tensor:
    """Return outputs as a loss takes them: as they are, or in float32 where they were computed under autocast."""
    return outputs if options.autocast is None else outputs.float()


def fit(
    model: nn.Module,
    batch_loss: Callable[[Tensor], Tensor],
    *,
    count: int,
    options: TrainingOptions,
    seed: int,
    parameters: Sequence[Tensor],
    extra_parameters: Iterable[Tensor] = (),
    on_epoch: OnEpoch | None = None,
    is_enough: Callable[[], bool] | None = None,
    places: torch.device | None = None,
) -> None:
    """Minimise `batch_loss(indices)` over shuffled batches of `count` examples.

    batch_loss: from the indices of one batch to a scalar loss.
    parameters: of the model, to train.
    extra_parameters: to train along with them, of other models.
    on_epoch: called after each epoch with (share done, model); it sees a random state of its own, so that it cannot
        disturb the training.
    is_enough: asked after each epoch whether the training ends there; sees such a state, too.
    places: device of the indices; None for the model's.

    A last batch of one example is dropped (batch norm needs two).

    Raises ModelError when the loss stops being finite.
    """
    optimizer = _optimizer([*parameters, *extra_parameters], options)
    factor = _RATE_FACTORS[options.schedule]
    generator = torch.Generator().manual_seed(derive_seed(seed, "shuffle"))
    total = max(1, round(options.epochs * batches_per_epoch(count, options.batch_size)))
    device, step = device_of(model) if places is None else places, 0
    while step < total:
        loss = torch.zeros(())
        for indices in shuffled_batches(count, options.batch_size, generator, device):
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * factor(step, total)
            loss = batch_loss(indices)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            if step == total:
                break
        check_finite(loss, step, total)
        if on_epoch is not None:
            with isolated_rng(derive_seed(seed, "on_epoch", step)):
                on_epoch(step / total, model)
        if is_enough is not None:
            with isolated_rng(derive_seed(seed, "is_enough", step)):
                if is_enough():
                    break


def _optimizer(parameters: list[Tensor], options: TrainingOptions) -> torch.optim.Optimizer:
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, weight_decay=decay, fused=True)
    chosen = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
    return chosen(parameters, lr=rate, weight_decay=decay, fused=True)


def rate_factor(step: int, total: int) -> float:
    """Return the learning rate's factor in (0, 1]: linear warm-up over a tenth of the steps, then half a cosine."""
    warm_up = max(1, total // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


def _cosine_factor(step: int, total: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * step / total))


_RATE_FACTORS: dict[str, Callable[[int, int], float]] = {
    "warm_up_cosine": rate_factor,
    "cosine": _cosine_factor,
    "constant": lambda step, total: 1.0,
}


def shuffled_batches(
    count: int, batch_size: int, generator: torch.Generator, device: torch.device = HOST
) -> list[Tensor]:
    """Return the index batches of one epoch, without a last batch of a single example; all move to a device at once."""
    batches = torch.split(on_device(torch.randperm(count, generator=generator), device), batch_size)
    return list(batches[:-1]) if len(batches) > 1 and len(batches[-1]) == 1 else list(batches)


def batches_per_epoch(count: int, batch_size: int) -> int:
    """Return how many batches `shuffled_batches` makes."""
    return max(1, count // max(1, batch_size) + (count % max(1, batch_size) > 1))


def check_finite(loss: Tensor, step: int, total: int) -> None:
    """Raise ModelError when training has diverged, that is, when the loss is no longer finite."""
    if not torch.isfinite(loss).all():
        raise ModelError(
            f"training diverged: the loss is {loss.item():g} at step {step} of {total}; lower the task's learning_rate "
            "or rescale the data to the order of 1"
        )


@contextmanager
def training_mode(model: nn.Module, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Run the body with the model in training mode and only `parameters` taking gradients; eval mode afterwards.

    Normalisation layers whose parameters are not trained keep their statistics, as when a thief freezes a backbone.
    """
    chosen = {id(parameter) for parameter in parameters}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    partly = any(id(parameter) not in chosen for parameter, _ in flags)
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in chosen)
        model.train()
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            if partly and hasattr(module, "running_mean") and not any(id(parameter) in chosen for parameter in own):
                module.eval()
        with torch.enable_grad():
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
        model.eval()
