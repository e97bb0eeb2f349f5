"""Groups of hidden channels that can be reordered, or rescaled, together without changing what a model computes.

A model is traced with torch.fx and run once; every tensor of the run remembers which group of channels lies along which
of its axes. Layers write into groups and read from them, additions merge groups (a residual stream is one group), and
whatever is not understood fixes its groups. Parts that cannot be traced are searched for parts that can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

Place = tuple[Tensor, int]
"""A parameter or buffer, and the axis along which the channels of a group lie in it, each as one contiguous block."""

_Types = tuple[type[nn.Module], ...]

_CONVOLUTIONS: _Types = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS: _Types = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_HOMOGENEOUS: _Types = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Dropout2d)
_ELEMENTWISE: _Types = (*_HOMOGENEOUS, nn.GELU, nn.Tanh, nn.SiLU, nn.Sigmoid, nn.ELU, nn.SELU, nn.CELU, nn.Softplus)
_ELEMENTWISE += (nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Mish, nn.LogSigmoid)
_POOLING: _Types = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.Upsample)
_POOLING += (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
_RESHAPING: _Types = (nn.Flatten, nn.Unflatten, nn.PixelShuffle)

_HOMOGENEOUS_NAMES = frozenset({"relu", "relu_", "leaky_relu", "dropout", "contiguous", "clone", "neg"})
_ELEMENTWISE_NAMES = _HOMOGENEOUS_NAMES | {"gelu", "tanh", "silu", "sigmoid", "elu", "softplus", "hardtanh", "abs"}
_POOLING_NAMES = frozenset({"max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "interpolate"})
_POOLING_NAMES |= {"adaptive_avg_pool1d", "adaptive_avg_pool2d"}
_RESHAPING_NAMES = frozenset({"flatten", "unflatten", "reshape", "view", "pixel_shuffle"})
_SUMS = frozenset({"add", "add_", "iadd", "sub", "sub_", "isub"})
_PRODUCTS = frozenset({"mul", "mul_", "imul"})
# These carry no name of their own.
_DISPATCHED: dict[Any, str] = {functional.max_pool1d: "max_pool1d", functional.max_pool2d: "max_pool2d"}


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """`size` channels that change together: where they are written, and where they are read."""

    size: int
    writers: tuple[Place, ...]
    readers: tuple[Place, ...]


def channel_groups(model: nn.Module, inputs: Tensor, *, scaling: bool = False) -> list[ChannelGroup]:
    """Return the free groups of at least two channels, in the order of a forward pass.

    `model` in eval mode; `inputs` (n, ...) fit it. `scaling`: groups whose channels may each be multiplied by a
    positive number where written and divided by it where read; without it: groups that may be reordered.
    """
    calls: dict[int, list[tuple[Any, ...]]] = {}
    handles = [
        module.register_forward_pre_hook(lambda part, given: calls.setdefault(id(part), []).append(given))
        for module in model.modules()
    ]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    groups: list[_Group] = []
    with torch.no_grad():
        _collect(model, calls, _shared(model), scaling, groups)
    found = [group for group in groups if group.parent is None and not group.fixed and group.size > 1]
    return [ChannelGroup(group.size, tuple(group.writers), tuple(group.readers)) for group in found if group.readers]


@dataclass(eq=False, slots=True)
class _Group:
    """A group under construction: a node of a forest of merged groups."""

    size: int
    fixed: bool = False
    parent: _Group | None = None
    writers: list[Place] = field(default_factory=list)
    readers: list[Place] = field(default_factory=list)

    def root(self) -> _Group:
        group = self
        while group.parent is not None:
            group = group.parent
        return group

    def coarsen(self, length: int) -> None:
        """Make the channels so large that an axis of `length` holds whole ones."""
        root = self.root()
        root.size = math.gcd(root.size, length)

    def merge(self, other: _Group) -> None:
        mine, its = self.root(), other.root()
        if mine is its:
            return
        its.parent = mine
        mine.size = math.gcd(mine.size, its.size)
        mine.fixed |= its.fixed
        mine.writers += its.writers
        mine.readers += its.readers


@dataclass(frozen=True, slots=True)
class _Along:
    """Channels of a group along an axis of a tensor."""

    group: _Group
    axis: int


def _collect(
    module: nn.Module, calls: dict[int, list[tuple[Any, ...]]], shared: set[int], scaling: bool, groups: list[_Group]
) -> None:
    """Add the groups of a module, or of its parts where it cannot be traced as a whole."""
    given = calls.get(id(module), [])
    if len(given) == 1 and len(given[0]) == 1 and isinstance(given[0][0], Tensor):
        own: list[_Group] = []
        try:
            _Tracker(fx.symbolic_trace(module), shared, scaling, own).run(given[0][0])
        except Exception:  # tracing runs the user's code on stand-ins for tensors: it may raise anything
            own = []
        else:
            groups += own
            return
    # A part that runs twice would be changed twice.
    if len(given) <= 1:
        for child in module.children():
            _collect(child, calls, shared, scaling, groups)


def _shared(model: nn.Module) -> set[int]:
    """Return the ids of parameters that more than one module owns."""
    seen: set[int] = set()
    twice: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            (twice if id(parameter) in seen else seen).add(id(parameter))
    return twice


class _Tracker(fx.Interpreter):
    """Runs a traced model and notes which channels lie where."""

    def __init__(self, traced: fx.GraphModule, shared: set[int], scaling: bool, groups: list[_Group]) -> None:
        super().__init__(traced)
        self._along: dict[fx.Node, _Along | None] = {}
        self._value: dict[fx.Node, Any] = {}
        self._layers: dict[int, tuple[_Group | None, _Group]] = {}
        self._shared, self._scaling, self._groups = shared, scaling, groups

    def run_node(self, n: fx.Node) -> Any:
        """Run one step and note its channels."""
        result = super().run_node(n)
        self._value[n] = result
        along = self._step(n, result) if isinstance(result, Tensor) or n.op == "output" else None
        if isinstance(result, tuple | list) and any(isinstance(entry, Tensor) for entry in result):
            self._fix(n)
        self._along[n] = along
        return result

    def _step(self, n: fx.Node, result: Any) -> _Along | None:
        if n.op in ("placeholder", "get_attr"):
            return None
        if n.op == "output" or not n.args or not isinstance(n.args[0], fx.Node):
            return self._fix(n)
        if n.op == "call_module":
            module = self.fetch_attr(str(n.target))
            return self._module(n, module, self._along[n.args[0]], result)
        name = n.target if isinstance(n.target, str) else _name(n.target)
        allowed = _HOMOGENEOUS_NAMES if self._scaling else _ELEMENTWISE_NAMES
        if name in _SUMS or name in _PRODUCTS:
            return self._combined(n, result, name in _PRODUCTS)
        for names, rule in ((allowed, self._same), (_POOLING_NAMES, self._pooled), (_RESHAPING_NAMES, self._reshaped)):
            if name in names:
                return rule(n, result)
        return self._averaged(n, result) if name == "mean" else self._fix(n)

    def _module(self, n: fx.Node, module: nn.Module, source: _Along | None, result: Tensor) -> _Along | None:
        kind, given = type(module), self._input(n)
        if kind is nn.Linear:
            return self._layer(n, module, source if source and source.axis == given.ndim - 1 else None, given.ndim - 1)
        if kind in _CONVOLUTIONS and given.ndim == module.weight.ndim:
            return self._layer(n, module, source, 1) if module.groups == 1 else self._grouped(n, module, source, result)
        if kind in _NORMS:
            return self._norm(n, module, source)
        if kind in (_HOMOGENEOUS if self._scaling else _ELEMENTWISE):
            return self._same(n, result)
        if kind in _POOLING:
            return self._pooled(n, result)
        return self._reshaped(n, result) if kind in _RESHAPING else self._fix(n)

    def _layer(self, n: fx.Node, module: Any, source: _Along | None, axis: int) -> _Along | None:
        """Take in a layer that reads all of its input's channels and writes new ones."""
        if source is None:
            self._fix(n)
        if id(module.weight) in self._shared:
            return self._fix(n)
        reading, writing = (0, 1) if getattr(module, "transposed", False) else (1, 0)
        read = None if source is None else source.group
        if id(module) in self._layers:
            before, written = self._layers[id(module)]
            if before is not None and read is not None:
                before.merge(read)
            else:
                for group in (before, read):
                    if group is not None:
                        group.root().fixed = True
            return _Along(written, axis)
        if read is not None:
            read.root().readers.append((module.weight, reading))
        written = self._new(module.weight.shape[writing], (module.weight, writing), (module.bias, 0))
        self._layers[id(module)] = (read, written)
        return _Along(written, axis)

    def _grouped(self, n: fx.Node, module: Any, source: _Along | None, result: Tensor) -> _Along | None:
        """Take in a convolution of separate groups (depthwise: single channels), which can only move as wholes."""
        if source is None or self._scaling or id(module.weight) in self._shared or id(module) in self._layers:
            return self._fix(n)
        source.group.coarsen(module.groups)
        root = source.group.root()
        root.readers += [(module.weight, 0)] + ([] if module.bias is None else [(module.bias, 0)])
        self._layers[id(module)] = (root, root)
        return source

    def _norm(self, n: fx.Node, module: Any, source: _Along | None) -> _Along | None:
        if source is None or source.axis != 1 or id(module) in self._layers or module.running_mean is None:
            return self._fix(n)
        parts = [part for part in (module.weight, module.bias) if part is not None]
        if any(id(part) in self._shared for part in parts):
            return self._fix(n)
        if self._scaling:
            # Its input has a scale of its own, which the running statistics fix; its output gets a new one.
            self._fix(n)
            if not parts:
                return None
            written = self._new(module.num_features, *((part, 0) for part in parts))
            self._layers[id(module)] = (None, written)
            return _Along(written, 1)
        root = source.group.root()
        root.writers += [(part, 0) for part in (*parts, module.running_mean, module.running_var)]
        self._layers[id(module)] = (root, root)
        return source

    def _combined(self, n: fx.Node, result: Tensor, product: bool) -> _Along | None:
        tensors = [node for node in n.all_input_nodes if isinstance(self._value[node], Tensor)]
        found = [self._along[node] for node in tensors]
        wide = [node for node in tensors if self._value[node].numel() > 1]
        if self._scaling and (product or len(tensors) != 2):
            return self._fix(n)
        if len(wide) < 2 and not self._scaling:
            return next((along for along in found if along is not None), None)
        first, second = (*found, None, None)[:2]
        shapes = [self._value[node].shape for node in tensors]
        if len(found) != 2 or first is None or second is None or first.axis != second.axis:
            return self._fix(n)
        if len(shapes[0]) != len(shapes[1]) or shapes[0][first.axis] != shapes[1][first.axis]:
            return self._fix(n)
        first.group.merge(second.group)
        return first

    def _same(self, n: fx.Node, result: Tensor) -> _Along | None:
        return self._along_of(n) if result.shape == self._input(n).shape else self._fix(n)

    def _pooled(self, n: fx.Node, result: Tensor) -> _Along | None:
        along, given = self._along_of(n), self._input(n)
        kept = along is not None and along.axis == 1 and result.ndim == given.ndim > 2
        return along if kept and result.shape[:2] == given.shape[:2] else self._fix(n)

    def _reshaped(self, n: fx.Node, result: Tensor) -> _Along | None:
        along = self._along_of(n)
        if along is None or along.axis != 1 or result.ndim < 2 or result.shape[0] != self._input(n).shape[0]:
            return self._fix(n)
        along.group.coarsen(result.shape[1])
        return along

    def _averaged(self, n: fx.Node, result: Tensor) -> _Along | None:
        along, dims = self._along_of(n), n.kwargs.get("dim", n.args[1] if len(n.args) > 1 else None)
        axes = dims if isinstance(dims, tuple | list) else (dims,)
        if along is None or along.axis != 1 or not all(isinstance(axis, int) for axis in axes):
            return self._fix(n)
        count = self._input(n).ndim
        return along if all(int(axis) % count > 1 for axis in axes) else self._fix(n)

    def _along_of(self, n: fx.Node) -> _Along | None:
        return self._along[n.args[0]]  # type: ignore[index]

    def _input(self, n: fx.Node) -> Tensor:
        value: Tensor = self._value[n.args[0]]  # type: ignore[index]
        return value

    def _new(self, size: int, *places: tuple[Tensor | None, int]) -> _Group:
        group = _Group(size, writers=[(tensor, axis) for tensor, axis in places if tensor is not None])
        self._groups.append(group)
        return group

    def _fix(self, n: fx.Node) -> _Along | None:
        """Fix the groups of all inputs of a step that is not understood; its result has no channels to follow."""
        for node in n.all_input_nodes:
            along = self._along.get(node)
            if along is not None:
                along.group.root().fixed = True
        return None


def _name(target: Callable[..., Any]) -> str:
    return _DISPATCHED.get(target, getattr(target, "__name__", ""))


def block_index(order: Tensor, length: int) -> Tensor:
    """Return the index (length,) that reorders an axis made of len(order) blocks of equal length."""
    block = length // len(order)
    return (order[:, None] * block + torch.arange(block, device=order.device)).flatten()


def places_of(group: ChannelGroup) -> Iterator[Place]:
    """Yield all places of a group."""
    yield from group.writers
    yield from group.readers
