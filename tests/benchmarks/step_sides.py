"""One joint step (view, forward, loss, both gradients, Adam) in metav, and in PyTorch in three ways.

All sides start from the same weights and standardisation, get the same responses and compute the same. The rivals in
PyTorch: `autograd` is what one would write, with nn.Linear's layout; `by hand` does without autograd, writes into
buffers allocated once, has one flat parameter so that Adam handles one tensor, and keeps the first layer's weights as
(D, hidden) or transposed. All use Adam(fused=True).

PyTorch's log-softmax over a last dimension of ten takes several times as long as two transposing copies and a
log-softmax over a middle dimension, and so does its derivative beside the formula: by hand it is done the fast way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metav import _core

FLOOR = math.log(1e-5)
REFERENCES = 8
FEW_OUTPUTS = 64
"""Up to here PyTorch's log-softmax over the last dimension is the slower way."""

TORCH_VIEWS = ("identity", "logprob")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """models x responses x hidden; responses = queries * outputs per query."""

    models: int
    responses: int
    hidden: int
    outputs: int
    view: str

    @property
    def name(self) -> str:
        return f"{self.models}x{self.responses}x{self.hidden}"

    @property
    def queries(self) -> int:
        return self.responses // self.outputs

    @property
    def parameters(self) -> int:
        return (self.responses + 2) * self.hidden + 1

    @property
    def megabytes(self) -> float:
        """What metav and one rival hold: four numbers a parameter each, and a dozen arrays like the responses."""
        return 4e-6 * (8 * self.parameters + 12 * self.models * self.responses)


@dataclass(frozen=True, slots=True)
class Problem:
    """Inputs and initial state that all sides share."""

    case: Case
    responses: Tensor
    roles: bytes
    parameters: dict[str, NDArray[np.float32]]
    learning_rate: float

    @property
    def targets(self) -> Tensor:
        return torch.tensor([float(role != _core.ROLE_NEGATIVE) for role in self.roles])

    @property
    def weights(self) -> Tensor:
        """Of each model: every class counts the same, however many models it has."""
        return torch.tensor([1.0 / self.roles.count(role) for role in self.roles])

    @property
    def standardisation(self) -> tuple[Tensor, Tensor]:
        """scale and offset (D) such that z = scale * f + offset: one pass instead of two"""
        scale = 1.0 / torch.from_numpy(self.parameters["scale"]).repeat(self.case.queries)
        return scale, -torch.from_numpy(self.parameters["shift"]).flatten() * scale


class Side(Protocol):
    """gradient (models, D) is valid after a step."""

    @property
    def gradient(self) -> Tensor: ...
    def step(self) -> float: ...


def make_verifier(case: Case) -> _core.Verifier:
    return _core.Verifier("mlp", case.queries, case.outputs, view=case.view, hidden=case.hidden, seed=1)


def make_problem(case: Case, learning_rate: float) -> Problem:
    """Random responses; the owner first, then as many positives as negatives.

    The standardisation comes from other models: from itself a single model would get nothing but zeros.
    """
    generator = torch.Generator().manual_seed(0)
    responses = torch.randn(case.models, case.queries, case.outputs, generator=generator)
    others = [_core.ROLE_NEGATIVE if number % 2 else _core.ROLE_POSITIVE for number in range(1, case.models)]
    verifier = make_verifier(case)
    verifier.standardize(torch.randn(REFERENCES, case.queries, case.outputs, generator=generator))
    return Problem(case, responses, bytes([_core.ROLE_OWNER, *others]), verifier.parameters(), learning_rate)


