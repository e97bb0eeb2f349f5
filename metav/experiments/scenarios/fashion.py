"""The fashion experiment: pictures of clothes, drawn by a DCGAN generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metav.experiments.scenarios.architectures import fashion as architectures
from metav.experiments.scenarios.architectures.building_blocks import Scaled
from metav.experiments.scenarios.datasets import IndexArray, load_fashion
from metav.experiments.scenarios.recipes.owner_recipe import recipes_for
from metav.experiments.scenarios.recipes.plain_loop import Loop
from metav.experiments.scenarios.scenario import Scenario
from metav.support.randomness import derive_seed
from metav.tasks.generation import Generation

IMAGES = 2000
"""Images that each party trains its generator on."""

OTHER_CLASSES = (5, 7, 8, 9)
"""Sandals, sneakers, bags and ankle boots: what an unrelated owner generates."""


FEWEST_STEPS = 250
"""Steps of an owner's training, at least: with few images a generator would learn next to nothing."""


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
    own = task(parts.owner)
    architecture = architectures.OWNER if width is None else Scaled(architectures.dcgan, width)
    return Scenario(
        name="fashion",
        seed=seed,
        task=own,
        thief_task=task(parts.thief),
        other_task=task(others, objective="autoencode"),
        test_task=task(parts.test, validation=0.0),
        owner_architecture=architecture,
        zoo_architectures=architectures.ZOO,
        suspect_architectures=architectures.SUSPECTS,
        recipes=recipes_for(own, architecture, _loops(epochs, objective), fewest_steps=FEWEST_STEPS),
        metric_unit="energy distance",
    )


def _loops(epochs: float, objective: str) -> dict[str, Loop]:
    # a generator that plays against a judge needs smaller steps than a decoder
    factor = 1.0 if objective == "autoencode" else 0.1
    return {
        "adam": Loop(epochs=epochs, rate=5e-3 * factor, batch=32),
        "sgd": Loop(epochs=1.5 * epochs, rate=0.3 * factor, batch=32, optimizer="sgd", decay=1e-5, schedule="steps"),
        # samples have no labels to smooth: a decoder learns noisy pixels, a judge takes some real ones for drawn ones
        "long": Loop(
            epochs=2.0 * epochs,
            rate=3e-3 * factor,
            batch=48,
            optimizer="adamw",
            schedule="cosine",
            smoothing=0.05,
            augmented=True,
        ),
    }
