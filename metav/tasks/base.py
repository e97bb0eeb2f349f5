"""What every task has in common: the contract that zoo, obfuscations and optimisation rely on."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from metav.errors import InputError, ModelError
from metav.models.adapters import ExpectedAnswer, adapted
from metav.models.identity import source_identity
from metav.models.recipe import DrawnRecipe
from metav.models.running import Teacher, device_of, predict
from metav.models.training import OnEpoch, TrainingOptions, training_mode
from metav.support.arithmetic import fixed_arithmetic
from metav.support.model_interface import PLAIN, ModelInterface, call_remedy
from metav.support.randomness import isolated_rng
from metav.support.torch_state import in_standard_torch_state, standard_torch_state
from metav.tasks.kinds import TaskKind, kind_of
from metav.verifiers.places import Places

DEFAULT_EPOCHS = 10.0
"""Epochs of one training from scratch, for a task that states none."""

MOST_NUMBERS = 2**26
"""Numbers that a model answers at once where it is measured."""

ROWS_AT_ONCE = 1024
"""Examples that are looked through together."""

TRAIN_OPTIONS = frozenset({"on_epoch", "truth"})
"""Parameters that a task's `train` may lack: `on_epoch` calls back after each epoch, `truth` mixes the answers of a
teacher with the true targets."""


class Task:
    """A task: what the owner's model has learned, its data, its loss, and how a model is trained for it.

    For a task of your own, subclass it, or pass any object with the same methods. A subclass sets `name`,
    `input_shape`, `lower` and `upper`, and writes `loss`, `metric`, `natural_queries`, `digest`, `bootstrap`, and
    either `train` or `_fit`. All else has the defaults below. Which optional parameters a `train` of its own takes is
    read off its signature once, when the class is made.

    name: kind of the task (`metav.tasks.kinds`); another name is treated like regression.
    view: how a fingerprint reads the outputs, for example as log-probabilities (`metav.verifiers`).
    input_shape: of one input.
    outputs: numbers per query, flattened; None where any will do.
    lower, upper: bounds of an input, float32 of `input_shape`.
    levels: number of values that a feature may take; None is continuous.
    metric_name: what `metric` measures.
    higher_is_better: whether a higher metric is better.
    baseline: the metric of the best constant answer; None where there is none.
    options: how it trains; None for a training loop of its own.
    examples, targets: its data, (n, ...), tensors that may lie in files; None where they are elsewhere.
    validation_indices: which of the examples are not trained on; None where that is not known.
    train_options: those of TRAIN_OPTIONS that `train` takes. Without `on_epoch` no snapshots are taken; without `truth`
        a distilled model learns from its teacher alone.
    takes_other_data: whether `with_data` works.
    is_aligned: whether targets lie at places of the inputs, as those of pixels do: inputs cannot be moved alone.
    class_names: of the classes or labels, in the order of the outputs; empty where they have none.
    places: of an answer that holds a class for each of several places, with those that a fingerprint reads; None for
        other tasks.
    """

    name: str
    view: str = "identity"
    metric_name: str = "loss"
    higher_is_better: bool = False
    input_shape: tuple[int, ...]
    outputs: int | None = None
    lower: Tensor
    upper: Tensor
    levels: int | None = None
    baseline: float | None = None
    options: TrainingOptions | None = None
    examples: Tensor | None = None
    targets: Tensor | None = None
    validation_indices: Tensor | None = None
    train_options: frozenset[str] = TRAIN_OPTIONS
    takes_other_data: bool = False
    is_aligned: bool = False
    class_names: tuple[str, ...] = ()
    places: Places | None = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "__init__" in cls.__dict__:
            # tensors that are made in inference mode could not be trained on, nor with another default dtype or device
            cls.__init__ = in_standard_torch_state(cls.__init__)  # type: ignore[method-assign]
        if "train" in cls.__dict__ and "train_options" not in cls.__dict__:
            cls.train_options = options_taken(cls.train)
        if "with_data" in cls.__dict__ and "takes_other_data" not in cls.__dict__:
            cls.takes_other_data = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._in_words())})"

    def _in_words(self) -> Iterator[str]:
        """Yield what tells a task from another; a task of a user's own may lack any of it."""
        if self.examples is not None:
            yield f"{len(self.examples)} examples"
        shape = getattr(self, "input_shape", None)
        if shape is not None:
            yield f"inputs of {'x'.join(map(str, shape)) or 'one number'}"
        if self.outputs is not None:
            yield f"{self.outputs} outputs"
        yield f"read as {self.view}"
        if self.levels is not None:
            yield f"{self.levels} levels"
        yield "a training loop of its own" if self.has_own_loop else f"{self.epochs:g} epochs"

    @property
    def kind(self) -> TaskKind:
        """The kind of the task, with what the rest of metav needs to know of it."""
        return kind_of(self.name, has_places=self.places is not None)

    @property
    def epochs(self) -> float:
        """Epochs of one training from scratch."""
        return DEFAULT_EPOCHS if self.options is None else self.options.epochs

    @property
    def has_own_loop(self) -> bool:
        """Whether the task has a training loop of its own, of which no more than length and data can be changed."""
        return type(self).train is not Task.train

    @property
    def states_epochs(self) -> bool:
        """Whether the task says how many epochs one training takes."""
        return self.options is not None or type(self).epochs is not Task.epochs

    @property
    def natural_count(self) -> int | None:
        """How many different natural inputs there are; None for as many as are wanted."""
        return None if self.examples is None or self.kind.inputs_are_latents else len(self.examples)

    @property
    def expected_answer(self) -> ExpectedAnswer:
        """What a model of this task answers to one query."""
        outputs = self.outputs
        return ExpectedAnswer(
            fits=lambda shape: outputs is None or math.prod(shape) == outputs,
            stands_for_two=lambda shape: False,
            classes_last=lambda shape: False,
            are_odds=False,
            text=f"(n, {'...' if outputs is None else outputs})",
        )

    def adapted(
        self, model: nn.Module, interface: ModelInterface = PLAIN, *, looks_at_training: bool = True
    ) -> nn.Module:
        """Return a model itself where it takes and answers one tensor as this task's do, else adapted to it.

        interface: what is known of how it is called, and of what it answers.
        looks_at_training: whether its answer in training mode is looked at as well, on a copy.

        Raises ModelError where no part of what it answers fits, or several do.
        """
        latents = self.examples is None or self.kind.inputs_are_latents
        inputs = self.natural_queries(2, seed=0) if latents or self.examples is None else self.examples[:2]
        return adapted(model, inputs, self.expected_answer, interface, looks_at_training=looks_at_training)

    def answers(self, model: Teacher, inputs: Tensor) -> Tensor:
        """Return the outputs (n, ...) of a model or callable to inputs, see `predict`; the model may need adapting."""
        own = self.adapted(model, looks_at_training=False) if isinstance(model, nn.Module) else model
        return predict(own, inputs)

    def measured_at_once(self, most: int) -> int:
        """Return how many inputs a model is asked at once where it is measured: `most`, or as memory allows."""
        return most if self.outputs is None else max(8, min(most, MOST_NUMBERS // self.outputs))

    def identity(self) -> str:
        """Return a text that changes with the code of the task's class, see `metav.models.identity`."""
        return source_identity(type(self))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of a batch of outputs against targets."""
        raise NotImplementedError

    def teacher_loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Return the scalar loss of a student's outputs against its teacher's answers."""
        return self.loss(outputs, answers)

    def labels_alone(self, answers: Tensor) -> Tensor:
        """Return a teacher's answers, of which nothing but the labels is left, as sure scores of the same shape."""
        rows = answers.flatten(1)
        return 50.0 * nn.functional.one_hot(rows.argmax(dim=1), rows.shape[1]).float()

    def read(self, model: nn.Module, *, is_read: bool = False) -> nn.Module:
        """Return a model as a fingerprint reads it: as it is, but for tasks with `places`.

        is_read: whether it answers numbers at the chosen places already.
        """
        return model

    def read_targets(self, targets: Tensor) -> Tensor:
        """Return targets (n, ...) as a fingerprint keeps them: as they are, but for tasks with `places`."""
        return targets

    def metric(self, model: nn.Module) -> float:
        """Return the quality of a model on the validation part (the training part where there is none)."""
        raise NotImplementedError

    def natural_queries(self, count: int, *, seed: int) -> Tensor:
        """Return `count` different natural inputs, float32 of shape (count, *input_shape)."""
        raise NotImplementedError

    def true_answers(self, inputs: Tensor) -> Tensor | None:
        """Return the targets (n, ...) of natural inputs (n, *input_shape); None where they are not known.

        Inputs are looked up among `examples`, value by value.
        """
        if self.examples is None or self.targets is None or self.kind.inputs_are_latents:
            return None
        sought = [row.numpy().tobytes() for row in inputs.float().cpu()]
        places: dict[bytes, int | None] = dict.fromkeys(sought)
        number = 0
        for part in torch.split(self.examples, ROWS_AT_ONCE):
            for row in part.float().cpu().numpy():
                content = row.tobytes()
                if content in places:
                    places[content] = number
                number += 1
        found = [place for content in sought if (place := places[content]) is not None]
        return self.targets[torch.tensor(found)] if found and len(found) == len(sought) else None

    def digest(self) -> str:
        """Return a SHA-256 over all data and options: two tasks with the same digest train the same models."""
        raise NotImplementedError

    def bootstrap(self, seed: int, fraction: float = 0.5) -> Self:
        """Return a task of the same kind on a random part of the examples, drawn without replacement."""
        raise NotImplementedError

    def subset(self, indices: Any) -> Self:
        """Return a task of the same kind and bounds on the examples at `indices`."""
        raise NotImplementedError

    def with_data(self, examples: Tensor, targets: Tensor | None = None) -> Self:
        """Return a task of the same kind and options on other data; only where `takes_other_data`."""
        raise NotImplementedError

    def with_epochs(self, epochs: float) -> Self:
        """Return the task with another number of epochs; one with a training loop of its own is returned as it is."""
        return self

    def with_recipe(self, recipe: DrawnRecipe) -> Self:
        """Return the task on a recipe's share of the data and, where it states its epochs, with those of the recipe."""
        part = self if recipe.part == 1.0 else self.bootstrap(recipe.seed, recipe.part)
        return part.with_epochs(recipe.epochs) if self.states_epochs else part

    def with_autocast(self, dtype: str) -> Self:
        """Return the task that trains under autocast (`TrainingOptions.autocast`).

        Raises InputError for a training loop that is not metav's, whose precision is its own business.
        """
        raise InputError(
            f"autocast= is for metav's own training loop, and the task of class {type(self).__name__} has another; "
            "leave it out, and use torch.autocast in that loop"
        )

    def train(
        self,
        model: nn.Module,
        *,
        seed: int,
        teacher: Teacher | None = None,
        parameters: Iterable[Tensor] | None = None,
        epochs: float | None = None,
        on_epoch: OnEpoch | None = None,
        truth: float = 0.0,
    ) -> nn.Module:
        """Train a model in place and return it in eval mode; a pure function of weights, data, arguments and `seed`.

        teacher: a module or callable whose outputs are the targets; None for the true targets.
        parameters: the only ones to train; None for those that require gradients, for all if none does.
        epochs: instead of the task's; a fraction of an epoch is at least one step.
        on_epoch: called with (share done, model) after each epoch.
        truth: weight in [0, 1] of the true targets beside the teacher's outputs.

        The global random state is untouched.

        Raises ModelError when training diverges or the model has no parameters.
        """
        chosen = _trainable(model) if parameters is None else list(parameters)
        if not chosen:
            raise ModelError("the model has no parameters to train; pass a module with weights")
        options = self._options(epochs)
        plain = self.adapted(model, looks_at_training=False)
        if isinstance(teacher, nn.Module):
            teacher = self.adapted(teacher, looks_at_training=False)
        watched = on_epoch if on_epoch is None or plain is model else lambda share, _: on_epoch(share, model)
        with standard_torch_state(), isolated_rng(seed), fixed_arithmetic(), training_mode(model, chosen):
            self._fit(plain, chosen, options, seed=seed, teacher=teacher, truth=truth, on_epoch=watched)
        return model

    def check_model(self, model: nn.Module) -> None:
        """Raise ModelError unless a model answers two natural inputs with finite outputs that fit the task."""
        inputs = self.natural_queries(2, seed=0)
        shape = tuple(inputs.shape)
        try:
            with standard_torch_state(), isolated_rng(0):
                outputs = self.answers(model, inputs)
        except ModelError:
            raise
        except Exception as error:
            remedy = call_remedy(model.forward) or (
                f"this {self.name} task needs a model that takes (n, {', '.join(map(str, self.input_shape))})"
            )
            if "device" in str(error):
                remedy = (
                    f"the model was asked on {device_of(model)}, where its first parameter lies: keep all its parts "
                    "there, and let forward make tensors on the device of its inputs"
                )
            raise ModelError(
                f"the model failed on inputs of shape {shape}: {type(error).__name__}: {error}; {remedy}"
            ) from error
        found, expected = tuple(outputs.shape), self.expected_answer
        if not found or found[0] != 2 or not expected.fits(found[1:]):
            raise ModelError(
                f"the model answers inputs of shape {shape} with shape {found}, expected "
                f"{expected.text.replace('(n', '(2')}{'' if self.places else ' outputs (flattened)'}; "
                "change its last layer or the task's targets"
            )
        if not torch.isfinite(outputs).all():
            raise ModelError(f"the model answers natural inputs of shape {shape} with NaN or infinite values")

    def _options(self, epochs: float | None) -> TrainingOptions:
        if self.options is None:
            raise InputError(
                f"the task of class {type(self).__name__} has neither `options` nor a `train` of its own; give it one"
            )
        return self.options if epochs is None else replace(self.options, epochs=epochs)

    def _fit(
        self,
        model: nn.Module,
        chosen: list[Tensor],
        options: TrainingOptions,
        *,
        seed: int,
        teacher: Teacher | None,
        truth: float,
        on_epoch: OnEpoch | None,
    ) -> None:
        raise NotImplementedError


def _trainable(model: nn.Module) -> list[Tensor]:
    """Return the parameters that the user left trainable; all of a model that was frozen as a whole."""
    floating: list[Tensor] = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    return [parameter for parameter in floating if parameter.requires_grad] or floating


def train_as_it_can(
    task: Task,
    model: nn.Module,
    *,
    seed: int,
    teacher: Teacher | None = None,
    parameters: Iterable[Tensor] | None = None,
    epochs: float | None = None,
    on_epoch: OnEpoch | None = None,
    truth: float = 0.0,
) -> nn.Module:
    """Train by a task's own `train`, and return the trained model.

    Options that are None, and those of TRAIN_OPTIONS that this `train` does not take, are left out. For the arguments
    see `Task.train`.
    """
    options = {"teacher": teacher, "parameters": parameters, "epochs": epochs, "on_epoch": on_epoch}
    options |= {"truth": truth} if truth > 0.0 else {}
    refused = TRAIN_OPTIONS - task.train_options
    given: dict[str, Any] = {name: value for name, value in options.items() if name not in refused}
    return task.train(model, seed=seed, **{name: value for name, value in given.items() if value is not None})


def options_taken(train: Callable[..., object]) -> frozenset[str]:
    """Return those of TRAIN_OPTIONS that a function `train` has as parameters."""
    parameters = inspect.signature(train).parameters.values()
    names = {entry.name for entry in parameters}
    takes_all = any(entry.kind is inspect.Parameter.VAR_KEYWORD for entry in parameters)
    return TRAIN_OPTIONS if takes_all else TRAIN_OPTIONS & names
