"""Runs many models on the same queries: one by one, or grouped by architecture where vmap is faster."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.flop_counter import FlopCounterMode

from metav.models.batching_warnings import told_once
from metav.models.copying import duplicate
from metav.models.identity import stated_name
from metav.models.running import device_of, differentiable, frozen_copy
from metav.models.staging import HOST, on_device

FEWEST_TOGETHER = 8
"""Models of one architecture from which on vmap is faster than the loop."""
MOST_OPERATIONS = 16e6
"""Floating-point operations of one model on the queries up to which it is: its arithmetic has to be little beside the
rest. Measured on one thread with 20 and 100 queries, fully connected and convolutional networks of 8x8 images."""
RUNS_ALONE = "runs_alone"
"""The attribute by which a module says, with True, that it is never run together with others (vmap): it holds more than
its weights and its `repr` tell, such as a fitted tree."""


def run_model(model: nn.Module, queries: Tensor) -> Tensor:
    """Return the raw responses (queries, outputs) of one model, asked on its own device; float32 on the CPU.

    For the rest see `answers_of`.
    """
    return on_device(answers_of(model, on_device(queries, device_of(model))), HOST)


def answers_of(model: nn.Module, queries: Tensor) -> Tensor:
    """Return the raw responses (queries, outputs) of one model to queries on its device, float32, left there.

    All outputs to one query are flattened into one row. A model whose answers do not follow the queries smoothly (a
    table, a tree, noise) has the gradient 0.
    """
    with differentiable(model):
        outputs: Tensor = model(queries)
    answers = outputs.reshape(queries.shape[0], -1).to(dtype=torch.float32)
    if torch.is_grad_enabled() and queries.requires_grad and not answers.requires_grad:
        return _WithoutGradient.apply(answers, queries)  # type: ignore[no-any-return, no-untyped-call]
    return answers


class _WithoutGradient(torch.autograd.Function):
    """Answers as they are, with a gradient of 0 to the queries, where autograd would fail for want of any."""

    @staticmethod
    def forward(context: Any, answers: Tensor, queries: Tensor) -> Tensor:
        """Return the answers, and keep what the gradient has to look like."""
        context.like = queries.detach()
        return answers.view_as(answers)

    @staticmethod
    def backward(context: Any, *_: Any) -> tuple[None, Tensor]:
        """Return no gradient to the answers, and zeros to the queries."""
        return None, torch.zeros_like(context.like)


@dataclass(frozen=True, slots=True)
class _Group:
    """Models of one architecture that `vmap` runs together.

    indices: their places in the ensemble.
    signature: of the architecture.
    skeleton: a model of the architecture, whose own weights are not used.
    parameters, buffers: those of all models, stacked along a first axis.
    """

    indices: tuple[int, ...]
    signature: str
    skeleton: nn.Module
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def run(self, queries: Tensor, positions: Tensor) -> Tensor:
        """Return the responses (positions, queries, outputs) of the models at these positions of the group.

        queries: on the device of the models, where the responses stay.
        """
        positions = on_device(positions, queries.device)
        parameters = {name: value[positions] for name, value in self.parameters.items()}
        buffers = {name: value[positions] for name, value in self.buffers.items()}

        def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor], queries: Tensor) -> Tensor:
            outputs: Tensor = functional_call(self.skeleton, (parameters, buffers), (queries,))
            return outputs.reshape(queries.shape[0], -1)

        with told_once(self.signature):
            stacked: Tensor = vmap(call, in_dims=(0, 0, None), randomness="error")(parameters, buffers, queries)
        return stacked.to(dtype=torch.float32)


class Ensemble:
    """Frozen copies of models that answer the same queries.

    models: modules with equal input and output shapes.
    queries: (count, *input shape) like those of the steps to come. Many small models of one architecture are run
        together on these (vmap), others one by one (the loop). None: the loop, as for a single pass.
    share: share of the models that a step will run, in (0, 1].

    The two ways differ in the last bits. Which one it is depends on models and queries alone, never on a clock, so that
    a repeated run computes in the same order.
    """

    def __init__(self, models: Sequence[nn.Module], queries: Tensor | None = None, *, share: float = 1.0) -> None:
        self.models = [frozen_copy(model) for model in models]
        self._group_of: dict[int, tuple[_Group, int]] = {}
        if queries is None:
            return
        by_architecture: dict[str, list[int]] = {}
        for index, model in enumerate(self.models):
            if getattr(model, RUNS_ALONE, False):
                continue
            by_architecture.setdefault(_signature(model), []).append(index)
        for signature, indices in by_architecture.items():
            if round(share * len(indices)) < FEWEST_TOGETHER or not _is_small(self.models[indices[0]], queries):
                continue
            group = self._stack(indices, signature)
            if group is not None and _answers_alike(group, self.models, queries):
                self._group_of.update({index: (group, place) for place, index in enumerate(indices)})

    def __len__(self) -> int:
        return len(self.models)

    @property
    def grouped(self) -> int:
        """How many models run through vmap."""
        return len(self._group_of)

    def responses(self, queries: Tensor, indices: Sequence[int] | None = None) -> Tensor:
        """Return raw responses (models, queries, outputs), float32 on the CPU; the gradient flows back to the queries.

        queries: (count, *input shape).
        indices: of the models to ask; None for all.

        Queries go to each device once, and all responses of a device come back at once; so do their gradients.
        """
        wanted = range(len(self.models)) if indices is None else indices
        given = OnEachDevice(queries)
        answers: dict[int, Tensor] = {}
        members: dict[int, tuple[_Group, list[int]]] = {}
        for index in wanted:
            if index in self._group_of:
                group, _ = self._group_of[index]
                members.setdefault(id(group), (group, []))[1].append(index)
            else:
                answers[index] = answers_of(self.models[index], given.on(self.models[index]))
        for group, chosen in members.values():
            places = torch.tensor([self._group_of[index][1] for index in chosen])
            answers.update(zip(chosen, group.run(given.on(group.skeleton), places), strict=True))
        return _on_host([answers[index] for index in wanted])

    def _stack(self, indices: Sequence[int], signature: str) -> _Group | None:
        models = [self.models[index] for index in indices]
        try:
            parameters, buffers = stack_module_state(models)
        except RuntimeError:
            return None  # same shapes, but a mixture of devices or dtypes: the loop serves them
        parameters = {name: value.detach() for name, value in parameters.items()}
        return _Group(tuple(indices), signature, duplicate(models[0]), parameters, buffers)


class OnEachDevice:
    """Queries as models on several devices take them, moved to each of these once."""

    def __init__(self, queries: Tensor) -> None:
        self._queries = queries
        self._moved: dict[torch.device, Tensor] = {}

    def on(self, model: nn.Module) -> Tensor:
        """Return the queries on a model's device."""
        device = device_of(model)
        if device not in self._moved:
            self._moved[device] = on_device(self._queries, device)
        return self._moved[device]


