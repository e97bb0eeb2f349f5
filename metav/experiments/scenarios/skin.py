"""The skin experiment: dermatoscopic images of skin lesions, classified by a ResNet-18."""

from __future__ import annotations

from pathlib import Path

from metav.experiments.scenarios.architectures import skin as architectures
from metav.experiments.scenarios.architectures.building_blocks import Scaled, at_width
from metav.experiments.scenarios.datasets import IndexArray, draw_rows, load_skin
from metav.experiments.scenarios.disturbance import disturbed
from metav.experiments.scenarios.recipes.owner_recipe import recipes_for
from metav.experiments.scenarios.recipes.plain_loop import Loop
from metav.experiments.scenarios.scenario import Scenario
from metav.support.arrays import FloatArray
from metav.support.randomness import derive_seed
from metav.tasks.classification import Classification

FEWEST_STEPS = 400
"""Steps of an owner's training, at least: with few images a network would learn next to nothing."""


def skin_scenario(
    folder: str | Path, seed: int = 0, *, width: int = 16, images: int | None = None, epochs: float = 8
) -> Scenario:
    """Make the scenario of the skin lesions, none in two parts; the unrelated owner's are turned, shifted and noisy.

    folder: of the real data sets.
    seed: of the split of the data.
    width: channels of the first stage, 64 in the paper.
    images: how many each party trains on, at most; None is all of its part.
    epochs: of every full training.

    Raises InputError where the data file is absent or cannot be read.
    """
    data = load_skin(folder)
    parts = data.split(seed)
    owned, stolen = (draw_rows(rows, images, derive_seed(seed, "skin")) for rows in (parts.owner, parts.thief))

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

    own = task(data.images[owned], owned)
    architecture = Scaled(architectures.OWNER, width)
    return Scenario(
        name="skin",
        seed=seed,
        task=own,
        thief_task=task(data.images[stolen], stolen),
        other_task=task(disturbed(data.images[stolen], seed), stolen),
        test_task=task(data.images[parts.test], parts.test, validation=0.0),
        owner_architecture=architecture,
        zoo_architectures=at_width(architectures.ZOO, width),
        suspect_architectures=at_width(architectures.SUSPECTS, width),
        recipes=recipes_for(own, architecture, _loops(epochs, own.options.batch_size), fewest_steps=FEWEST_STEPS),
        metric_unit="accuracy",
    )


def _loops(epochs: float, batch: int) -> dict[str, Loop]:
    return {
        # at a constant rate batch norm's statistics lag behind: the last step decides whether a model is any good
        "adam": Loop(epochs=epochs, rate=1.5e-3, batch=batch, schedule="cosine"),
        "sgd": Loop(epochs=1.5 * epochs, rate=0.03, batch=batch, optimizer="sgd", decay=5e-4, schedule="steps"),
        "long": Loop(epochs=2.0 * epochs, rate=1e-3, batch=batch, optimizer="adamw", smoothing=0.1, augmented=True),
    }
