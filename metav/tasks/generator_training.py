"""How generators train: as decoder of a variational autoencoder, against a discriminator, or from a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.models.running import Teacher, device_of, predict
from metav.models.staging import on_device
from metav.models.stored_tensors import places_on, rows_on
from metav.models.training import (
    OnEpoch,
    TrainingOptions,
    batches_per_epoch,
    check_finite,
    fit,
    full_precision,
    rate_factor,
    shuffled_batches,
    trained_pass,
)
from metav.support.randomness import derive_seed, isolated_rng

OBJECTIVES = ("autoencode", "adversarial")
"""The ways in which a generator can be trained without a teacher."""

WARM_UP_STEPS = 100
"""Steps in which the encoder, or the discriminator, is trained alone, before the generator is trained too."""

NOISE = 0.4
"""Standard deviation of the decoder's Gaussian, in units of the data's: the smaller, the sharper the samples."""


def energy_distance(samples: Tensor, data: Tensor) -> float:
    """Return the energy distance between two sets (n, ...) and (m, ...) over the mean distance within `data`.

    2 E|x - y| - E|x - x'| - E|y - y'| (Szekely & Rizzo 2013), Euclidean: 0 for equal distributions.
    """
    samples, data = samples.flatten(1), data.flatten(1)
    within = _mean_distance(data)
    between = float(torch.cdist(samples, data).mean())
    return (2.0 * between - _mean_distance(samples) - within) / max(within, 1e-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorTraining:
    """One training of a generator.

    samples: the data to imitate, (n, ...).
    draw: a function (count, generator) -> latents (count, *latent).
    loss: of generated samples against a teacher's.
    options: how it trains.
    seed: of every random choice.
    on_epoch: called with (share done, model) after each epoch; None for nothing.
    """

    samples: Tensor
    draw: Callable[[int, torch.Generator], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    options: TrainingOptions
    seed: int
    on_epoch: OnEpoch | None

    def run(self, objective: str, model: nn.Module, chosen: list[Tensor]) -> None:
        """Train a model's parameters `chosen` on the samples with the named objective."""
        {"autoencode": self.autoencode, "adversarial": self.oppose}[objective](model, chosen)

    def imitate(self, model: nn.Module, chosen: list[Tensor], teacher: Teacher, truth: float, objective: str) -> None:
        """Match the teacher's samples on random latents, then train on the data for the share `truth` of the epochs.

        chosen: the parameters to train.
        truth: in [0, 1].
        objective: of the training on the data.
        """
        device, latents = device_of(model), self._generator("latents")

        def batch_loss(indices: Tensor) -> Tensor:
            batch = self.draw(len(indices), latents)
            return self.loss(self._samples_of(model, on_device(batch, device)), predict(teacher, batch, device=device))

        taught = replace(self.options, epochs=self.options.epochs * (1.0 - truth)) if truth < 1.0 else None
        if taught is not None:
            part = replace(self, on_epoch=_part(self.on_epoch, 0.0, 1.0 - truth))
            part._fit(model, batch_loss, taught, chosen)
        if truth > 0.0:
            rest = replace(self.options, epochs=self.options.epochs * truth)
            replace(self, options=rest, on_epoch=_part(self.on_epoch, 1.0 - truth, 1.0)).run(objective, model, chosen)

    def autoencode(self, model: nn.Module, chosen: list[Tensor]) -> None:
        """Train as the decoder of a variational autoencoder (Kingma & Welling 2014, eq. 10) with a fresh encoder.

        The encoder first learns to invert the model as it is, so that a trained generator keeps its latent space.
        """
        device, latents = device_of(model), self._generator("latents")
        size = math.prod(self.draw(1, latents).shape[1:])
        encoder = _Encoder(self.samples, size).to(device)
        data = rows_on(device, self.samples, torch.arange(len(self.samples)))
        precision = 1.0 / (2.0 * NOISE**2 * float(self.samples.var()))
        noise = self._generator("noise")
        self._invert(model, encoder, latents)

        def batch_loss(indices: Tensor) -> Tensor:
            batch = data(indices)
            mean, log_variance = encoder(batch)
            random = on_device(torch.randn(mean.shape, generator=noise), device)
            latent = mean + (0.5 * log_variance).exp() * random
            outputs = self._samples_of(model, latent.reshape(len(batch), *self.draw(1, latents).shape[1:]))
            error = (outputs.reshape(len(batch), -1) - batch.flatten(1)).square().sum(dim=1)
            divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=1)
            loss: Tensor = (precision * error + divergence).mean() / batch[0].numel()
            return loss

        self._fit(model, batch_loss, self.options, chosen, list(encoder.parameters()))

    def oppose(self, model: nn.Module, chosen: list[Tensor]) -> None:
        """Train against a fresh discriminator (Goodfellow et al. 2014): non-saturating loss, betas (0.5, 0.999)."""
        device, latents, shuffle = device_of(model), self._generator("latents"), self._generator("shuffle")
        data, shape = rows_on(device, self.samples, torch.arange(len(self.samples))), self.samples.shape[1:]
        judge = _discriminator(self.samples).to(device)
        options, count = self.options, len(self.samples)
        players = [
            torch.optim.Adam(side, lr=options.learning_rate * factor, betas=(0.5, 0.999))
            for side, factor in ((chosen, 0.5), (judge.parameters(), 0.25))
        ]
        steps = batches_per_epoch(count, options.batch_size)
        total = max(1, round(options.epochs * steps))
        step = -min(WARM_UP_STEPS, total)
        while step < total:
            loss = torch.zeros(())
            for indices in shuffled_batches(count, options.batch_size, shuffle, places_on(device, self.samples)):
                for player, rate in zip(players, (0.5, 0.25), strict=True):
                    player.param_groups[0]["lr"] = options.learning_rate * rate * rate_factor(max(step, 0), total)
                drawn = on_device(self.draw(len(indices), latents), device)
                fakes = self._samples_of(model, drawn).reshape(len(indices), *shape)
                loss = _judge_step(judge, players[1], data(indices), fakes)
                if step >= 0:
                    _generator_step(judge, players[0], fakes)
                step += 1
                if step in (0, total):
                    break
            check_finite(loss, step, total)
            if self.on_epoch is not None and step > 0:
                with isolated_rng(derive_seed(self.seed, "on_epoch", step)):
                    self.on_epoch(step / total, model)

    def _invert(self, model: nn.Module, encoder: nn.Module, latents: torch.Generator) -> None:
        optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
        device = device_of(model)
        for _ in range(WARM_UP_STEPS):
            batch = self.draw(2 * self.options.batch_size, latents)
            mean, log_variance = encoder(predict(model, batch, device=device))
            error = (mean - on_device(batch.flatten(1), device)).square()
            loss = 0.5 * (error * (-log_variance).exp() + log_variance).sum(dim=1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def _fit(
        self,
        model: nn.Module,
        batch_loss: Callable[[Tensor], Tensor],
        options: TrainingOptions,
        chosen: list[Tensor],
        extra: list[nn.Parameter] | None = None,
    ) -> None:
        fit(
            model,
            batch_loss,
            count=len(self.samples),
            options=options,
            seed=self.seed,
            parameters=chosen,
            extra_parameters=extra or (),
            on_epoch=self.on_epoch,
            places=places_on(device_of(model), self.samples),
        )

    def _samples_of(self, model: nn.Module, latents: Tensor) -> Tensor:
        """Return what a generator in training makes of latents on its device, in float32."""
        return full_precision(trained_pass(model, latents, self.options), self.options)

    def _generator(self, label: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, label))


