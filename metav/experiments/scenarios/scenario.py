"""Who owns what in each experiment: the owner's task, the thief's, an unrelated owner's, and all architectures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from metav.errors import InputError
from metav.experiments.scenarios import architectures
from metav.experiments.scenarios.datasets import IndexArray, load_digits, load_fashion, load_skin, load_warfarin
from metav.experiments.scenarios.scales import Scale
from metav.experiments.scenarios.skin_architectures import SKIN_SUSPECTS, SKIN_ZOO, Scaled, at_width, skin_resnet18
from metav.models.architectures import Architecture
from metav.support.arrays import FloatArray
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task
from metav.tasks.classification import Classification
from metav.tasks.generation import Generation
from metav.tasks.regression import Regression

FASHION_IMAGES = 2000
"""Images that each party of the fashion experiment trains its generator on."""

FASHION_OTHER_CLASSES = (5, 7, 8, 9)
"""Sandals, sneakers, bags and ankle boots: what an unrelated owner generates."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """One experiment: data in disjoint parts, and architectures that the zoo and the suspects do not share.

    `task` is the owner's and all that the zoo may use. `thief_task` and `other_task` make suspects: the data of a thief
    and of an unrelated owner. `test_task` holds what nobody trains on; its metric counts all of it. `metric_unit`:
    what the metric is in, once multiplied by `metric_scale`. Apart from the owner's own architecture, which both
    have anyway, `zoo_architectures` and `suspect_architectures` are disjoint.
    """

    name: str
    seed: int
    task: Task
    thief_task: Task
    other_task: Task
    test_task: Task
    owner_architecture: Architecture
    zoo_architectures: tuple[Architecture, ...]
    suspect_architectures: tuple[Architecture, ...]
    metric_unit: str
    metric_scale: float = 1.0

    def train_owner(self, seed: int, *, device: str = "cpu") -> nn.Module:
        """Return the owner's model, trained from scratch, in eval mode; the same seed gives the same weights."""
        with isolated_rng(derive_seed(seed, self.name, "owner weights")):
            model = self.owner_architecture().to(device)
        return self.task.train(model, seed=derive_seed(seed, self.name, "owner training"))

    def test_metric(self, model: nn.Module) -> float:
        """Return the quality of a model on the test part, in `metric_unit`."""
        return self.metric_scale * self.test_task.metric(model)


def digits_scenario(seed: int = 0, *, epochs: float = 10) -> Scenario:
    """Handwritten digits, classified by a small CNN; the unrelated owner's digits are turned, shifted and noisy."""
    data = load_digits()
    parts = data.split(seed)

    def task(images: FloatArray, rows: IndexArray, *, validation: float = 0.1) -> Classification:
        return Classification(
            images,
            data.labels[rows],
            bounds=(0.0, 1.0),
            validation=validation,
            epochs=epochs,
            batch_size=32,
            learning_rate=4e-3,
            classes=len(data.label_names),
        )

    return Scenario(
        name="digits",
        seed=seed,
        task=task(data.images[parts.owner], parts.owner),
        thief_task=task(data.images[parts.thief], parts.thief),
        other_task=task(disturbed(data.images[parts.thief], seed), parts.thief),
        test_task=task(data.images[parts.test], parts.test, validation=0.0),
        owner_architecture=architectures.DIGITS_OWNER,
        zoo_architectures=architectures.DIGITS_ZOO,
        suspect_architectures=architectures.DIGITS_SUSPECTS,
        metric_unit="accuracy",
    )


def warfarin_scenario(folder: str | Path, seed: int = 0, *, epochs: float = 30) -> Scenario:
    """Warfarin dose, predicted by a fully connected network; the unrelated owner treats other patients."""
    data = load_warfarin(folder)
    parts = data.split(seed)
    bounds = (data.features.min(axis=0), data.features.max(axis=0))

    def task(rows: IndexArray, *, validation: float = 0.2) -> Regression:
        return Regression(
            data.features[rows],
            data.targets[rows],
            bounds=bounds,
            validation=validation,
            epochs=epochs,
            batch_size=64,
            learning_rate=2e-3,
            weight_decay=1e-4,
        )

    return Scenario(
        name="warfarin",
        seed=seed,
        task=task(parts.owner),
        thief_task=task(parts.thief),
        other_task=task(parts.thief),
        test_task=task(parts.test, validation=0.0),
        owner_architecture=architectures.WARFARIN_OWNER,
        zoo_architectures=architectures.WARFARIN_ZOO,
        suspect_architectures=architectures.WARFARIN_SUSPECTS,
        metric_unit="mg/week, mean absolute error",
        metric_scale=data.target_std,
    )


