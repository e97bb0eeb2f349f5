"""What lies between a fingerprint and a suspect: how its answers come back, and what happens to queries on their way.

Nobody but the suspect's side is changed: the fingerprint is made without these objects.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.errors import InputError
from metav.models.running import predict
from metav.tasks.base import Task
from metav.tasks.classification import log_probabilities

OutputKind: TypeAlias = Literal["round", "topk", "label", "noise"]
InputKind: TypeAlias = Literal["8bit", "jpeg", "blur", "noise", "resize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputAccess:
    """What a suspect lets out of its answers.

    "round": to `parameter` decimals. "topk": the `parameter` most probable classes with their probabilities; whoever
    asks spreads the rest evenly over the others. "label": the most probable class, one-hot. "noise": Gaussian noise of
    standard deviation `parameter`, new in each answer. Classifiers answer probabilities.
    """

    kind: OutputKind
    parameter: float = 0.0

    def changed(self, outputs: Tensor, *, classes: bool, generator: torch.Generator) -> Tensor:
        """Outputs (n, K) as they are let out; `classes`: they are a classifier's.

        InputError for top-k and labels of a model without classes.
        """
        answers = log_probabilities(outputs).exp() if classes else outputs.flatten(1)
        if self.kind == "round":
            return torch.round(answers, decimals=int(self.parameter))
        if self.kind == "noise":
            noisy = answers + self.parameter * torch.randn(answers.shape, generator=generator)
            return _normalised(noisy) if classes else noisy
        if not classes:
            raise InputError(f"{self.kind} needs a classifier's answers; use round or noise for other tasks.")
        if self.kind == "label":
            return functional.one_hot(answers.argmax(dim=1), answers.shape[1]).float()
        return _top(answers, int(self.parameter))


@dataclass(frozen=True, slots=True, kw_only=True)
class InputChange:
    """What happens to queries before the suspect's model sees them.

    "8bit": each number becomes one of 256 levels of its range. "jpeg": images are JPEG files of quality `parameter`.
    "blur": 3x3 Gaussian of standard deviation `parameter` pixels. "noise": Gaussian noise, `parameter` of the range,
    new each time. "resize": images are scaled to a share `parameter` of their size and back (bilinear).
    """

    kind: InputKind
    parameter: float = 0.0

    def changed(self, inputs: Tensor, lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
        """Inputs (n, *input shape) within their bounds, changed; InputError for image changes of other inputs."""
        span = torch.where(upper > lower, upper - lower, torch.ones_like(upper))
        if self.kind == "8bit":
            return lower + torch.round((inputs - lower) / span * 255.0) / 255.0 * span
        if self.kind == "noise":
            moved = inputs + self.parameter * span * torch.randn(inputs.shape, generator=generator)
            return torch.minimum(torch.maximum(moved, lower), upper)
        if inputs.ndim != 4:
            raise InputError(f"{self.kind} changes images (n, c, h, w), got inputs of shape {tuple(inputs.shape)}.")
        if self.kind == "jpeg":
            return lower + _through_jpeg((inputs - lower) / span, int(self.parameter)) * span
        return _blurred(inputs, self.parameter) if self.kind == "blur" else _resized(inputs, self.parameter)


def through_channel(
    model: nn.Module,
    task: Task,
    *,
    output: OutputAccess | None = None,
    inputs: InputChange | None = None,
    seed: int,
) -> nn.Module | Callable[[Tensor], Tensor]:
    """The suspect behind a channel: a function from queries to what comes back; the model itself without a channel."""
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


def _top(probabilities: Tensor, count: int) -> Tensor:
    values, places = probabilities.topk(count, dim=1)
    rest = (1.0 - values.sum(dim=1, keepdim=True)).clamp_min(0.0) / max(1, probabilities.shape[1] - count)
    return rest.expand_as(probabilities).clone().scatter(1, places, values)


def _normalised(noisy: Tensor) -> Tensor:
    """Probabilities again, as a service would see to."""
    clipped = noisy.clamp_min(0.0)
    totals = clipped.sum(dim=1, keepdim=True)
    return torch.where(totals > 0, clipped / totals.clamp_min(1e-12), torch.full_like(noisy, 1.0 / noisy.shape[1]))


def _through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Images (n, 1 or 3, h, w) in [0, 1] as JPEG files and back."""
    from PIL import Image

    if images.shape[1] not in (1, 3):
        raise InputError(f"jpeg needs images of 1 or 3 channels, got {images.shape[1]}.")
    decoded = []
    for image in (images.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
        pixels: Any = np.asarray(Image.open(file), dtype=np.float32) / np.float32(255)
        decoded.append(pixels.reshape(image.shape))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()


def _blurred(images: Tensor, deviation: float) -> Tensor:
    offsets = torch.tensor([-1.0, 0.0, 1.0])
    line = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = torch.outer(line, line) / line.sum() ** 2
    channels = images.shape[1]
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)


def _resized(images: Tensor, share: float) -> Tensor:
    height, width = images.shape[2:]
    small = functional.interpolate(
        images,
        size=(max(1, round(share * height)), max(1, round(share * width))),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    return functional.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