class _Encoder(nn.Module):
    """A network from flattened samples to mean and log-variance of the latent, (n, size) each."""

    def __init__(self, samples: Tensor, size: int) -> None:
        super().__init__()
        self.center, self.scale = float(samples.mean()), float(samples.std().clamp_min(1e-6))
        features = math.prod(samples.shape[1:])
        width = 256 if features > 64 else 64
        self.body = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * size)
        )

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.body((samples.flatten(1) - self.center) / self.scale).chunk(2, dim=1)
        return mean, log_variance.clamp(-8.0, 4.0)


def _discriminator(samples: Tensor) -> nn.Module:
    """Return a small convolutional (images of 8 pixels and more) or fully connected discriminator, (n, ...) -> (n,)."""
    if samples.ndim == 4 and min(samples.shape[2:]) >= 8:
        channels = samples.shape[1]
        body: list[nn.Module] = [
            nn.Conv2d(channels, 16, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        ]
        features = 32 * (samples.shape[2] // 4) * (samples.shape[3] // 4)
        return nn.Sequential(*body, nn.Linear(features, 1), nn.Flatten(0))
    features = math.prod(samples.shape[1:])
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, 128),
        nn.LeakyReLU(0.2),
        nn.Linear(128, 64),
        nn.LeakyReLU(0.2),
        nn.Linear(64, 1),
        nn.Flatten(0),
    )


def _judge_step(judge: nn.Module, player: torch.optim.Optimizer, real: Tensor, fakes: Tensor) -> Tensor:
    loss: Tensor = functional.softplus(-judge(real)).mean() + functional.softplus(judge(fakes.detach())).mean()
    player.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    player.step()
    return loss


def _generator_step(judge: nn.Module, player: torch.optim.Optimizer, fakes: Tensor) -> None:
    loss: Tensor = functional.softplus(-judge(fakes)).mean()
    player.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    player.step()


def _part(on_epoch: OnEpoch | None, start: float, end: float) -> OnEpoch | None:
    """Return a callback that reports one part of a training as the share [start, end] of the whole."""
    if on_epoch is None:
        return None
    return lambda share, model: on_epoch(start + share * (end - start), model)


def _mean_distance(points: Tensor) -> float:
    """Return the mean Euclidean distance over all pairs of different points."""
    return float(torch.cdist(points, points).sum()) / (len(points) * max(len(points) - 1, 1))
