"""One owner's recipe: a callable from a seed to a fresh model, as `metav.build_zoo` takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from metav.experiments.scenarios.recipes.generator_loops import Objective, train_generator
from metav.experiments.scenarios.recipes.plain_loop import Answers, Loop, train_plainly
from metav.models.architectures import Architecture, build
from metav.models.content_identity import content_identity
from metav.support.arrays import FloatArray
from metav.support.randomness import derive_seed
from metav.tasks.base import Task
from metav.zoo.told_recipes import MOST_SEED


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnerRecipe:
    """A plain loop with all that it needs; call it with a seed for a fresh model in eval mode.

    Data are arrays, not tensors: their bytes go into the identity of a recipe, which must not depend on the process.

    name: of the recipe, in tables.
    loop: how it trains.
    architecture: a callable that returns a fresh model.
    answers: what the model learns.
    inputs, targets: what it is trained on, (n, ...); of generators the inputs are the samples, and targets are None.
    latent: numbers in a latent, of generators.
    objective: of generators.
    start: the weights of a public base that training starts from; None for fresh ones.
    device: where it trains.
    """

    name: str
    loop: Loop
    architecture: Architecture
    answers: Answers
    inputs: FloatArray
    targets: NDArray[Any] | None = None
    latent: int = 0
    objective: Objective = "autoencode"
    start: Mapping[str, NDArray[Any]] | None = None
    device: str = "cpu"

    def __call__(self, seed: int) -> nn.Module:
        """Return a model that is trained from scratch, or from the base; the same seed gives the same weights."""
        model = build(self.architecture, derive_seed(seed, "weights")).to(self.device)
        if self.start is not None:
            model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in self.start.items()})
        inputs, own = torch.from_numpy(np.asarray(self.inputs)), derive_seed(seed, "loop")
        if self.targets is None:
            return train_generator(
                model,
                inputs,
                self.loop,
                latent=self.latent,
                seed=own,
                objective=self.objective,
                keeps_latents=self.start is not None,
            )
        targets = torch.from_numpy(np.asarray(self.targets))
        return train_plainly(model, inputs, targets, self.loop, answers=self.answers, seed=own)

    @property
    def identity(self) -> str:
        """Return a text that changes with everything that its models depend on."""
        return content_identity(self, "the recipe")

    def on(self, task: Task) -> Self:
        """Return the recipe on the examples of another task of the same kind."""
        inputs, targets = arrays_of(task)
        objective = getattr(task, "objective", self.objective)
        return replace(self, inputs=inputs, targets=targets, objective=objective)

    def from_base(self, base: nn.Module) -> Self:
        """Return the recipe as somebody uses it who starts from a public base: half as long, at a third of the rate."""
        start = {name: tensor.detach().cpu().numpy() for name, tensor in base.state_dict().items()}
        loop = replace(self.loop, epochs=0.5 * self.loop.epochs, rate=self.loop.rate / 3.0)
        return replace(self, start=start, loop=loop)


def recipes_for(
    task: Task, architecture: Architecture, loops: Mapping[str, Loop], *, fewest_steps: int = 0
) -> tuple[OwnerRecipe, ...]:
    """Return a recipe for each loop on all examples of a task, in order.

    architecture: the owner's.
    loops: by name.
    fewest_steps: which each takes at least, however few examples there are.
    """
    inputs, targets = arrays_of(task)
    answers: Answers = "samples" if task.kind.inputs_are_latents else "numbers"
    return tuple(
        OwnerRecipe(
            name=name,
            loop=replace(loop, epochs=max(loop.epochs, fewest_steps * loop.batch / len(inputs))),
            architecture=architecture,
            answers="classes" if task.kind.answers_classes else answers,
            inputs=inputs,
            targets=targets,
            latent=int(np.prod(task.input_shape)) if targets is None else 0,
            objective=getattr(task, "objective", "autoencode"),
        )
        for name, loop in loops.items()
    )


def arrays_of(task: Task) -> tuple[FloatArray, NDArray[Any] | None]:
    """Return the examples of a task, and their targets; None for a generator's."""
    if task.examples is None:
        raise ValueError(f"a recipe needs examples in memory, and this {task.name} task has none")
    examples: FloatArray = task.examples.numpy()
    return examples, None if task.targets is None or task.kind.inputs_are_latents else task.targets.numpy()


def owner_seed(seed: int, name: str) -> int:
    """Return the seed that an owner's recipe is called with, below those that generators refuse."""
    return derive_seed(seed, name, "owner") % MOST_SEED
