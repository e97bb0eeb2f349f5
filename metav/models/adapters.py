"""Users' models as models from one tensor to one tensor: the only door through which they come in.

A model may answer with a tuple, a mapping or a dataclass, take several inputs, answer with one number for two classes,
or with chances where a loss needs log-odds. Everything behind this door sees one tensor go in and one come out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from metav.errors import ModelError
from metav.models.architectures import Architecture, build
from metav.models.copying import duplicate
from metav.models.identity import source_identity, tensor_digest
from metav.models.running import device_of, evaluating
from metav.support.model_answers import OutputChoice, chosen_part, fitting_parts, listed, parts_of
from metav.support.model_interface import PLAIN, ModelInterface
from metav.support.randomness import isolated_rng

LEAST_CHANCE = 1e-6
"""Chances nearer than this to 0 or 1 count as this near: their log-odds are still numbers."""
REDRAWS = 8
"""How often a model's weights are drawn anew to see whether it can leave the range from 0 to 1 at all."""
ADVICE = 'name one with output=, such as output="logits", or pass metav.adapt_model(model, output="logits")'


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedAnswer:
    """What one model of a task answers to one query.

    fits: whether an answer of a shape, without the axis of the queries, is one as it is.
    stands_for_two: the same of an answer in which one number stands for two classes.
    classes_last: the same of an answer whose classes stand behind its places instead of before them.
    are_odds: whether each number is the log-odds of a label of its own.
    text: what is expected, for messages, such as "(n, 10)".
    """

    fits: Callable[[tuple[int, ...]], bool]
    stands_for_two: Callable[[tuple[int, ...]], bool]
    classes_last: Callable[[tuple[int, ...]], bool]
    are_odds: bool
    text: str


class AdaptedModel(nn.Module):
    """A model of the user's, as one from a tensor of queries to one tensor; it shares the user's weights.

    inner: the user's model.
    interface: how it is called, and which part of its answer counts.
    are_chances: whether it answers chances in [0, 1], which become log-odds.
    stands_for_two: whether one number stands for two classes, and becomes their scores along axis 1.
    classes_last: whether the last axis becomes axis 1.
    """

    identity_name = "AdaptedModel"

    def __init__(
        self,
        inner: nn.Module,
        interface: ModelInterface,
        *,
        are_chances: bool = False,
        stands_for_two: bool = False,
        classes_last: bool = False,
    ) -> None:
        super().__init__()
        self.inner, self.output, self.input = inner, interface.output, interface.input
        self.are_chances, self.stands_for_two, self.classes_last = are_chances, stands_for_two, classes_last
        self.plain_constants: dict[str, Any] = {}
        self.constant_names: list[str] = []
        for name, value in interface.constants.items():
            tensor = torch.as_tensor(value) if parts_of(value) else None
            if tensor is None:
                self.plain_constants[name] = value
            else:
                # not persistent: constants are no weights, so that a state fits models with and without this class
                self.register_buffer(f"constant_{name}", tensor.detach().clone(), persistent=False)
                self.constant_names.append(name)

    def forward(self, queries: Tensor) -> Tensor:
        """Return the one tensor that counts, of shape (n, ...), for queries (n, ...)."""
        answer = self._one_of(self.interface.call(self.inner, queries), len(queries))
        if self.classes_last:
            answer = answer.movedim(-1, 1)
        if self.are_chances:
            answer = torch.logit(answer, eps=LEAST_CHANCE)
        if self.stands_for_two:
            score = answer.squeeze(1) if answer.ndim > 1 and answer.shape[1] == 1 else answer
            answer = torch.stack([torch.zeros_like(score), score], dim=1)
        return answer

    @property
    def interface(self) -> ModelInterface:
        """How the inner model is called; constant tensors are where this model is."""
        constants = {name: getattr(self, f"constant_{name}") for name in self.constant_names}
        return ModelInterface(output=self.output, input=self.input, constants={**self.plain_constants, **constants})

    def around(self, inner: nn.Module) -> AdaptedModel:
        """Return another model adapted in the same way."""
        return AdaptedModel(
            inner,
            self.interface,
            are_chances=self.are_chances,
            stands_for_two=self.stands_for_two,
            classes_last=self.classes_last,
        ).train(inner.training)

    def extra_repr(self) -> str:
        """Return all that decides what is computed; identities go by it."""
        named = {name: getattr(self, f"constant_{name}") for name in self.constant_names}
        constants = tensor_digest(named, self.plain_constants) if named or self.plain_constants else None
        output = source_identity(self.output) if callable(self.output) else self.output
        return (
            f"output={output!r}, input={self.input!r}, constants={constants}, "
            f"are_chances={self.are_chances}, stands_for_two={self.stands_for_two}, classes_last={self.classes_last}"
        )

    def _one_of(self, answer: Any, count: int) -> Tensor:
        try:
            if self.output is not None:
                chosen = chosen_part(answer, self.output)
            elif isinstance(answer, Tensor):
                return answer
            else:
                parts = fitting_parts(answer, lambda part: _is_answer(part, count))
                if len(parts) != 1:
                    raise LookupError(f"several parts may count: {listed(parts_of(answer))}; {ADVICE}")
                chosen = next(iter(parts.values()))
        except LookupError as error:
            raise ModelError(f"the model of class {type(self.inner).__qualname__} answers otherwise: {error}") from None
        if not isinstance(chosen, Tensor):
            raise ModelError(
                f"output={self.output!r} gives {type(chosen).__name__}, expected one tensor of shape ({count}, ...)"
            )
        return chosen


