"""Plain PyTorch loops for generators: as decoders of a variational autoencoder, against a judge, or from a teacher."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.experiments.scenarios.recipes.plain_loop import Loop, moved, steps_of
from metav.models.running import Teacher, device_of, predict
from metav.models.staging import on_device
from metav.support.randomness import isolated_rng, single_thread

Objective = Literal["autoencode", "adversarial"]

WIDTH = 192
"""Units of the encoder's and the judge's hidden layers."""
JUDGE_RATE = 2.5e-4
"""Learning rate of the judge."""
INVERSION_STEPS = 60
"""Steps in which the encoder of a generator that exists already learns to invert it."""
NOISE = 0.5
"""Standard deviation of the decoder's Gaussian, in units of the samples' own."""


def train_generator(
    model: nn.Module,
    samples: Tensor,
    loop: Loop,
    *,
    latent: int,
    seed: int,
    objective: Objective = "autoencode",
    keeps_latents: bool = False,
) -> nn.Module:
    """Train a generator in place on samples (n, ...), and return it in eval mode; no global random state is touched.

    latent: numbers in one latent.
    objective: "autoencode" or "adversarial".
    keeps_latents: whether the encoder first learns to invert the generator as it is, as where one is fine-tuned.
    """
    device = device_of(model)
    samples = samples.to(device)
    with isolated_rng(seed), single_thread(), torch.enable_grad():
        model.requires_grad_(True).train()
        train = _train_against_judge if objective == "adversarial" else _train_as_decoder
        train(model, samples, loop, latent, keeps_latents)
    return model.eval()


def copy_generator(
    model: nn.Module, teacher: Teacher, loop: Loop, *, latent: tuple[int, ...], count: int, seed: int
) -> nn.Module:
    """Train a generator in place to draw what a teacher draws from the same `count` normal latents."""
    device = device_of(model)
    with isolated_rng(seed), single_thread(), torch.enable_grad():
        latents = torch.randn(count, *latent)
        told = predict(teacher, latents).to(device)
        latents = latents.to(device)
        model.requires_grad_(True).train()
        for batch, step in steps_of(model.parameters(), count, loop):
            step(functional.mse_loss(model(latents[batch]), told[batch]))
    return model.eval()


def _train_as_decoder(model: nn.Module, samples: Tensor, loop: Loop, latent: int, keeps_latents: bool) -> None:
    encoder = _network(samples[0].numel(), 2 * latent).to(samples.device)
    center, deviation = samples.mean(), samples.std()
    if keeps_latents:
        _invert(model, lambda drawn: encoder((drawn - center) / deviation), encoder, loop, latent, samples.device)
    scale = 1.0 / (2.0 * NOISE**2 * float(deviation) ** 2 * samples[0].numel())
    parameters = itertools.chain(model.parameters(), encoder.parameters())
    for batch, step in steps_of(parameters, len(samples), loop):
        images = moved(samples[batch]) if loop.augmented and samples.ndim == 4 else samples[batch]
        mean, spread = encoder((images.flatten(1) - center) / deviation).chunk(2, dim=1)
        spread = spread.clamp(-8.0, 4.0)
        drawn = model(mean + (0.5 * spread).exp() * torch.randn_like(mean))
        target = images + loop.smoothing * torch.randn_like(images) if loop.smoothing else images
        error = (drawn.reshape(target.shape) - target).square().flatten(1).sum(dim=1)
        divergence = 0.5 * (mean.square() + spread.exp() - 1.0 - spread).sum(dim=1) / samples[0].numel()
        step((scale * error + divergence).mean())


def _invert(
    model: nn.Module, encode: Teacher, encoder: nn.Module, loop: Loop, latent: int, device: torch.device
) -> None:
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    for _ in range(INVERSION_STEPS):
        latents = torch.randn(2 * loop.batch, latent)
        mean, spread = encode(predict(model, latents, device=device).flatten(1)).chunk(2, dim=1)
        error = (mean - on_device(latents, device)).square() * (-spread.clamp(-8.0, 4.0)).exp()
        loss = (error + spread.clamp(-8.0, 4.0)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.train()


def _train_against_judge(model: nn.Module, samples: Tensor, loop: Loop, latent: int, _: bool) -> None:
    judge = _network(samples[0].numel(), 1).to(samples.device)
    optimizer = torch.optim.Adam(judge.parameters(), lr=JUDGE_RATE, betas=(0.5, 0.999))
    for batch, step in steps_of(model.parameters(), len(samples), loop):
        real = moved(samples[batch]) if loop.augmented and samples.ndim == 4 else samples[batch]
        drawn = model(torch.randn(len(batch), latent, device=samples.device)).reshape(real.shape)
        fooled = functional.softplus(judge(real.flatten(1))) * loop.smoothing
        loss = functional.softplus(-judge(real.flatten(1))) * (1.0 - loop.smoothing) + fooled
        loss = loss.mean() + functional.softplus(judge(drawn.detach().flatten(1))).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step(functional.softplus(-judge(drawn.flatten(1))).mean())


def _network(inputs: int, outputs: int) -> nn.Module:
    width = min(WIDTH, max(32, math.ceil(inputs / 2)))
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.LeakyReLU(0.1),
        nn.Linear(width, width),
        nn.LeakyReLU(0.1),
        nn.Linear(width, outputs),
    )
