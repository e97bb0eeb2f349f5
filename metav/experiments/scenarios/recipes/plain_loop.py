"""A plain PyTorch training loop for labels and numbers, and the settings that recipes and thieves give it.

It shares no code with the loop of `Task.train`: owners, honest suspects and thieves that it trains stand for other
people's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.models.running import Teacher, device_of, predict
from metav.models.staging import on_device
from metav.support.randomness import isolated_rng, single_thread

Answers = Literal["classes", "numbers", "samples"]
"""What a model of a loop learns: labels, numbers, or to draw samples from latents."""

MOMENTUM = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """How one plain loop trains.

    epochs: > 0, fractions allowed.
    rate: the learning rate at the start.
    batch: examples per step.
    optimizer: "adam", "adamw", "sgd" (with momentum) or "rmsprop".
    decay: of weights.
    schedule: of the rate: "constant", "steps" (a tenth from half of the training on) or "cosine" (to zero).
    smoothing: of labels; of numbers, the standard deviation of noise on the targets in units of their own.
    augmented: whether inputs change at each step: images move by up to a pixel, other inputs get noise.
    version: raised whenever the code of the loop computes something else, so that caches know.
    """

    epochs: float
    rate: float
    batch: int
    optimizer: str = "adam"
    decay: float = 0.0
    schedule: str = "constant"
    smoothing: float = 0.0
    augmented: bool = False
    version: int = 1


def train_plainly(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loop: Loop,
    *,
    answers: Answers,
    seed: int,
    teacher: Teacher | None = None,
    labels_alone: bool = False,
) -> nn.Module:
    """Train a model in place and return it in eval mode; the global random state is untouched.

    inputs, targets: (n, ...); classes int64 (n,), numbers float32 (n, outputs).
    answers: "classes" or "numbers".
    teacher: whose answers are learned instead of the targets.
    labels_alone: whether only the teacher's most likely class is known.
    """
    device = device_of(model)
    inputs, targets = inputs.to(device), targets.to(device)
    with isolated_rng(seed), single_thread(), torch.enable_grad():
        if teacher is not None:
            told = predict(teacher, inputs.cpu()).to(device)
            targets = told.argmax(dim=1) if labels_alone else told
        distils = teacher is not None and not labels_alone
        loss_of = _loss_of(answers, loop, distils, targets)
        change = _change_of(inputs) if loop.augmented else None
        model.requires_grad_(True).train()
        for batch, step in steps_of(model.parameters(), len(inputs), loop):
            chosen = inputs[batch] if change is None else change(inputs[batch])
            step(loss_of(model(chosen), targets[batch]))
    return model.eval()


def steps_of(
    parameters: Iterator[nn.Parameter], count: int, loop: Loop
) -> Iterator[tuple[Tensor, Callable[[Tensor], None]]]:
    """Yield the rows of each batch, and a function that takes the step of the batch's loss.

    parameters: those to train.
    count: number of examples.

    All draws come from torch's global generator.
    """
    trained = list(parameters)
    optimizer, device = _optimizer(trained, loop), trained[0].device
    per_epoch = max(1, -(-count // loop.batch) - (1 if count % loop.batch == 1 else 0))
    total, done = max(1, round(loop.epochs * per_epoch)), 0

    def step(loss: Tensor) -> None:
        for group in optimizer.param_groups:
            group["lr"] = loop.rate * _factor(loop.schedule, done / total)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    while done < total:
        for batch in torch.split(on_device(torch.randperm(count), device), loop.batch):
            if len(batch) < 2 and count > 1:
                continue  # batch norm needs two
            yield batch, step
            done += 1
            if done == total:
                return


def moved(images: Tensor) -> Tensor:
    """Return images (n, c, h, w), all moved by up to a pixel in both directions, what leaves on one side entering."""
    down, right = (int(number) for number in torch.randint(-1, 2, (2,)))
    return torch.roll(images, (down, right), (2, 3))


def _optimizer(parameters: list[nn.Parameter], loop: Loop) -> torch.optim.Optimizer:
    if loop.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=loop.rate, momentum=MOMENTUM, weight_decay=loop.decay)
    kinds: dict[str, type[Any]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
    chosen: torch.optim.Optimizer = kinds[loop.optimizer](parameters, lr=loop.rate, weight_decay=loop.decay)
    return chosen


def _factor(schedule: str, share: float) -> float:
    if schedule == "cosine":
        return 0.5 * (1.0 + float(torch.cos(torch.tensor(torch.pi * share))))
    return 0.1 if schedule == "steps" and share >= 0.5 else 1.0


def _loss_of(answers: Answers, loop: Loop, distils: bool, targets: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    if answers == "classes":
        if distils:
            return lambda outputs, told: functional.kl_div(
                functional.log_softmax(outputs, dim=1),
                functional.log_softmax(told, dim=1),
                log_target=True,
                reduction="batchmean",
            )
        return lambda outputs, labels: functional.cross_entropy(outputs, labels, label_smoothing=loop.smoothing)
    noise = loop.smoothing * targets.std(dim=0)

    def error(outputs: Tensor, numbers: Tensor) -> Tensor:
        noisy = numbers + noise * torch.randn_like(numbers) if loop.smoothing else numbers
        return functional.mse_loss(outputs.reshape(noisy.shape), noisy)

    return error


def _change_of(inputs: Tensor) -> Callable[[Tensor], Tensor]:
    if inputs.ndim == 4:
        return moved
    scale = 0.1 * inputs.std(dim=0)
    return lambda batch: batch + scale * torch.randn_like(batch)
