"""The warfarin experiment: the weekly dose of a drug, predicted by a fully connected network."""

from __future__ import annotations

from pathlib import Path

from metav.experiments.scenarios.architectures import warfarin as architectures
from metav.experiments.scenarios.datasets import IndexArray, load_warfarin
from metav.experiments.scenarios.recipes.owner_recipe import recipes_for
from metav.experiments.scenarios.recipes.plain_loop import Loop
from metav.experiments.scenarios.scenario import Scenario
from metav.tasks.regression import Regression


def warfarin_scenario(folder: str | Path, seed: int = 0, *, epochs: float = 30) -> Scenario:
    """Make the scenario of the warfarin dose, whose unrelated owner treats other patients.

    folder: of the real data sets.
    seed: of the split of the data.
    epochs: of every full training.

    Raises InputError where the data file is absent or cannot be read.
    """
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

    own = task(parts.owner)
    return Scenario(
        name="warfarin",
        seed=seed,
        task=own,
        thief_task=task(parts.thief),
        other_task=task(parts.thief),
        test_task=task(parts.test, validation=0.0),
        owner_architecture=architectures.OWNER,
        zoo_architectures=architectures.ZOO,
        suspect_architectures=architectures.SUSPECTS,
        recipes=recipes_for(own, architectures.OWNER, _loops(epochs)),
        metric_unit="mg/week, mean absolute error",
        metric_scale=data.target_std,
    )


def _loops(epochs: float) -> dict[str, Loop]:
    return {
        "adam": Loop(epochs=epochs, rate=1.5e-3, batch=64),
        "sgd": Loop(epochs=1.5 * epochs, rate=0.01, batch=48, optimizer="sgd", decay=1e-3, schedule="steps"),
        # numbers have no labels to smooth: their targets are noisy instead
        "long": Loop(epochs=3.0 * epochs, rate=8e-4, batch=96, optimizer="adamw", smoothing=0.1, augmented=True),
    }
