"""Generation: a model turns a latent, a random vector or a condition, into a sample."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from metav.errors import InputError
from metav.models.identity import tensor_digest
from metav.models.running import Teacher
from metav.models.stored_tensors import selected_rows
from metav.models.training import OnEpoch, TrainingOptions
from metav.support.randomness import derive_seed
from metav.tasks.array_task import ArrayTask
from metav.tasks.arrays import as_float_tensor, checked_bounds, checked_levels
from metav.tasks.examples import plain_examples
from metav.tasks.generator_training import OBJECTIVES, GeneratorTraining, energy_distance


class Generation(ArrayTask):
    """A task of samples to imitate: the model turns latents (n, *latent) into samples (n, ...) of the given shape.

    samples: numbers (n, ...); or a Dataset or DataLoader, whose targets are left out.
    latent: size or shape of one latent, standard normal.
    objective: "autoencode" trains the model as the decoder of a variational autoencoder (Kingma & Welling 2014) whose
        encoder is made anew; "adversarial" trains it against a small discriminator (Goodfellow et al. 2014).
    validation: the fraction held out for `metric`, in [0, 0.9]; None for 0.2.
    bounds: (lower, upper) of a latent, numbers or arrays of its shape; None for -3 and 3.
    levels: number of values that a latent's entry may take; None for continuous ones.
    epochs, batch_size, learning_rate, weight_decay: see `TrainingOptions`.

    With a teacher the model matches its samples, latent by latent. `metric` is the energy distance (Szekely & Rizzo
    2013) between generated samples and data over the mean distance within the data: 0 is perfect.

    Raises InputError for data or options that cannot be used.
    """

    identity_name = "Generation"
    name = "generation"
    metric_name = "energy distance"

    def __init__(
        self,
        samples: Any,
        *,
        latent: int | tuple[int, ...],
        objective: str = "autoencode",
        validation: float | None = None,
        bounds: tuple[Any, Any] | None = None,
        levels: int | None = None,
        epochs: float = 10,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
    ) -> None:
        if objective not in OBJECTIVES:
            raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
        self.examples, _, _ = plain_examples("samples", samples, None, None, drawn_alone=True)
        if len(self.examples) < 2:
            raise InputError(f"samples must hold at least two examples, got {len(self.examples)}")
        self.input_shape = _latent_shape(latent)
        self.outputs = math.prod(self.examples.shape[1:])
        self.lower, self.upper = checked_bounds((-3.0, 3.0) if bounds is None else bounds, self.input_shape)
        self.objective, self.levels = objective, checked_levels(levels)
        self.options = TrainingOptions(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay
        )
        self._latents: Tensor | None = None
        self._split(validation)
        mean = selected_rows(self.examples, self.training_indices).mean(dim=0, keepdim=True)
        self.baseline = energy_distance(mean.expand(8, *mean.shape[1:]), self._measured_samples())

    @cached_property
    def _variance(self) -> Tensor:
        return self.examples.var().clamp_min(1e-12)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error between outputs and targets, both (n, ...), over the data's variance."""
        difference = outputs.reshape(len(targets), -1) - targets.reshape(len(targets), -1)
        return difference.square().mean() / self._variance

    def metric(self, model: nn.Module) -> float:
        """Return the energy distance of 512 generated samples from the validation part (0 is perfect)."""
        return energy_distance(self.answers(model, self.natural_queries(512, seed=0)), self._measured_samples())

    def natural_queries(self, count: int, *, seed: int) -> Tensor:
        """Return `count` standard-normal latents, (count, *latent), clipped to the bounds."""
        if count < 1:
            raise InputError(f"count must be at least 1, got {count}")
        generator = torch.Generator().manual_seed(derive_seed(seed, "natural_queries"))
        return self.draw(count, generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` random latents, (count, *latent); after `with_latents`, random ones of the fixed set."""
        if self._latents is not None:
            return self._latents[torch.randint(len(self._latents), (count,), generator=generator)]
        latents = torch.randn(count, *self.input_shape, generator=generator)
        return torch.minimum(torch.maximum(latents, self.lower), self.upper)

    def with_latents(self, latents: Tensor) -> Self:
        """Return this task with a fixed set of latents (m, *latent), such as all that a thief has asked about."""
        task = self._like(self.examples, None)
        task._latents = as_float_tensor("latents", latents, minimum_dimensions=2)
        return task

    def _fit(
        self,
        model: nn.Module,
        chosen: list[Tensor],
        options: TrainingOptions,
        *,
        seed: int,
        teacher: Teacher | None,
        truth: float,
        on_epoch: OnEpoch | None,
    ) -> None:
        training = GeneratorTraining(
            samples=selected_rows(self.examples, self.training_indices),
            draw=self.draw,
            loss=self.loss,
            options=options,
            seed=seed,
            on_epoch=on_epoch,
        )
        if teacher is None:
            training.run(self.objective, model, chosen)
        else:
            training.imitate(model, chosen, teacher, truth, self.objective)

    def _measured_samples(self) -> Tensor:
        return self.examples[self._measured()[:512]]

    def _described(self) -> dict[str, Any]:
        latents = None if self._latents is None else tensor_digest({"latents": self._latents})
        return {**super()._described(), "latent": self.input_shape, "objective": self.objective, "latents": latents}

    def _rebuilt(self, examples: Tensor, targets: Tensor | None) -> Self:
        return type(self)(
            examples,
            latent=self.input_shape,
            objective=self.objective,
            **self._shared_options(),
        )


def _latent_shape(latent: int | tuple[int, ...]) -> tuple[int, ...]:
    shape = (latent,) if isinstance(latent, int) else tuple(latent)
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(f"latent must be a size or a shape of positive whole numbers, got {latent!r}")
    return shape