@dataclass(frozen=True, slots=True)
class AdaptedArchitecture:
    """An architecture of the user's whose models are adapted like a first one of them.

    architecture: the user's callable.
    like: an adapted model of it.
    """

    architecture: Architecture
    like: AdaptedModel

    def __call__(self) -> nn.Module:
        """Return a fresh model, adapted."""
        return self.like.around(self.architecture())


def adapt_model(
    model: nn.Module, *, output: OutputChoice | None = None, input: str | None = None, constants: Any = None
) -> AdaptedModel:
    """Return a model as one from a tensor of queries to one tensor; it shares its weights with the model.

    output: which part of its answer counts: a name ("logits"), a number, or a function from the answer to a tensor;
        None where only one part has a row for each query.
    input: name of the parameter of `forward` that takes the queries; None for the first one.
    constants: what other parameters are given, by name. An array of two axes and more whose first one is 1 is
        repeated for each query.

    Raises ModelError for what is no module, InputError for a parameter that `forward` does not have.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"model must be a torch.nn.Module, got {type(model).__name__}; pass the model itself")
    interface = ModelInterface(output=output, input=input, constants=constants or {})
    interface.check_call(model.forward, f"forward of {type(model).__qualname__}")
    return AdaptedModel(model, interface).train(model.training)


def adapted(
    model: nn.Module,
    inputs: Tensor,
    expected: ExpectedAnswer,
    interface: ModelInterface = PLAIN,
    *,
    looks_at_training: bool = True,
) -> nn.Module:
    """Return a model itself where it is one from a tensor to a tensor of the task, else the model adapted.

    inputs: natural ones, at least two, (n, *input shape).
    expected: what a model of the task answers.
    interface: what the user says of it.
    looks_at_training: whether its answer in training mode, which may differ, is looked at as well, on a copy.

    A model that fails is returned as it is: the check of models tells why.

    Raises ModelError, with all parts of the answer, where none fits or several do.
    """
    interface.check_call(model.forward, f"forward of {type(model).__qualname__}")
    try:
        answer = _asked(model, inputs, interface)
    except MemoryError:
        raise
    except Exception:
        return model if interface.calls_plainly else AdaptedModel(model, interface).train(model.training)
    if not (interface.is_of_owner or _has_part(answer, interface.output)):
        interface = replace(interface, output=None)
    chosen, name = _choose(answer, interface.output, expected, len(inputs), model)
    in_training = _answer_in_training(model, inputs, interface) if looks_at_training else None
    if not callable(interface.output) and isinstance(answer, Tensor):
        # a name goes for the answers that have parts: none, or those in training mode
        name = None if in_training is None else _choose(in_training, interface.output, expected, len(inputs), model)[1]
    choice: OutputChoice | None = interface.output if callable(interface.output) else name
    shape, called = tuple(chosen.shape[1:]), replace(interface, output=choice)
    last = not expected.fits(shape) and expected.classes_last(shape)
    two = not (expected.fits(shape) or last) and expected.stands_for_two(shape)
    chances = (two or expected.are_odds) and _answers_chances(AdaptedModel(model, called), inputs)
    if called.is_plain and not (two or chances or last):
        return model
    found = AdaptedModel(model, called, are_chances=chances, stands_for_two=two, classes_last=last)
    return found.train(model.training)


def adapted_like(model: nn.Module, like: nn.Module) -> nn.Module:
    """Return a model adapted as another one of its class is; as it is where that one is plain."""
    return like.around(adapted_like(model, like.inner)) if isinstance(like, AdaptedModel) else bare(model)


def adapted_architecture(
    architecture: Architecture, adapt: Callable[[nn.Module], nn.Module], seed: int = 0
) -> Architecture:
    """Return an architecture whose models need no adapting: the same where they are plain.

    adapt: from a fresh model to one that is adapted where it has to be.
    seed: of the weights of the model that is tried.
    """
    tried = adapt(build(architecture, seed))
    return AdaptedArchitecture(architecture, tried) if isinstance(tried, AdaptedModel) else architecture


def bare(model: nn.Module) -> nn.Module:
    """Return the user's own model within an adapted one."""
    return bare(model.inner) if isinstance(model, AdaptedModel) else model