def _on_host(answers: Sequence[Tensor]) -> Tensor:
    """Return answers (queries, outputs) of models as (models, queries, outputs) on the CPU, in one copy per device."""
    devices = {answer.device for answer in answers}
    if len(devices) == 1:
        return on_device(torch.stack(list(answers)), HOST)
    found: dict[int, Tensor] = {}
    for device in devices:
        own = [place for place, answer in enumerate(answers) if answer.device == device]
        found.update(zip(own, on_device(torch.stack([answers[place] for place in own]), HOST), strict=True))
    return torch.stack([found[place] for place in range(len(answers))])


def _signature(model: nn.Module) -> str:
    shapes = [(name, tuple(value.shape), str(value.dtype)) for name, value in model.state_dict().items()]
    code = stated_name(type(model)) or f"{type(model).__module__}.{type(model).__qualname__}"
    return hashlib.sha256(repr((code, repr(model), shapes)).encode()).hexdigest()


def _is_small(model: nn.Module, queries: Tensor) -> bool:
    """Return whether a model's arithmetic on queries is so little that running it together with others is faster."""
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run_model(model, queries)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return False  # what cannot be counted is run as it is
    return int(counter.get_total_flops()) <= MOST_OPERATIONS


def _answers_alike(group: _Group, models: Sequence[nn.Module], queries: Tensor) -> bool:
    """Return whether models of a group answer together what they answer one by one, but for rounding.

    They do not where an attribute that stands in no `repr` differs.
    """
    try:
        with torch.no_grad():
            alone = torch.stack([run_model(models[index], queries) for index in group.indices])
        inputs = queries.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            given = OnEachDevice(inputs).on(group.skeleton)
            answers = on_device(group.run(given, torch.arange(len(group.indices))), HOST)
            torch.autograd.grad(answers.sum(), inputs)
    except (RuntimeError, ValueError, TypeError):
        return False  # vmap cannot trace this pass, forward or back (data-dependent control flow, .item(), ...)
    together = answers.detach()
    return bool((alone - together).abs().max() <= 1e-3 * (1 + alone.abs().max()))
