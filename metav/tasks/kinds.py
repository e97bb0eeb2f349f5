"""The kinds of task, and what everything else needs to know of each: one row of a table per kind."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_INPUTS = ("inputs", "x", "images")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskKind:
    """One kind of task.

    name: what `Task.name` says, and the command line's `--task`.
    home: "module:Class", imported when the class is needed.
    arrays: the constructor's arrays in order, each with the names it may have in a data file.
    required_options: options of the constructor that a user has to give, each with what it is.
    answers_classes: whether the outputs are a classifier's, so that a label can be read off them.
    answers_places: whether the outputs are those of several classifiers, one for each label or pixel.
    answers_odds: whether there is one number for each place, the log-odds of its label.
    inputs_are_latents: whether inputs are random vectors that can be drawn at will, and the examples are what the model
        puts out.
    """

    name: str
    home: str
    arrays: Mapping[str, tuple[str, ...]]
    required_options: Mapping[str, str] = field(default_factory=dict)
    answers_classes: bool = False
    answers_places: bool = False
    answers_odds: bool = False
    inputs_are_latents: bool = False

    def load_class(self) -> Any:
        """Return the class of the kind, a subclass of `Task`; needs PyTorch."""
        module, _, name = self.home.partition(":")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNeeds:
    """What an obfuscation, an attack or a scheme needs of a task to make sense.

    classes: whether it needs outputs off which one label can be read.
    labels: whether it needs outputs off which labels can be read, one or several.
    data_inputs: whether it needs inputs that are data, not latents.
    latents: whether it needs inputs that are latents.
    """

    classes: bool = False
    labels: bool = False
    data_inputs: bool = False
    latents: bool = False

    def met_by(self, kind: TaskKind) -> bool:
        """Return whether a kind of task has all that is needed."""
        lacks_classes = self.classes and not kind.answers_classes
        lacks_classes |= self.labels and not (kind.answers_classes or kind.answers_places)
        wrong_inputs = self.latents if not kind.inputs_are_latents else self.data_inputs
        return not lacks_classes and not wrong_inputs

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the kinds of task that have all that is needed."""
        return tuple(name for name, kind in TASK_KINDS.items() if self.met_by(kind))


TASK_KINDS: Mapping[str, TaskKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            TaskKind(
                name="classification",
                home="metav.tasks.classification:Classification",
                arrays={"inputs": _INPUTS, "labels": ("labels", "y")},
                answers_classes=True,
            ),
            TaskKind(
                name="multi-label",
                home="metav.tasks.multi_label:MultiLabelClassification",
                arrays={"inputs": _INPUTS, "labels": ("labels", "y")},
                answers_places=True,
                answers_odds=True,
            ),
            TaskKind(
                name="segmentation",
                home="metav.tasks.segmentation:Segmentation",
                arrays={"inputs": _INPUTS, "labels": ("labels", "masks", "y")},
                answers_places=True,
            ),
            TaskKind(
                name="regression",
                home="metav.tasks.regression:Regression",
                arrays={"inputs": _INPUTS, "targets": ("targets", "y")},
            ),
            TaskKind(
                name="generation",
                home="metav.tasks.generation:Generation",
                arrays={"samples": ("samples", "x", "images")},
                required_options={"latent": "SIZE, the length of the vector that the model takes"},
                inputs_are_latents=True,
            ),
        )
    }
)
"""All kinds by name."""


ANY_TASK = TaskNeeds()
"""What suits every kind of task."""


def kind_of(name: str, *, has_places: bool = False) -> TaskKind:
    """Return the kind of a task's name; an unknown name is treated like regression, which assumes least.

    has_places: whether the task tells which places of an answer are read. One that bears the name of such a kind, and
        does not tell, is a task of the user's own.
    """
    found = TASK_KINDS.get(name, TASK_KINDS["regression"])
    return TASK_KINDS["regression"] if found.answers_places and not has_places else found
