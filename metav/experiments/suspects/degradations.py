"""What lies between a fingerprint and a suspect: how its answers come back, and what happens to queries on their way.

Nobody but the suspect's side is changed: the fingerprint is made without these objects. A form of answers is one row of
OUTPUT_FORMS, a change of queries one row of INPUT_CHANGES.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.errors import InputError
from metav.models.running import predict
from metav.tasks.base import Task
from metav.tasks.classification import log_probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputAccess:
    """What a suspect lets out of its answers; a classifier answers probabilities.

    kind: one of OUTPUT_FORMS.
    parameter: of that form.

    Raises InputError for an unknown kind.
    """

    kind: str
    parameter: float = 0.0

    def __post_init__(self) -> None:
        _check_known(self.kind, OUTPUT_FORMS, "a form of answers")

    def changed(self, outputs: Tensor, *, classes: bool, generator: torch.Generator) -> Tensor:
        """Return the answers as they are let out.

        outputs: (n, K), logits or probabilities where they are a classifier's.
        classes: whether they are a classifier's.

        Raises InputError for a form that needs classes where there are none.
        """
        form = OUTPUT_FORMS[self.kind]
        if form.needs_classes and not classes:
            others = " or ".join(name for name, other in OUTPUT_FORMS.items() if not other.needs_classes)
            raise InputError(f"{self.kind} needs a classifier's answers; use {others} for other tasks")
        answers = log_probabilities(outputs).exp() if classes else outputs.flatten(1)
        changed = form.change(answers, self.parameter, generator)
        return _normalised(changed) if classes and form.normalises else changed


@dataclass(frozen=True, slots=True, kw_only=True)
class InputChange:
    """What happens to queries before the suspect's model sees them.

    kind: one of INPUT_CHANGES.
    parameter: of that change.

    Raises InputError for an unknown kind.
    """

    kind: str
    parameter: float = 0.0

    def __post_init__(self) -> None:
        _check_known(self.kind, INPUT_CHANGES, "a change of queries")

    def changed(self, inputs: Tensor, lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
        """Return the queries as the suspect's model sees them.

        inputs: (n, *input shape), within `lower` and `upper`.

        Raises InputError where a change of images meets other inputs.
        """
        change = INPUT_CHANGES[self.kind]
        if change.needs_images and inputs.ndim != 4:
            raise InputError(f"{self.kind} changes images (n, c, h, w), got inputs of shape {tuple(inputs.shape)}")
        return change.change(inputs, self.parameter, _Bounds(lower, upper), generator)


def through_channel(
    model: nn.Module,
    task: Task,
    *,
    output: OutputAccess | None = None,
    inputs: InputChange | None = None,
    seed: int,
) -> nn.Module | Callable[[Tensor], Tensor]:
    """Return the suspect behind a channel: a function from queries to what comes back.

    output, inputs: what the channel does; the model itself is returned where both are None.
    seed: of the channel's noise.
    """
    if output is None and inputs is None:
        return model
    generator = torch.Generator().manual_seed(seed)

    def suspect(queries: Tensor) -> Tensor:
        seen = queries if inputs is None else inputs.changed(queries, task.lower, task.upper, generator)
        answers = predict(model, seen)
        if output is None:
            return answers
        return output.changed(answers, classes=task.kind.answers_classes, generator=generator)

    return suspect


def _check_known(kind: str, table: Mapping[str, Any], what: str) -> None:
    if kind not in table:
        raise InputError(f"{kind!r} is not {what}; expected one of {', '.join(table)}")


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The range of the queries, per feature."""

    lower: Tensor
    upper: Tensor

    @property
    def span(self) -> Tensor:
        """Return the width of the range, 1 where there is none."""
        return torch.where(self.upper > self.lower, self.upper - self.lower, torch.ones_like(self.upper))


def _rounded(answers: Tensor, decimals: float, _: torch.Generator) -> Tensor:
    return torch.round(answers, decimals=int(decimals))


def _top(probabilities: Tensor, kept: float, _: torch.Generator) -> Tensor:
    count = int(kept)
    values, places = probabilities.topk(count, dim=1)
    rest = (1.0 - values.sum(dim=1, keepdim=True)).clamp_min(0.0) / max(1, probabilities.shape[1] - count)
    return rest.expand_as(probabilities).clone().scatter(1, places, values)


def _scaled(answers: Tensor, factor: float, _: torch.Generator) -> Tensor:
    return answers * factor


def _shifted(answers: Tensor, factor: float, _: torch.Generator) -> Tensor:
    return (answers + 2.0) * factor


def _whole_percent(probabilities: Tensor, _: float, __: torch.Generator) -> Tensor:
    return torch.round(100.0 * probabilities)


def _top_alone(probabilities: Tensor, kept: float, _: torch.Generator) -> Tensor:
    least = probabilities.topk(int(kept), dim=1).values[:, -1:]
    return torch.where(probabilities >= least, probabilities, torch.zeros_like(probabilities))


def _clipped(probabilities: Tensor, margin: float, _: torch.Generator) -> Tensor:
    return probabilities.clamp(margin, 1.0 - margin)


def _sharpened(probabilities: Tensor, factor: float, _: torch.Generator) -> Tensor:
    return torch.softmax(factor * probabilities.double().clamp_min(1e-30).log(), dim=1)


def _below_zero(probabilities: Tensor, amount: float, _: torch.Generator) -> Tensor:
    changed = probabilities.clone()
    changed.view(-1)[0] = -amount
    return changed


def _other_columns(probabilities: Tensor, seed: float, _: torch.Generator) -> Tensor:
    order = torch.randperm(probabilities.shape[1], generator=torch.Generator().manual_seed(int(seed)))
    return probabilities[:, order]


