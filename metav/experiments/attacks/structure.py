"""Attacks that rewrite a model without training: reordered and rescaled units, permuted and rotated latent spaces.

Units change nothing that a suspect answers, so that they test the tool rather than the fingerprint. A generator with
another latent space draws the same samples, each from another latent: its owner's queries mean something else to it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metav.errors import ObfuscationError
from metav.experiments.attacks.neuron_channels import block_index, channel_groups, places_of
from metav.models.architectures import Architecture
from metav.models.running import copied, device_of, evaluating, predict
from metav.obfuscations.layers import weighted_layers
from metav.obfuscations.steps import check_strength
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task

TOLERANCE = 1e-4
"""Largest difference of answers, over one plus the largest answer, that rounding explains."""


def permute_neurons(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Reorder a share `strength` of the hidden units and channels of each layer; the answers stay what they are.

    Reaches linear layers, (grouped, transposed) convolutions and batch norms, also across pooling, reshaping and skip
    connections, whose branches are reordered alike.

    Raises ObfuscationError where no hidden unit can be moved.
    """
    check_strength(strength)
    clone, generator = copied(model), torch.Generator().manual_seed(derive_seed(seed, "permute_neurons"))
    groups = channel_groups(clone, _some_inputs(task, clone))
    for group in groups:
        moved = torch.randperm(group.size, generator=generator)[: max(2, round(strength * group.size))]
        order = torch.arange(group.size)
        # A cycle through the chosen channels in random order leaves none of them in its place.
        order[moved] = moved.roll(1)
        for tensor, axis in places_of(group):
            index = block_index(order, tensor.shape[axis]).to(tensor.device)
            tensor.data.copy_(tensor.data.index_select(axis, index))
    return _same_answers(model, clone, task, len(groups), "permute_neurons")


def rescale_neurons(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Multiply what each hidden ReLU unit receives by a factor, and divide what reads it by the same.

    The factors lie between 1 / (1 + 3 `strength`) and 1 + 3 `strength`; the answers stay what they are.

    Raises ObfuscationError for a model without such units. Source: Dinh et al. 2017, section 3.
    """
    check_strength(strength)
    clone, generator = copied(model), torch.Generator().manual_seed(derive_seed(seed, "rescale_neurons"))
    groups = channel_groups(clone, _some_inputs(task, clone), scaling=True)
    for group in groups:
        exponents = 2.0 * torch.rand(group.size, generator=generator) - 1.0
        factors = (1.0 + 3.0 * strength) ** exponents
        for places, by_channel in ((group.writers, factors), (group.readers, 1.0 / factors)):
            for tensor, axis in places:
                shape = [1] * tensor.ndim
                shape[axis] = tensor.shape[axis]
                spread = by_channel.repeat_interleave(tensor.shape[axis] // group.size).reshape(shape)
                tensor.data *= spread.to(tensor.device)
    return _same_answers(model, clone, task, len(groups), "rescale_neurons")


def permute_latent(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Reorder a share `strength` of a generator's latent coordinates: the samples keep their distribution exactly.

    Raises ObfuscationError for a task other than generation.
    """
    size = _latent_size(task, strength, "permute_latent")
    generator = torch.Generator().manual_seed(derive_seed(seed, "permute_latent"))
    moved = torch.randperm(size, generator=generator)[: max(2, round(strength * size))]
    order = torch.arange(size)
    order[moved] = moved.roll(1)
    return with_latent_map(model, task, torch.eye(size)[order])


def rotate_latent(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Rotate a generator's latent space by up to 180 `strength` degrees in each of size / 2 random planes.

    A standard normal latent stays one, so that the samples keep their distribution.

    Raises ObfuscationError for a task other than generation.
    """
    size = _latent_size(task, strength, "rotate_latent")
    generator = torch.Generator().manual_seed(derive_seed(seed, "rotate_latent"))
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    turn = torch.eye(size, dtype=torch.float64)
    for first in range(0, size - 1, 2):
        angle = torch.pi * strength * (0.5 + 0.5 * torch.rand((), generator=generator, dtype=torch.float64))
        plane = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        turn[first : first + 2, first : first + 2] = plane
    return with_latent_map(model, task, (basis @ turn @ basis.T).float())


class MappedLatent(nn.Module):
    """A generator behind an orthogonal map of its latent: for those whose first layer cannot take it in."""

    identity_name = "metav/MappedLatent"

    matrix: Tensor

    def __init__(self, inner: nn.Module, matrix: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("matrix", matrix)

    def forward(self, latents: Tensor) -> Tensor:
        """Return the inner generator's samples of the mapped latents (n, *latent)."""
        mapped = latents.flatten(1) @ self.matrix.T
        result: Tensor = self.inner(mapped.reshape(latents.shape))
        return result


def with_latent_map(model: nn.Module, task: Task, matrix: Tensor) -> nn.Module:
    """Return a copy that answers latents z as the model answers `matrix` z.

    The map is folded into the first layer where that is linear, or a transposed convolution of 1x1 maps; else it stands
    in front of it.

    matrix: (size, size), orthogonal.
    """
    clone = copied(model)
    matrix = matrix.to(device_of(clone))
    first = weighted_layers(clone, task)[0]
    latents = _some_inputs(task, clone)
    given: list[Tensor] = []
    handle = first.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        with isolated_rng(0), evaluating(clone):
            clone(latents)
    finally:
        handle.remove()
    direct = (
        len(given) == 1 and given[0].shape[0] == len(latents) and torch.equal(given[0].flatten(1), latents.flatten(1))
    )
    if direct and type(first) is nn.Linear:
        first.weight.data = first.weight.data @ matrix
        return clone
    if direct and type(first) is nn.ConvTranspose2d and first.groups == 1 and given[0].shape[1] == len(matrix):
        first.weight.data = torch.einsum("oi,o...->i...", matrix, first.weight.data)
        return clone
    return MappedLatent(clone, matrix).eval()


def _latent_size(task: Task, strength: float, name: str) -> int:
    check_strength(strength)
    if not task.kind.inputs_are_latents:
        raise ObfuscationError(f"{name} needs a generation task, got {task.name}; use permute_neurons")
    size = int(torch.Size(task.input_shape).numel())
    if size < 2:
        raise ObfuscationError(f"{name} needs a latent of at least two numbers, got {size}")
    return size


def _some_inputs(task: Task, model: nn.Module) -> Tensor:
    return task.natural_queries(2, seed=0).to(device_of(model))


def _same_answers(model: nn.Module, changed: nn.Module, task: Task, groups: int, name: str) -> nn.Module:
    """Return the changed model, after checking that anything changed and that no answer did."""
    if groups == 0:
        raise ObfuscationError(
            f"{name} finds no hidden unit that it may change in a {type(model).__qualname__}: it needs at least two "
            "layers with a plain operation between them; use weight_noise"
        )
    queries = _some_inputs(task, model)
    with isolated_rng(0):
        before, after = predict(model, queries), predict(changed, queries)
    if float((after - before).abs().max()) > TOLERANCE * (1.0 + float(before.abs().max())):
        raise ObfuscationError(
            f"{name} changed the answers of a {type(model).__qualname__}, whose layers do more than their types say; "
            "use weight_noise"
        )
    return changed