class MetavSide:
    """The public call, as the joint optimisation makes it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.verifier = make_verifier(problem.case)
        self.verifier.load_parameters(problem.parameters)
        self.written = torch.empty_like(problem.responses)

    @property
    def gradient(self) -> Tensor:
        return self.written.flatten(1)

    def step(self) -> float:
        return self.verifier.step(
            self.problem.responses,
            self.problem.roles,
            gradient=self.written,
            learning_rate=self.problem.learning_rate,
        )


class AutogradSide:
    def __init__(self, problem: Problem) -> None:
        self.responses = problem.responses.clone().requires_grad_()
        self.logprob = problem.case.view == "logprob"
        self.scale, self.offset = problem.standardisation
        self.targets, self.weights = problem.targets, problem.weights
        given = {name: torch.from_numpy(value).clone() for name, value in problem.parameters.items()}
        self.layers = (given["weight1"].t().contiguous(), given["bias1"], given["weight2"][None], given["bias2"])
        for parameter in self.layers:
            parameter.requires_grad_()
        self.adam = torch.optim.Adam(self.layers, lr=problem.learning_rate, fused=True)

    @property
    def gradient(self) -> Tensor:
        assert self.responses.grad is not None
        return self.responses.grad.flatten(1)

    def step(self) -> float:
        weight1, bias1, weight2, bias2 = self.layers
        self.responses.grad = None
        self.adam.zero_grad()
        features = self.responses
        if self.logprob:
            features = features.log_softmax(-1).clamp_min(FLOOR)
        z = torch.addcmul(self.offset, features.flatten(1), self.scale)
        hidden = functional.linear(z, weight1, bias1).relu()
        logits = functional.linear(hidden, weight2, bias2)[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits, self.targets, self.weights, reduction="sum")
        loss.backward()
        self.adam.step()
        return loss.item()


class LogSoftmax:
    """log-softmax over outputs of (models, queries, outputs), and its derivative, the faster way for this size."""

    def __init__(self, models: int, queries: int, outputs: int) -> None:
        self.few = outputs <= FEW_OUTPUTS
        if self.few:
            self.transposed = torch.empty(models, outputs, queries)
            self.result = torch.empty(models, outputs, queries)
            self.probabilities = torch.empty(models * queries, outputs)
            self.sums = torch.empty(models * queries)
            self.ones = torch.ones(outputs)

    def forward(self, values: Tensor, out: Tensor) -> None:
        if self.few:
            self.transposed.copy_(values.transpose(1, 2))
            torch.ops.aten._log_softmax.out(self.transposed, 1, False, out=self.result)
            out.copy_(self.result.transpose(1, 2))
        else:
            torch.ops.aten._log_softmax.out(values, -1, False, out=out)

    def backward(self, gradient: Tensor, result: Tensor, out: Tensor) -> None:
        if self.few:
            rows = gradient.flatten(0, 1)
            torch.exp(result.flatten(0, 1), out=self.probabilities)
            torch.mv(rows, self.ones, out=self.sums)
            torch.addcmul(rows, self.probabilities, self.sums[:, None], value=-1, out=out.flatten(0, 1))
        else:
            torch.ops.aten._log_softmax_backward_data.out(gradient, result, -1, torch.float32, out=out)


class ByHandSide:
    def __init__(self, problem: Problem, *, transposed: bool) -> None:
        self.responses = problem.responses
        self.logprob = problem.case.view == "logprob"
        self.scale, self.offset = problem.standardisation
        self.targets, self.weights = problem.targets, problem.weights
        self._allocate(problem.case)
        count = problem.case.parameters
        self.flat, self.flat.grad = torch.empty(count), torch.empty(count)
        self.layers = _views(self.flat, problem.case, transposed)
        self.gradients = _views(self.flat.grad, problem.case, transposed)
        for layer, name in zip(self.layers, ("weight1", "bias1", "weight2", "bias2"), strict=True):
            layer.copy_(torch.from_numpy(problem.parameters[name]))
        self.adam = torch.optim.Adam([self.flat], lr=problem.learning_rate, fused=True)

    def _allocate(self, case: Case) -> None:
        dense = (case.models, case.responses)
        self.features = torch.empty_like(self.responses) if self.logprob else self.responses
        self.clamped = torch.empty_like(self.responses)
        self.log_softmax = LogSoftmax(case.models, case.queries, case.outputs)
        self.z, self.z_gradient, self.gradient = torch.empty(dense), torch.empty(dense), torch.empty(dense)
        self.hidden, self.hidden_gradient = torch.empty(case.models, case.hidden), torch.empty(case.models, case.hidden)
        self.logits, self.logits_gradient = torch.empty(case.models), torch.empty(case.models)

    def step(self) -> float:
        loss = self._forward()
        self._backward_layers()
        self._backward_view()
        self.adam.step()
        return loss

    def _forward(self) -> float:
        weight1, bias1, weight2, bias2 = self.layers
        features = self.features
        if self.logprob:
            self.log_softmax.forward(self.responses, self.features)
            features = torch.clamp_min(self.features, FLOOR, out=self.clamped)
        torch.addcmul(self.offset, features.flatten(1), self.scale, out=self.z)
        torch.addmm(bias1, self.z, weight1, out=self.hidden).relu_()
        torch.addmv(bias2, self.hidden, weight2, out=self.logits)
        return functional.binary_cross_entropy_with_logits(
            self.logits, self.targets, self.weights, reduction="sum"
        ).item()

    def _backward_layers(self) -> None:
        weight1, _, weight2, _ = self.layers
        weight1_gradient, bias1_gradient, weight2_gradient, bias2_gradient = self.gradients
        torch.sigmoid(self.logits, out=self.logits_gradient).sub_(self.targets).mul_(self.weights)
        torch.sum(self.logits_gradient, 0, keepdim=True, out=bias2_gradient)
        torch.mv(self.hidden.t(), self.logits_gradient, out=weight2_gradient)
        torch.mul(self.logits_gradient[:, None], weight2, out=self.hidden_gradient)
        _pass_where(self.hidden_gradient, self.hidden, 0.0)
        torch.sum(self.hidden_gradient, 0, out=bias1_gradient)
        torch.mm(self.z.t(), self.hidden_gradient, out=weight1_gradient)
        torch.mm(self.hidden_gradient, weight1.t(), out=self.z_gradient)

    def _backward_view(self) -> None:
        if not self.logprob:
            torch.mul(self.z_gradient, self.scale, out=self.gradient)
            return
        shape = self.responses.shape
        z_gradient = self.z_gradient.mul_(self.scale).view(shape)
        _pass_where(z_gradient, self.features, FLOOR)
        self.log_softmax.backward(z_gradient, self.features, self.gradient.view(shape))


def _pass_where(gradient: Tensor, values: Tensor, threshold: float) -> None:
    """gradient becomes 0 where values <= threshold: the derivative of relu and of clamp_min in one pass"""
    torch.ops.aten.threshold_backward.grad_input(gradient, values, threshold, grad_input=gradient)


def _views(flat: Tensor, case: Case, transposed: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """weight1 (D, hidden), bias1, weight2 (hidden), bias2 (1) in one block"""
    weight1, bias1, weight2, bias2 = flat.split([case.responses * case.hidden, case.hidden, case.hidden, 1])
    if transposed:
        return weight1.view(case.hidden, case.responses).t(), bias1, weight2, bias2
    return weight1.view(case.responses, case.hidden), bias1, weight2, bias2


Maker: TypeAlias = Callable[[Problem], Side]
RIVALS: dict[str, Maker] = {
    "autograd": AutogradSide,
    "by hand": partial(ByHandSide, transposed=False),
    "by hand, transposed": partial(ByHandSide, transposed=True),
}