def _reversed(answers: Tensor, _: float, __: torch.Generator) -> Tensor:
    return answers.flip(0)


def _labels(probabilities: Tensor, _: float, __: torch.Generator) -> Tensor:
    return functional.one_hot(probabilities.argmax(dim=1), probabilities.shape[1]).float()


def _noisy(answers: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    return answers + deviation * torch.randn(answers.shape, generator=generator)


def _normalised(noisy: Tensor) -> Tensor:
    """Return probabilities again, as a service would see to."""
    clipped = noisy.clamp_min(0.0)
    totals = clipped.sum(dim=1, keepdim=True)
    return torch.where(totals > 0, clipped / totals.clamp_min(1e-12), torch.full_like(noisy, 1.0 / noisy.shape[1]))


def _eight_bit(inputs: Tensor, _: float, bounds: _Bounds, __: torch.Generator) -> Tensor:
    return bounds.lower + torch.round((inputs - bounds.lower) / bounds.span * 255.0) / 255.0 * bounds.span


def _disturbed(inputs: Tensor, share: float, bounds: _Bounds, generator: torch.Generator) -> Tensor:
    moved = inputs + share * bounds.span * torch.randn(inputs.shape, generator=generator)
    return torch.minimum(torch.maximum(moved, bounds.lower), bounds.upper)


def _as_jpeg(inputs: Tensor, quality: float, bounds: _Bounds, _: torch.Generator) -> Tensor:
    return bounds.lower + _through_jpeg((inputs - bounds.lower) / bounds.span, int(quality)) * bounds.span


def _through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Return images (n, 1 or 3, h, w) in [0, 1] as JPEG files give them back."""
    from PIL import Image

    if images.shape[1] not in (1, 3):
        raise InputError(f"jpeg needs images of 1 or 3 channels, got {images.shape[1]}")
    decoded = []
    for image in (images.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
        pixels: Any = np.asarray(Image.open(file), dtype=np.float32) / np.float32(255)
        decoded.append(pixels.reshape(image.shape))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()


def _blurred(images: Tensor, deviation: float, _: _Bounds, __: torch.Generator) -> Tensor:
    offsets = torch.tensor([-1.0, 0.0, 1.0])
    line = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = torch.outer(line, line) / line.sum() ** 2
    channels = images.shape[1]
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)


def _resized(images: Tensor, share: float, _: _Bounds, __: torch.Generator) -> Tensor:
    height, width = images.shape[2:]
    small = functional.interpolate(
        images,
        size=(max(1, round(share * height)), max(1, round(share * width))),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    return functional.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)


@dataclass(frozen=True, slots=True)
class OutputForm:
    """One form in which answers come back.

    change: f(answers, parameter, generator) -> answers, both (n, K); a classifier's are probabilities.
    needs_classes: whether it makes sense for a classifier's answers only.
    normalises: whether a classifier's answers are made probabilities again, as a service would see to.
    """

    change: Callable[[Tensor, float, torch.Generator], Tensor]
    needs_classes: bool = False
    normalises: bool = False


OUTPUT_FORMS: Mapping[str, OutputForm] = MappingProxyType(
    {
        # to `parameter` decimals
        "round": OutputForm(_rounded),
        # the `parameter` most probable classes; whoever asks spreads the rest evenly over the others
        "topk": OutputForm(_top, needs_classes=True),
        # the most probable class, one-hot
        "label": OutputForm(_labels, needs_classes=True),
        # times `parameter`: percent, or another unit of numbers
        "scaled": OutputForm(_scaled),
        # another unit whose zero lies elsewhere: (answer + 2) times `parameter`
        "shifted": OutputForm(_shifted),
        # whole percent
        "whole_percent": OutputForm(_whole_percent, needs_classes=True),
        # the `parameter` most probable classes, the others being zero
        "top_alone": OutputForm(_top_alone, needs_classes=True),
        # between `parameter` and one minus it
        "clipped": OutputForm(_clipped, needs_classes=True),
        # logits times `parameter`: another temperature
        "sharpened": OutputForm(_sharpened, needs_classes=True),
        # the first answer's first class is minus `parameter`, as rounding errors of a service make it
        "below_zero": OutputForm(_below_zero, needs_classes=True),
        # classes in an order drawn with the seed `parameter`
        "other_columns": OutputForm(_other_columns, needs_classes=True),
        # the last answer first
        "reversed": OutputForm(_reversed),
        # Gaussian noise of standard deviation `parameter`, new in each answer
        "noise": OutputForm(_noisy, normalises=True),
    }
)
"""The forms of answers by name."""


@dataclass(frozen=True, slots=True)
class QueryChange:
    """One thing that happens to queries on their way.

    change: f(inputs, parameter, bounds, generator) -> inputs, both (n, *input shape).
    needs_images: whether inputs must be (n, channels, height, width).
    """

    change: Callable[[Tensor, float, _Bounds, torch.Generator], Tensor]
    needs_images: bool = False


INPUT_CHANGES: Mapping[str, QueryChange] = MappingProxyType(
    {
        # each number becomes one of 256 levels of its range
        "8bit": QueryChange(_eight_bit),
        # files of quality `parameter`
        "jpeg": QueryChange(_as_jpeg, needs_images=True),
        # 3x3 Gaussian of standard deviation `parameter` pixels
        "blur": QueryChange(_blurred, needs_images=True),
        # Gaussian noise, `parameter` of the range, new each time
        "noise": QueryChange(_disturbed),
        # to a share `parameter` of the size and back, bilinear
        "resize": QueryChange(_resized, needs_images=True),
    }
)
"""The changes of queries by name."""
