"""The fashion experiment: pictures of clothes, drawn by a DCGAN generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metav.experiments.scenarios.architectures import fashion as architectures
from metav.experiments.scenarios.architectures.building_blocks import Scaled
from metav.experiments.scenarios.datasets import IndexArray, load_fashion
from metav.experiments.scenarios.scenario import Scenario
from metav.support.randomness import derive_seed
from metav.tasks.generation import Generation

IMAGES = 2000
"""Images that each party trains its generator on."""

OTHER_CLASSES = (5, 7, 8, 9)
"""Sandals, sneakers, bags and ankle boots: what an unrelated owner generates."""


def fashion_scenario(
    folder: str | Path,
    seed: int = 0,
    *,
    images: int = IMAGES,
    width: int | None = None,
    epochs: float = 6,
    objective: str = "autoencode",
) -> Scenario:
    """Make the scenario of the clothes, whose unrelated owner draws shoes and bags alone.

    folder: of the real data sets.
    seed: of the split of the data.
    images: how many each party trains on, at most.
    width: base width of the owner's generator, None for its own.
    epochs: of every full training.
    objective: "autoencode" or "adversarial" (a GAN; the unrelated owner's models are then decoders of variational
    autoencoders: another family).

    Raises InputError where the data file is absent or cannot be read.
    """
    data = load_fashion(folder)
    parts = data.split(seed)
    generator = np.random.default_rng(derive_seed(seed, "fashion"))

    def task(rows: IndexArray, *, validation: float = 0.2, objective: str = objective) -> Generation:
        chosen = np.sort(generator.permutation(rows)[:images])
        return Generation(
            data.images[chosen],
            latent=architectures.LATENT,
            objective=objective,
            validation=validation,
            epochs=epochs,
            batch_size=32,
            learning_rate=5e-3 if objective == "autoencode" else 1e-3,
        )

    others = parts.thief[np.isin(data.labels[parts.thief], OTHER_CLASSES)]
    return Scenario(
        name="fashion",
        seed=seed,
        task=task(parts.owner),
        thief_task=task(parts.thief),
        other_task=task(others, objective="autoencode"),
        test_task=task(parts.test, validation=0.0),
        owner_architecture=architectures.OWNER if width is None else Scaled(architectures.dcgan, width),
        zoo_architectures=architectures.ZOO,
        suspect_architectures=architectures.SUSPECTS,
        metric_unit="energy distance",
    )
