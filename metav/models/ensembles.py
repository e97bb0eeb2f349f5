"""Runs many models on the same queries: one by one, or grouped by architecture where vmap is faster."""

from __future__ import annotations

import hashlib
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from metav.models.batching_warnings import told_once
from metav.models.copying import duplicate
from metav.models.identity import stated_name
from metav.models.running import device_of, differentiable, frozen_copy
from metav.support.files import write_atomically

SPEEDUP_WANTED = 1.15
"""How many times faster than the loop vmap has to be: by more than timing noise."""
MEASUREMENTS = 5
"""How often each of the two ways is timed."""
RUNS_ALONE = "runs_alone"
"""The attribute by which a module says, with True, that it is never run together with others (vmap): it holds more than
its weights and its `repr` tell, such as a fitted tree."""


def run_model(model: nn.Module, queries: Tensor) -> Tensor:
    """Return the raw responses (queries, outputs) of one model, asked on its own device; float32 on the CPU.

    All outputs to one query are flattened into one row. A model whose answers do not follow the queries smoothly (a
    table, a tree, noise) has the gradient 0.
    """
    with differentiable(model):
        outputs: Tensor = model(queries.to(device_of(model)))
    answers = outputs.reshape(queries.shape[0], -1).to(device="cpu", dtype=torch.float32)
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
        """Return the responses (positions, queries, outputs) of the models at these positions of the group."""
        parameters = {name: value[positions] for name, value in self.parameters.items()}
        buffers = {name: value[positions] for name, value in self.buffers.items()}

        def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor], queries: Tensor) -> Tensor:
            outputs: Tensor = functional_call(self.skeleton, (parameters, buffers), (queries,))
            return outputs.reshape(queries.shape[0], -1)

        given = queries.to(device_of(self.skeleton))
        with told_once(self.signature):
            stacked: Tensor = vmap(call, in_dims=(0, 0, None), randomness="error")(parameters, buffers, given)
        return stacked.to(device="cpu", dtype=torch.float32)


class Ensemble:
    """Frozen copies of models that answer the same queries.

    models: modules with equal input and output shapes.
    queries: (count, *input shape) like those of the steps to come. On these, running the models of one architecture
        together (vmap) is timed against running them one by one (the loop), forward and back, and the faster way is
        chosen. None: the loop, as for a single pass.
    share: share of the models that a step will run, in (0, 1].

    The choice is kept on disk for each machine, so that a repeated run computes in the same order and returns the same
    bits.
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
            if len(indices) < 2:
                continue
            group = self._stack(indices, signature)
            if group is not None and _vmap_is_faster(group, self.models, queries, signature, share):
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
        """
        wanted = range(len(self.models)) if indices is None else indices
        answers: dict[int, Tensor] = {}
        members: dict[int, tuple[_Group, list[int]]] = {}
        for index in wanted:
            if index in self._group_of:
                group, _ = self._group_of[index]
                members.setdefault(id(group), (group, []))[1].append(index)
            else:
                answers[index] = run_model(self.models[index], queries)
        for group, chosen in members.values():
            places = torch.tensor([self._group_of[index][1] for index in chosen])
            answers.update(zip(chosen, group.run(queries, places), strict=True))
        return torch.stack([answers[index] for index in wanted])

    def _stack(self, indices: Sequence[int], signature: str) -> _Group | None:
        models = [self.models[index] for index in indices]
        try:
            parameters, buffers = stack_module_state(models)
        except RuntimeError:
            return None  # same shapes, but a mixture of devices or dtypes: the loop serves them
        parameters = {name: value.detach() for name, value in parameters.items()}
        return _Group(tuple(indices), signature, duplicate(models[0]), parameters, buffers)


def _signature(model: nn.Module) -> str:
    shapes = [(name, tuple(value.shape), str(value.dtype)) for name, value in model.state_dict().items()]
    code = stated_name(type(model)) or f"{type(model).__module__}.{type(model).__qualname__}"
    return hashlib.sha256(repr((code, repr(model), shapes)).encode()).hexdigest()


def _vmap_is_faster(group: _Group, models: Sequence[nn.Module], queries: Tensor, signature: str, share: float) -> bool:
    count = max(2, round(share * len(group.indices)))
    key_parts = (signature, count, tuple(queries.shape), torch.__version__, torch.get_num_threads(), platform.node())
    plan = _plans_folder() / hashlib.sha256(repr(key_parts).encode()).hexdigest()
    kept = _read_plan(plan)
    if kept is None:
        measured = _measure(group, [models[index] for index in group.indices[:count]], queries)
        kept = _keep_plan(plan, measured)
    return kept


def _measure(group: _Group, models: Sequence[nn.Module], queries: Tensor) -> bool:
    places = torch.arange(len(models))

    def loop(inputs: Tensor) -> Tensor:
        return torch.stack([run_model(model, inputs) for model in models])

    def grouped(inputs: Tensor) -> Tensor:
        return group.run(inputs, places)

    try:
        difference = (loop(queries) - grouped(queries)).abs().max()
        _seconds(grouped, queries)
    except (RuntimeError, ValueError, TypeError):
        return False  # vmap cannot trace this pass, forward or backward (data-dependent control flow, .item(), ...)
    if not bool(difference <= 1e-3 * (1 + loop(queries).abs().max())):
        return False
    times: dict[str, list[float]] = {"loop": [], "grouped": []}
    for _ in range(MEASUREMENTS):
        times["loop"].append(_seconds(loop, queries))
        times["grouped"].append(_seconds(grouped, queries))
    return statistics.median(times["loop"]) > SPEEDUP_WANTED * statistics.median(times["grouped"])


def _seconds(run: Callable[[Tensor], Tensor], queries: Tensor) -> float:
    inputs = queries.detach().clone().requires_grad_(True)
    start = time.perf_counter()
    with torch.enable_grad():
        torch.autograd.grad(run(inputs).sum(), inputs)
    return time.perf_counter() - start


def _plans_folder() -> Path:
    root = os.environ.get("METAV_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "metav"
    )
    return Path(root) / "execution_plans"


def _read_plan(plan: Path) -> bool | None:
    """Return the choice kept for this case, None where there is none yet or it cannot be read."""
    try:
        return {"vmap": True, "loop": False}.get(plan.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _keep_plan(plan: Path, measured: bool) -> bool:
    """Keep a choice unless another process was first; return the choice that is kept."""
    content = b"vmap" if measured else b"loop"
    try:
        plan.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(plan, content, exclusive=True)
        except FileExistsError:
            kept = _read_plan(plan)
            if kept is not None:
                return kept
            write_atomically(plan, content)
    except OSError as error:
        warnings.warn(
            f"the measured choice between vmap and loop cannot be kept in {plan.parent} ({error}); another run may "
            "choose differently and differ in the last bits; set METAV_CACHE_DIR to a writable folder",
            stacklevel=2,
        )
    return measured