def fashion_scenario(
    folder: str | Path,
    seed: int = 0,
    *,
    images: int = FASHION_IMAGES,
    width: int | None = None,
    epochs: float = 6,
    objective: str = "autoencode",
) -> Scenario:
    """Clothes, drawn by a DCGAN generator; the unrelated owner draws shoes and bags alone.

    images: how many each party trains on, at most. width: base width of the owner's generator, None for its own.
    objective: "autoencode" or "adversarial" (a GAN; the unrelated owner's models are then decoders of variational
    autoencoders: another family).
    """
    data = load_fashion(folder)
    parts = data.split(seed)
    generator = np.random.default_rng(derive_seed(seed, "fashion"))

    def task(rows: IndexArray, *, validation: float = 0.2, objective: str = objective) -> Generation:
        chosen = np.sort(generator.permutation(rows)[:images])
        return Generation(
            data.images[chosen],
            latent=architectures.FASHION_LATENT,
            objective=objective,
            validation=validation,
            epochs=epochs,
            batch_size=32,
            learning_rate=5e-3 if objective == "autoencode" else 1e-3,
        )

    others = parts.thief[np.isin(data.labels[parts.thief], FASHION_OTHER_CLASSES)]
    return Scenario(
        name="fashion",
        seed=seed,
        task=task(parts.owner),
        thief_task=task(parts.thief),
        other_task=task(others, objective="autoencode"),
        test_task=task(parts.test, validation=0.0),
        owner_architecture=architectures.FASHION_OWNER if width is None else Scaled(architectures.dcgan, width),
        zoo_architectures=architectures.FASHION_ZOO,
        suspect_architectures=architectures.FASHION_SUSPECTS,
        metric_unit="energy distance",
    )


def skin_scenario(
    folder: str | Path, seed: int = 0, *, width: int = 16, images: int | None = None, epochs: float = 8
) -> Scenario:
    """Skin lesions in dermatoscopic images, classified by a ResNet-18; no lesion is in two parts.

    The unrelated owner's images are turned, shifted and noisy. width: channels of the first stage, 64 in the paper.
    images: how many each party trains on, at most; None is all of its part.
    """
    data = load_skin(folder)
    parts = data.split(seed)
    owned, stolen = (_some(rows, images, derive_seed(seed, "skin")) for rows in (parts.owner, parts.thief))

    def task(pixels: FloatArray, rows: IndexArray, *, validation: float = 0.15) -> Classification:
        return Classification(
            pixels,
            data.labels[rows],
            bounds=(0.0, 1.0),
            validation=validation,
            epochs=epochs,
            # few images need smaller batches: batch norm's statistics take some steps to follow
            batch_size=64 if len(rows) > 2000 else 16,
            learning_rate=2e-3,
            classes=len(data.label_names),
        )

    return Scenario(
        name="skin",
        seed=seed,
        task=task(data.images[owned], owned),
        thief_task=task(data.images[stolen], stolen),
        other_task=task(disturbed(data.images[stolen], seed), stolen),
        test_task=task(data.images[parts.test], parts.test, validation=0.0),
        owner_architecture=Scaled(skin_resnet18, width),
        zoo_architectures=at_width(SKIN_ZOO, width),
        suspect_architectures=at_width(SKIN_SUSPECTS, width),
        metric_unit="accuracy",
    )


def make_scenario(task: str, data: str | Path | None, seed: int, scale: Scale) -> Scenario:
    """The scenario of a task at a scale; InputError where it needs the folder of the data sets and `data` is None."""
    names = ("width", "images", "epochs", "objective")
    chosen = {name: getattr(scale, name) for name in names if getattr(scale, name) is not None}
    if task == "digits":
        return digits_scenario(seed, **chosen)
    makers: dict[str, Callable[..., Scenario]] = {
        "skin": skin_scenario,
        "warfarin": warfarin_scenario,
        "fashion": fashion_scenario,
    }
    if task not in makers:
        raise InputError(f"task must be one of digits, {', '.join(makers)}, got {task!r}.")
    if data is None:
        raise InputError(f"{task} needs the folder of the real data sets; pass --data FOLDER.")
    return makers[task](data, seed, **chosen)


def _some(rows: IndexArray, count: int | None, seed: int) -> IndexArray:
    """All rows, or `count` of them at random, in order."""
    if count is None or count >= len(rows):
        return rows
    chosen: IndexArray = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
    return chosen


def disturbed(images: FloatArray, seed: int) -> FloatArray:
    """Images (n, channels, height, width) in [0, 1], each turned by up to 20 degrees, shifted and made noisy."""
    count = len(images)
    generator = torch.Generator().manual_seed(derive_seed(seed, "disturbed"))
    angle = (2.0 * torch.rand(count, generator=generator) - 1.0) * math.radians(20.0)
    shift = (2.0 * torch.rand(count, 2, generator=generator) - 1.0) * 0.15
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(count, 2, 2)
    grid = functional.affine_grid(torch.cat([turn, shift[:, :, None]], dim=2), list(images.shape), align_corners=False)
    moved = functional.grid_sample(torch.from_numpy(images), grid, align_corners=False)
    noise = 0.08 * torch.randn(moved.shape, generator=generator)
    result: FloatArray = (moved + noise).clamp(0.0, 1.0).numpy()
    return result
