"""Answers that nobody trained: noise, constants, untrained networks, and what is left of other models' answers.

Each function makes one model from (material, sources, number, generator), or returns None where the task does not allow
it: `sources` are independent models of one share, `number` counts the models of this kind, so that each differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metav.models.architectures import build
from metav.models.running import frozen, predict
from metav.zoo.free_material import FreeModel, Material, log_of, rows_of

LOGIT_SCALES = (1.0, 4.0, 0.3, 12.0)
"""Standard deviations of random logits."""
NUMBER_SCALES = (1.0, 0.3, 3.0)
"""Standard deviations of random numbers, in those of the targets."""
CONCENTRATIONS = (1.0, 0.3, 0.1)
"""Concentrations of random distributions over the classes: the smaller, the surer."""
FREQUENCIES = (1.0, 0.3, 3.0)
"""How fast a random network's answers turn with its inputs, in standard deviations of an input."""
CONFIDENCES = (0.999, 0.9, 0.999999)
"""Probabilities of the class that is always answered."""
FACTORS = (0.5, 2.0, 0.25, 4.0)
"""Factors by which the answers of another model are stretched."""
MIXTURES = (0.5, 0.3, 0.7)
"""Weights of the first of two models in their mixture."""
KEYS = 8
"""Numbers to which a hash reduces an input."""


