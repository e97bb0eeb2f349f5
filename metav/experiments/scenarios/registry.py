"""The tasks of the experiments: one row a task, which `metav reproduce` and everything else goes by. No PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from metav.errors import InputError
from metav.experiments.scenarios.scales import (
    FEW_TRAININGS,
    QUICK_TRAININGS,
    Scale,
    ScaleName,
    full_scale,
    smoke_scale,
)

if TYPE_CHECKING:
    from metav.experiments.scenarios.scenario import Scenario


USUAL_ZOO = 48
"""Surrogates of each class that `metav.build_zoo` trains where nothing else is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentTask:
    """One task of the experiments.

    name: what `metav reproduce` calls it.
    about: what it is, in a few words, for the command's help.
    home: "module:function" of the function that makes its scenario; imported when it is needed.
    needs_data: whether it reads the folder of the real data sets; its function then takes that folder first.
    sizes: by scale.
    """

    name: str
    about: str
    home: str
    needs_data: bool
    sizes: Mapping[ScaleName, Scale]

    def load_maker(self) -> Callable[..., Scenario]:
        """Return the function that makes the scenario; needs PyTorch."""
        module, _, name = self.home.partition(":")
        found: Callable[..., Scenario] = getattr(importlib.import_module(module), name)
        return found


EXPERIMENT_TASKS: Mapping[str, ExperimentTask] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            ExperimentTask(
                name="digits",
                about="bundled with scikit-learn",
                home="metav.experiments.scenarios.digits:digits_scenario",
                needs_data=False,
                sizes={
                    "smoke": smoke_scale(
                        epochs=2,
                        suspects=8,
                        sample=2,
                        query_counts=(2,),
                        options={"steps": 4, "refit_steps": 20, "patience": 2, "repeats": 2},
                    ),
                    "small": full_scale(USUAL_ZOO, attack_sizes=QUICK_TRAININGS, base=True),
                    "paper": full_scale(192, base=True),
                },
            ),
            ExperimentTask(
                name="skin",
                about="HAM10000, ResNet-18",
                home="metav.experiments.scenarios.skin:skin_scenario",
                needs_data=True,
                sizes={
                    "smoke": smoke_scale(width=4, images=250, epochs=9, queries=20, surrogates=28),
                    "small": full_scale(60, width=16, epochs=8, attack_sizes=FEW_TRAININGS),
                    "paper": full_scale(96, width=64, epochs=12),
                },
            ),
            ExperimentTask(
                name="warfarin",
                about="dose, fully connected",
                home="metav.experiments.scenarios.warfarin:warfarin_scenario",
                needs_data=True,
                sizes={
                    "smoke": smoke_scale(epochs=8),
                    "small": full_scale(USUAL_ZOO, attack_sizes=QUICK_TRAININGS, base=True),
                    "paper": full_scale(192, base=True),
                },
            ),
            ExperimentTask(
                name="fashion",
                about="DCGAN generators",
                home="metav.experiments.scenarios.fashion:fashion_scenario",
                needs_data=True,
                # a generator answers 784 numbers a query: twenty queries are plenty, and three hundred would be slow
                sizes={
                    "smoke": smoke_scale(images=150, epochs=4, queries=5),
                    "small": full_scale(60, queries=20, query_counts=(2, 5, 10, 20, 50), attack_sizes=QUICK_TRAININGS),
                    "paper": full_scale(
                        96,
                        queries=20,
                        query_counts=(2, 5, 10, 20, 50, 100),
                        width=64,
                        images=8000,
                        epochs=25,
                        objective="adversarial",
                    ),
                },
            ),
        )
    }
)
"""The tasks by name."""


def make_scenario(task: str, data: str | Path | None, seed: int, scale: Scale) -> Scenario:
    """Make the scenario of a task at a scale.

    data: folder of the real data sets; None for tasks that need none.
    seed: of the split of the data.

    Raises InputError for an unknown task, and where `data` is missing or lacks the task's file.
    """
    entry = EXPERIMENT_TASKS.get(task)
    if entry is None:
        raise InputError(f"task must be one of {', '.join(EXPERIMENT_TASKS)}, got {task!r}")
    if not entry.needs_data:
        return entry.load_maker()(seed, **scale.scenario_options)
    if data is None:
        raise InputError(f"{task} needs the folder of the real data sets; pass --data FOLDER")
    return entry.load_maker()(data, seed, **scale.scenario_options)
