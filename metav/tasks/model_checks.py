"""What is asked of models before anything is trained: one pass forward and backward, to weights and to queries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from metav.errors import ModelError
from metav.models.copying import is_quantized
from metav.models.ensembles import run_model
from metav.models.running import copied, device_of, differentiable, frozen, frozen_copy
from metav.models.training import training_mode
from metav.support.randomness import isolated_rng
from metav.support.torch_state import standard_torch_state
from metav.tasks.base import Task

PROBED = 4
"""Natural inputs of the trial passes, where there are as many; batch norm needs two."""
STAIRCASES = ("Round", "Floor", "Ceil", "Sign", "Trunc", "Sgn")
"""Operations whose gradient is 0 everywhere, as autograd names them."""
NATURAL_ALONE = "options=metav.OptimizationOptions(adaptive=0.0)"
"""How a user asks for queries that are not optimised."""


def check_trainable(model: nn.Module, task: Task) -> None:
    """Raise ModelError, naming the culprit, unless a model like this one can be trained for the task.

    A copy of the model answers a batch in training mode, and the loss goes back to its weights. A task with a training
    loop of its own may train otherwise, so that only the weights are looked at.
    """
    quantized = [
        f"{name or 'the model itself'} ({type(part).__name__})"
        for name, part in model.named_modules()
        if is_quantized(part) and "_packed_params" not in name
    ]
    if quantized:
        raise ModelError(
            f"the model has quantised weights in {', '.join(quantized[:3])}, which cannot be trained; pass the float "
            "model that it was made from (as a suspect it can be verified as it is)"
        )
    if task.has_own_loop:
        return
    if not any(parameter.is_floating_point() for parameter in model.parameters()):
        raise ModelError("the model has no parameters to train; pass a module with weights")
    twin = copied(model)
    inputs, targets = _taught_inputs(task)
    chosen: list[Tensor] = [entry for entry in twin.parameters() if entry.is_floating_point()]
    with standard_torch_state(), isolated_rng(0), training_mode(twin, chosen):
        try:
            outputs: Any = twin(inputs.to(device_of(twin)))
            loss = (
                outputs.float().square().mean() if targets is None else task.loss(outputs, targets.to(outputs.device))
            )
            found = loss.requires_grad
            gradients = torch.autograd.grad(loss, chosen, allow_unused=True) if found else ()
        except Exception as error:
            raise ModelError(
                f"the model fails in training mode on a batch of {len(inputs)} ({_described(error)}); surrogates are "
                "trained like it: pass a model that can be trained, forward and backward"
            ) from error
    if all(gradient is None for gradient in gradients):
        raise ModelError(
            "no gradient reaches the model's weights, so that nothing like it can be trained; let forward keep "
            "gradients (no torch.no_grad, inference_mode, .detach() or NumPy around its layers)"
        )


def check_differentiable(model: nn.Module, task: Task, name: str = "the model") -> None:
    """Raise ModelError, naming where the gradient ends, unless queries can be optimised on a model's answers.

    name: of the model, for the message.
    """
    reason = no_gradient_reason(model, task)
    if reason is not None:
        raise ModelError(
            f"queries cannot be optimised on {name}: {reason}; compute with operations of PyTorch that keep gradients "
            f"(no .long(), .round(), .detach(), torch.no_grad or NumPy), or ask natural inputs alone: {NATURAL_ALONE}"
        )


def check_backward(model: nn.Module, task: Task) -> None:
    """Raise ModelError where the pass back to a model's inputs fails; a model without any gradient passes."""
    twin = frozen_copy(model)
    inputs = _natural_inputs(task).requires_grad_(True)
    with standard_torch_state(), isolated_rng(0):
        try:
            torch.autograd.grad(run_model(twin, inputs).sum(), inputs)
        except Exception as error:
            raise ModelError(
                f"the model fails in the pass back to its inputs ({_described(error)}); queries are optimised on all "
                "models: compute with operations of PyTorch that have a gradient"
            ) from error


def no_gradient_reason(model: nn.Module, task: Task) -> str | None:
    """Return why no gradient reaches a model's inputs, and where it ends; None where it does."""
    twin = frozen(copied(model))
    inputs = _natural_inputs(task).to(device_of(twin)).requires_grad_(True)
    trace = _Trace()
    with standard_torch_state(), isolated_rng(0), differentiable(twin), trace.watching(twin):
        try:
            outputs = twin(inputs)
            if not isinstance(outputs, Tensor):
                return f"it answers with {type(outputs).__name__} instead of one tensor"
            if not outputs.requires_grad:
                return f"no gradient reaches its inputs, it ends {trace.end()}"
            flat = outputs.reshape(len(inputs), -1).float()
            # unequal weights: probabilities add up to 1, whatever the inputs
            value = (flat * torch.linspace(1.0, 2.0, flat.shape[1], device=flat.device)).sum()
            (gradient,) = torch.autograd.grad(value, inputs, allow_unused=True)
        except Exception as error:
            return f"no gradient reaches its inputs ({_described(error)}), it fails {trace.failure()}"
    if gradient is None:
        return f"no gradient reaches its inputs, it ends {trace.end()}"
    if not bool(torch.isfinite(gradient).all()):
        return "the gradient to its inputs is NaN or infinite on natural inputs"
    steps = "" if bool(gradient.any()) else ", ".join(_staircases(value))
    return f"the gradient to its inputs is 0 everywhere ({steps})" if steps else None


@dataclass(slots=True)
class _Trace:
    """Which parts of a model a gradient to the inputs has reached, in the order in which they were finished.

    calls: (name, class, whether it was given a gradient, whether it gave one), of the parts without parts.
    entered: the part that was entered last.
    """

    calls: list[tuple[str, str, bool, bool]] = field(default_factory=list)
    entered: str = ""

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        handles = []
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule) or any(True for _ in module.children()):
                continue
            label = name or "the model itself"

            def enter(module: nn.Module, _: Any, label: str = label) -> None:
                self.entered = f"in {label} ({type(module).__name__})"

            def leave(module: nn.Module, given: Any, answer: Any, label: str = label) -> None:
                self.calls.append((label, type(module).__name__, _has_gradient(given), _has_gradient(answer)))
                self.entered = f"after {label} ({type(module).__name__})"

            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def end(self) -> str:
        """Return where the gradient ends."""
        for name, kind, given, answered in self.calls:
            if not given:
                return f"before {name} ({kind})"
            if not answered:
                return f"in {name} ({kind})"
        return f"after {self.calls[-1][0]} ({self.calls[-1][1]})" if self.calls else "in forward"

    def failure(self) -> str:
        """Return where the pass stopped."""
        return self.entered or "in forward"


def _has_gradient(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list | tuple) and any(map(_has_gradient, value))


def _staircases(value: Tensor) -> list[str]:
    """Return those of STAIRCASES among the operations that a value was computed with."""
    waiting, seen, found = [value.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found |= {step.lower() for step in STAIRCASES if node.name().startswith(f"{step}Backward")}
        waiting += [entry for entry, _ in node.next_functions]
    return sorted(found)


def _taught_inputs(task: Task) -> tuple[Tensor, Tensor | None]:
    """Return a few inputs with their targets; None where the task holds none."""
    if task.examples is None or task.targets is None or task.kind.inputs_are_latents:
        return _natural_inputs(task), None
    return task.examples[:PROBED].float(), task.targets[:PROBED]


def _natural_inputs(task: Task) -> Tensor:
    count = PROBED if task.natural_count is None else min(PROBED, task.natural_count)
    return task.natural_queries(count, seed=0).float()


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
