"""Small real tasks and models for the tests of tasks, obfuscations and zoo."""

from __future__ import annotations

import functools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from metav.support.randomness import isolated_rng
from metav.tasks.base import Task
from metav.tasks.classification import Classification
from metav.tasks.generation import Generation
from metav.tasks.regression import Regression


class ResidualCNN(nn.Module):
    """Convolutions with batch norm, dropout and a skip connection, for 8x8 digits."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.inner_norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(16 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.stem(images)))
        features = torch.relu(features + self.inner_norm(self.inner(features)))
        return self.head(self.dropout(features.flatten(1)))


class HeadFirst(nn.Module):
    """A fully connected network that registers its head before its body."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(24, outputs)
        self.body = nn.Linear(features, 24)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(inputs.flatten(1))))


class Generator(nn.Module):
    """A small DCGAN generator of 8x8 digits from a latent of 4 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 64)
        self.up = nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.last = nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        features = torch.relu(self.first(latents.flatten(1))).reshape(-1, 16, 2, 2)
        return torch.sigmoid(self.last(torch.relu(self.norm(self.up(features)))))


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return (bunch.images[:900, None] / 16.0).astype(np.float32), bunch.target[:900]


@functools.cache
def task_of(name: str) -> Task:
    images, labels = digits()
    if name == "classification":
        return Classification(images, labels, epochs=8, bounds=(0.0, 1.0), learning_rate=4e-3)
    if name == "regression":
        pixels = images.reshape(len(images), 64)
        # Where the ink's center lies, left to right, standardised.
        center = pixels @ np.tile(np.arange(8.0, dtype=np.float32), 8) / pixels.sum(axis=1)
        return Regression(pixels, (center - center.mean()) / center.std(), epochs=60, learning_rate=4e-3)
    return Generation(images[:600], latent=4, epochs=24, learning_rate=4e-3)


@functools.cache
def owner_of(name: str) -> nn.Module:
    with isolated_rng(7):
        model = {"classification": ResidualCNN, "generation": Generator}.get(name, lambda: HeadFirst(64, 1))()
    return task_of(name).train(model, seed=7)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in model.state_dict().items()}