class Hash(nn.Module):
    """Numbers that look random, yet are the same whenever the same input is given.

    center, scale: of each input feature.
    outputs: numbers per input.
    generator: draws the hash.
    """

    center: Tensor
    scale: Tensor
    keys: Tensor
    mixing: Tensor
    phases: Tensor

    def __init__(self, center: Tensor, scale: Tensor, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        # in double precision: a hash enlarges differences, and the last bits of a product depend on the batch
        tensors = {
            "center": center.double(),
            "scale": scale.double(),
            "keys": 10.0 * torch.randn(center.numel(), KEYS, generator=generator, dtype=torch.float64),
            "mixing": 10.0 * torch.randn(KEYS, outputs, generator=generator, dtype=torch.float64),
            "phases": 10.0 * torch.randn(outputs, generator=generator, dtype=torch.float64),
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return numbers (n, outputs), uniform in (0, 1), float64; they have no gradient."""
        flat = (inputs.detach().flatten(1).double() - self.center) / self.scale
        keys = (1e3 * torch.sin(flat @ self.keys)).frac()
        uniform: Tensor = (1e3 * torch.sin(keys @ self.mixing + self.phases)).frac().abs().clamp(1e-6, 1 - 1e-6)
        return uniform


class HashedNoise(FreeModel):
    """Noise that is fixed for each query.

    kind: "logits" (normal), "distribution" (log-probabilities, like Dirichlet rows), "numbers" (normal) or "uniform".
    amount: standard deviation, or concentration of a distribution.
    """

    differentiable = False
    center: Tensor
    scale: Tensor

    def __init__(self, material: Material, kind: str, amount: float, generator: torch.Generator) -> None:
        super().__init__(material.output_shape)
        self.kind, self.amount, self.span = kind, amount, material.span
        self.hash = Hash(material.input_center, material.input_scale, material.outputs, generator)
        self.keep(center=material.center, scale=material.scale)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return noise (n, outputs)."""
        uniform = self.hash(inputs)
        if self.kind == "distribution":
            # normalised powers of exponential variables: exactly Dirichlet for a concentration of 1
            return log_of(torch.softmax((-uniform.log()).log() / self.amount, dim=1))
        if self.kind == "uniform":
            noise = math.sqrt(12) * (uniform - 0.5)
        else:
            noise = math.sqrt(2) * torch.erfinv(2 * uniform - 1)
        return torch.clamp(self.center + self.amount * self.scale * noise, *self.span)


class RandomNetwork(FreeModel):
    """A network of one hidden layer of sines, never trained, with a gradient.

    frequency: of its answers, in standard deviations of an input feature.
    """

    input_center: Tensor
    input_scale: Tensor
    inner: Tensor
    phases: Tensor
    outer: Tensor
    center: Tensor
    scale: Tensor

    def __init__(self, material: Material, frequency: float, amount: float, generator: torch.Generator) -> None:
        super().__init__(material.output_shape)
        width = 64
        inner = torch.randn(material.features, width, generator=generator) * frequency / math.sqrt(material.features)
        self.keep(
            input_center=material.input_center,
            input_scale=material.input_scale,
            inner=inner,
            phases=2 * math.pi * torch.rand(width, generator=generator),
            outer=torch.randn(width, material.outputs, generator=generator) * math.sqrt(2 / width),
            center=material.center,
            scale=amount * material.scale,
        )

    def answer(self, inputs: Tensor) -> Tensor:
        """Return answers (n, outputs) that turn smoothly with the inputs."""
        flat = (inputs.flatten(1) - self.input_center) / self.input_scale
        return self.center + self.scale * (torch.sin(flat @ self.inner + self.phases) @ self.outer)


class Constant(FreeModel):
    """The same answer to every query."""

    differentiable = False
    row: Tensor

    def __init__(self, material: Material, row: Tensor) -> None:
        super().__init__(material.output_shape)
        self.keep(row=row.float())

    def answer(self, inputs: Tensor) -> Tensor:
        """Return one row, repeated."""
        return self.row.expand(len(inputs), -1)


class ReorderedOutputs(FreeModel):
    """Another model's answers, their entries in another order."""

    order: Tensor

    def __init__(self, material: Material, source: nn.Module, order: Tensor) -> None:
        super().__init__(material.output_shape)
        self.source, self.answers = source, material.answers
        self.keep(order=order)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the reordered answers (n, outputs)."""
        return rows_of(self.source, inputs, self.answers)[:, self.order]


class ReorderedInputs(FreeModel):
    """Another model's answers to inputs whose features stand in another order."""

    order: Tensor

    def __init__(self, material: Material, source: nn.Module, order: Tensor) -> None:
        super().__init__(material.output_shape)
        self.source, self.answers = source, material.answers
        self.keep(order=order)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the answers (n, outputs) to reordered inputs."""
        return rows_of(self.source, inputs.flatten(1)[:, self.order].reshape(inputs.shape), self.answers)


class RotatedLatents(FreeModel):
    """Another generator's samples for latents that are turned in space."""

    rotation: Tensor

    def __init__(self, material: Material, source: nn.Module, generator: torch.Generator) -> None:
        super().__init__(material.output_shape)
        self.source = source
        drawn = torch.randn(material.features, material.features, generator=generator)
        self.keep(rotation=torch.linalg.qr(drawn).Q)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the samples (n, outputs) of rotated latents."""
        return rows_of(self.source, (inputs.flatten(1) @ self.rotation).reshape(inputs.shape), "samples")


class ShuffledRows(FreeModel):
    """Another model's answers to other queries: each is moved from the natural input next to it to another one.

    For natural queries these are the answers to the same queries in another order.
    """

    anchors: Tensor
    moves: Tensor
    lower: Tensor
    upper: Tensor
    input_center: Tensor
    input_scale: Tensor

    def __init__(self, material: Material, source: nn.Module, generator: torch.Generator) -> None:
        super().__init__(material.output_shape)
        self.source, self.answers = source, material.answers
        flat = material.natural.flatten(1)
        self.keep(
            anchors=(flat - material.input_center) / material.input_scale,
            moves=flat[_partners(material, source, generator)] - flat,
            lower=torch.minimum(material.lower, flat.amin(dim=0)),
            upper=torch.maximum(material.upper, flat.amax(dim=0)),
            input_center=material.input_center,
            input_scale=material.input_scale,
        )

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the answers (n, outputs) to moved inputs."""
        flat = inputs.flatten(1)
        with torch.no_grad():
            nearest = torch.cdist((flat - self.input_center) / self.input_scale, self.anchors).argmin(dim=1)
        moved = torch.minimum(torch.maximum(flat + self.moves[nearest], self.lower), self.upper)
        return rows_of(self.source, moved.reshape(inputs.shape), self.answers)


class Stretched(FreeModel):
    """Another model's answers times a factor, and moved: another temperature, another unit, another sign.

    factor: for classes of the log-probabilities, else of the distance from the mean.
    offset: in standard deviations of the targets.
    """

    center: Tensor
    shift: Tensor

    def __init__(self, material: Material, source: nn.Module, factor: float, offset: float = 0.0) -> None:
        super().__init__(material.output_shape)
        self.source, self.answers, self.factor = source, material.answers, factor
        self.keep(center=material.center, shift=offset * material.scale)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the stretched answers (n, outputs)."""
        rows = rows_of(self.source, inputs, self.answers)
        return self.center + self.factor * (rows - self.center) + self.shift


class Average(FreeModel):
    """The weighted mean of two models' answers; weight: of the first."""

    def __init__(self, material: Material, sources: Sequence[nn.Module], weight: float) -> None:
        super().__init__(material.output_shape)
        self.first, self.second = sources
        self.answers, self.weight = material.answers, weight

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the mean answers (n, outputs)."""
        first, second = (rows_of(model, inputs, self.answers) for model in (self.first, self.second))
        return self.weight * first + (1 - self.weight) * second


class Patchwork(FreeModel):
    """One of two models' answers, chosen for each query by a hash; weight: share of the first."""

    def __init__(
        self, material: Material, sources: Sequence[nn.Module], weight: float, generator: torch.Generator
    ) -> None:
        super().__init__(material.output_shape)
        self.first, self.second = sources
        self.answers, self.weight = material.answers, weight
        self.hash = Hash(material.input_center, material.input_scale, 1, generator)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return answers (n, outputs) that come from either model."""
        first, second = (rows_of(model, inputs, self.answers) for model in (self.first, self.second))
        return torch.where(self.hash(inputs) < self.weight, first, second)


Sources = Sequence[nn.Module]


def random_logits(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return normal logits, fixed for each query."""
    return HashedNoise(material, "logits", LOGIT_SCALES[number % len(LOGIT_SCALES)], generator)


def random_distribution(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return random distributions over the classes, fixed for each query."""
    return HashedNoise(material, "distribution", CONCENTRATIONS[number % len(CONCENTRATIONS)], generator)


def random_numbers(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return normal numbers around the mean of the targets, fixed for each query."""
    return HashedNoise(material, "numbers", NUMBER_SCALES[number % len(NUMBER_SCALES)], generator)


def uniform_numbers(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return uniform numbers around the mean of the targets, fixed for each query."""
    return HashedNoise(material, "uniform", NUMBER_SCALES[number % len(NUMBER_SCALES)], generator)


def random_network(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return a smooth random function."""
    scales = LOGIT_SCALES if material.answers == "classes" else NUMBER_SCALES
    frequency = FREQUENCIES[number % len(FREQUENCIES)]
    return RandomNetwork(material, frequency, scales[number % len(scales)], generator)


def one_class(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return a model that always answers one class, another for each number."""
    confidence = CONFIDENCES[number % len(CONFIDENCES)]
    row = torch.full((material.outputs,), (1 - confidence) / (material.outputs - 1))
    row[number % material.outputs] = confidence
    return Constant(material, log_of(row))


def one_distribution(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return one distribution for all queries: that of the labels, then random ones."""
    if number == 0 and material.targets is not None:
        counts = torch.bincount(material.targets, minlength=material.outputs).float()
        return Constant(material, log_of(counts / counts.sum()))
    return Constant(material, log_of(torch.softmax(2 * torch.randn(material.outputs, generator=generator), dim=0)))


def mean_answer(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return the mean of the targets for all queries; later numbers lie a random distance from it."""
    row = material.center.expand(material.outputs)
    noise = torch.randn(material.outputs, generator=generator) * material.scale
    return Constant(material, row if number == 0 else row + noise)


def zero_answer(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return zero for all queries; there is only one such model."""
    return Constant(material, torch.zeros(material.outputs)) if number == 0 else None


def one_example(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return one true answer, or one true sample, for all queries."""
    known = material.examples if material.answers == "samples" else material.targets
    if known is None:
        return None
    return Constant(material, known[int(torch.randint(len(known), (1,), generator=generator))])


def untrained(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return a fresh network, of one architecture after the other."""
    architecture = material.architectures[number % len(material.architectures)]
    model = build(architecture, int(torch.randint(2**62, (1,), generator=generator)))
    return frozen(material.task.read(model))


def permuted_outputs(material: Material, sources: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return a model with its classes, or outputs, in another order; no entry keeps its place."""
    if material.outputs < 2:
        return None
    return ReorderedOutputs(material, sources[0], _derangement(material.outputs, generator))


def permuted_inputs(material: Material, sources: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return a model that is given each input with its features in another order."""
    if material.features < 2:
        return None
    return ReorderedInputs(material, sources[0], _derangement(material.features, generator))


def rotated_latents(material: Material, sources: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return a generator that reads its latents turned in space."""
    return RotatedLatents(material, sources[0], generator)


def shuffled_rows(material: Material, sources: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return a model that answers other queries than those that are asked."""
    return ShuffledRows(material, sources[0], generator) if material.enough_inputs else None


def other_sign(material: Material, sources: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return a model whose answers are mirrored at the mean: large for small, dark for bright."""
    return Stretched(material, sources[0], -1.0)


def average(material: Material, sources: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return the mean of two models."""
    return Average(material, sources, MIXTURES[number % len(MIXTURES)])


def patchwork(material: Material, sources: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return a model that answers like one of two, query by query."""
    return Patchwork(material, sources, MIXTURES[number % len(MIXTURES)], generator)


def temperature(material: Material, sources: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return a model with another temperature."""
    return Stretched(material, sources[0], FACTORS[number % len(FACTORS)])


def other_unit(material: Material, sources: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return a model whose numbers are stretched and moved."""
    offset = float(torch.randn(1, generator=generator))
    return Stretched(material, sources[0], FACTORS[number % len(FACTORS)], offset)


def other_contrast(material: Material, sources: Sources, number: int, generator: torch.Generator) -> nn.Module:
    """Return a generator whose samples have another contrast."""
    return Stretched(material, sources[0], FACTORS[number % len(FACTORS)])


def _derangement(count: int, generator: torch.Generator) -> Tensor:
    """Return a random cyclic order of `count` places: none is mapped to itself."""
    cycle = torch.randperm(count, generator=generator)
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order


def _partners(material: Material, source: nn.Module, generator: torch.Generator) -> Tensor:
    """Return for each natural input another one, of another class, or of an answer far away, where there is one."""
    count = len(material.natural)
    if material.answers == "samples":
        return _derangement(count, generator)
    rows = predict(source, material.natural).flatten(1)
    value = rows.argmax(dim=1).float() if material.answers == "classes" else rows[:, 0]
    tie = torch.rand(count, generator=generator) * (0.5 if material.answers == "classes" else 0.0)
    order = (value + tie).argsort()
    shift = int(torch.randint(count // 3, count - count // 3, (1,), generator=generator))
    partners = torch.empty_like(order)
    partners[order] = order.roll(shift)
    return partners
