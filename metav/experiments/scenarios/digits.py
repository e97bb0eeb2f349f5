"""The digits experiment: handwritten digits of 8x8 pixels, classified by a small CNN."""

from __future__ import annotations

from metav.experiments.scenarios.architectures import digits as architectures
from metav.experiments.scenarios.datasets import IndexArray, load_digits
from metav.experiments.scenarios.disturbance import disturbed
from metav.experiments.scenarios.recipes.owner_recipe import recipes_for
from metav.experiments.scenarios.recipes.plain_loop import Loop
from metav.experiments.scenarios.scenario import Scenario
from metav.support.arrays import FloatArray
from metav.tasks.classification import Classification


def digits_scenario(seed: int = 0, *, epochs: float = 10) -> Scenario:
    """Make the scenario of the digits, whose unrelated owner has turned, shifted and noisy ones.

    seed: of the split of the data.
    epochs: of every full training.

    Raises MissingDependencyError without scikit-learn.
    """
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

    own = task(data.images[parts.owner], parts.owner)
    return Scenario(
        name="digits",
        seed=seed,
        task=own,
        thief_task=task(data.images[parts.thief], parts.thief),
        other_task=task(disturbed(data.images[parts.thief], seed), parts.thief),
        test_task=task(data.images[parts.test], parts.test, validation=0.0),
        owner_architecture=architectures.OWNER,
        zoo_architectures=architectures.ZOO,
        suspect_architectures=architectures.SUSPECTS,
        recipes=recipes_for(own, architectures.OWNER, _loops(epochs)),
        metric_unit="accuracy",
    )


def _loops(epochs: float) -> dict[str, Loop]:
    return {
        "adam": Loop(epochs=1.2 * epochs, rate=3e-3, batch=48),
        "sgd": Loop(epochs=2.2 * epochs, rate=0.05, batch=64, optimizer="sgd", decay=5e-4, schedule="steps"),
        "long": Loop(epochs=3.5 * epochs, rate=1.5e-3, batch=64, optimizer="adamw", smoothing=0.1, augmented=True),
    }