def one_tensor(answer: Any, expected: ExpectedAnswer, count: int) -> Tensor:
    """Return the one tensor of an answer to `count` queries that fits a task.

    Raises ModelError where none fits or several do.
    """
    return answer if isinstance(answer, Tensor) else _choose(answer, None, expected, count, None)[0]


def output_name(model: nn.Module) -> str | None:
    """Return the name of the part of its answer that counts; None for a plain model, or a choice that has no name."""
    if not isinstance(model, AdaptedModel):
        return None
    return model.output if isinstance(model.output, str) else output_name(model.inner)


def _asked(model: nn.Module, inputs: Tensor, interface: ModelInterface = PLAIN) -> Any:
    """Return a model's whole answer in eval mode."""
    with isolated_rng(0), evaluating(model):
        return interface.call(model, inputs.to(device_of(model)))


def _has_part(answer: Any, choice: OutputChoice | None) -> bool:
    """Return whether an answer has the part that is chosen, by whatever a function of the user's may do."""
    try:
        return choice is not None and chosen_part(answer, choice) is not None
    except Exception:
        return False


def _is_answer(part: Any, count: int) -> bool:
    return isinstance(part, Tensor) and part.is_floating_point() and part.ndim > 0 and len(part) == count


def _choose(
    answer: Any, choice: OutputChoice | None, expected: ExpectedAnswer, count: int, model: nn.Module | None
) -> tuple[Tensor, OutputChoice | None]:
    """Return the part of an answer that counts, and what it is called; None for an answer that is one tensor."""
    who = "the model" if model is None else f"the model of class {type(bare(model)).__qualname__}"
    if choice is not None:
        try:
            part = chosen_part(answer, choice)
        except (LookupError, AttributeError, TypeError) as error:
            raise ModelError(f"output={choice!r} does not fit {who}: {error}; {ADVICE}") from error
        if not isinstance(part, Tensor) or not part.ndim or len(part) != count:
            shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise ModelError(f"output={choice!r} of {who} is {shape}, expected a tensor of shape {expected.text}")
        return part, choice
    if isinstance(answer, Tensor):
        return answer, None
    for fits in (expected.fits, expected.classes_last, expected.stands_for_two):
        parts = {
            name: part
            for name, part in fitting_parts(answer, lambda part: _is_answer(part, count)).items()
            if fits(tuple(part.shape[1:]))
        }
        if len(parts) == 1:
            ((name, part),) = parts.items()
            return part, name
        if parts:
            raise ModelError(f"{who} answers several tensors of shape {expected.text}: {listed(parts)}; {ADVICE}")
    raise ModelError(
        f"{who} answers {type(answer).__name__} with {listed(parts_of(answer))}, none of them {expected.text}; change "
        "its last layer or the task, or give output= a function from this answer to one tensor"
    )


def _answer_in_training(model: nn.Module, inputs: Tensor, interface: ModelInterface) -> Any:
    """Return what a copy of a model answers in training mode; None where that is a tensor, or cannot be told."""
    if all(type(module).__module__.startswith("torch.nn.") for module in model.modules()):
        return None
    try:
        twin = duplicate(model).train()
        with isolated_rng(0), torch.no_grad():
            answer = interface.call(twin, inputs.to(device_of(twin)))
    except Exception:
        return None  # no copy, or no training on so few inputs: whoever trains it will be told
    return None if isinstance(answer, Tensor) else answer


def _answers_chances(model: nn.Module, inputs: Tensor) -> bool:
    """Return whether a model can answer nothing but numbers in [0, 1], whatever its weights."""
    if not _all_chances(_asked(model, inputs)):
        return False
    twin = duplicate(model)
    with isolated_rng(0), torch.no_grad():
        for _ in range(REDRAWS):
            for parameter in twin.parameters():
                if parameter.is_floating_point():
                    parameter.normal_()
            if not _all_chances(_asked(twin, inputs)):
                return False
    return True


def _all_chances(answer: Any) -> bool:
    known = answer[torch.isfinite(answer)]
    return bool(((known >= 0) & (known <= 1)).all())
