"""Ownership obfuscations: what a thief does to a model to hide its origin, each a function model -> model.

Every function is f(model, task, *, strength, seed, ...) and returns a new module in eval mode; the given one keeps its
weights, mode and gradients, and the global random state is untouched. `strength` lies in (0, 1], from hardly visible
to as far as a thief would go who still wants to use the model; each docstring gives the unit. `task` is the thief's:
its data are what he trains on. Functions that train take `on_epoch(share done, model)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from metav.architectures import Architecture, build, copied, redraw, reinitialized
from metav.errors import InputError, ObfuscationError
from metav.extraction import AdversarialModel, perturbed, train_student
from metav.layers import channel_norms, following_norms, quantized, weight_parameters, weighted_layers, zero_channels
from metav.randomness import derive_seed, isolated_rng
from metav.tasks import Task
from metav.training import OnEpoch, device_of, predict

ALL_TASKS = frozenset({"classification", "regression", "generation"})


def finetune_last(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train the last layer on (FTLL) for half of `strength` of the task's epochs."""
    clone = _begin(model, strength)
    last = weighted_layers(clone, task)[-1]
    return _train(task, clone, 0.5 * strength, seed, parameters=list(last.parameters()), on_epoch=on_epoch)


def finetune_all(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train all layers on (FTAL) for half of `strength` of the task's epochs."""
    return _train(task, _begin(model, strength), 0.5 * strength, seed, on_epoch=on_epoch)


def retrain_last(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Redraw the last layer and train it alone (RTLL) for a share 0.5 + 0.5 `strength` of the task's epochs."""
    clone, last = _with_new_last_layer(model, task, strength, seed)
    share = 0.5 + 0.5 * strength
    return _train(task, clone, share, seed, parameters=list(last.parameters()), on_epoch=on_epoch)


def retrain_all(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Redraw the last layer and train all layers (RTAL) for a share 0.4 + 0.4 `strength` of the task's epochs.

    Raises ObfuscationError for generation: behind a new last layer the latent space is laid anew, so that nothing of
    what the owner's model answers to a latent is left.
    """
    if task.name == "generation":
        raise ObfuscationError(
            "retrain_all makes an unrelated latent space of a generator's, so that its outputs show no origin; "
            "use retrain_last or finetune_all."
        )
    clone, _ = _with_new_last_layer(model, task, strength, seed)
    return _train(task, clone, 0.4 + 0.4 * strength, seed, on_epoch=on_epoch)


def weight_prune(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Set the smallest weights of each layer to zero: a share of 0.6 `strength` of them, give or take a tenth of it
    from layer to layer (by the seed)."""
    clone, generator = _begin(model, strength), _generator(seed, "weight_prune")
    for _, weight in weight_parameters(clone):
        weight.data[_smallest(weight, 0.6 * strength * _between(0.9, 1.1, generator))] = 0.0
    return clone


def filter_prune(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Set whole output channels (units) to zero, the smallest by L1 norm (Li et al. 2017): a share of 0.3 `strength`
    of each layer but the last, with the scale and shift of a batch norm behind them. The seed blurs the norms by a
    factor of about 1 +- 0.1, so that close calls differ."""
    clone, generator = _begin(model, strength), _generator(seed, "filter_prune")
    layers = weighted_layers(clone, task)
    if len(layers) < 2:
        raise ObfuscationError("filter_prune needs a hidden layer, and this model has one layer; use weight_prune.")
    norms = following_norms(clone)
    for layer in layers[:-1]:
        lengths = channel_norms(layer)
        lengths = lengths * (1.0 + 0.1 * torch.randn(len(lengths), generator=generator).to(lengths.device))
        if len(lengths) < 2:
            continue
        channels = lengths.argsort()[: max(1, int(0.3 * strength * len(lengths)))]
        zero_channels(layer, channels)
        norm = norms.get(id(layer))
        if norm is not None:
            for entry in norm.parameters(recurse=False):
                entry.data[channels] = 0.0
    return clone


def prune_then_finetune(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Set a share 0.3 + 0.5 `strength` of each layer's weights to zero, then train the others for a third of the
    task's epochs; the zeros stay."""
    clone = _begin(model, strength)
    handles, masks = [], []
    for _, weight in weight_parameters(clone):
        pruned = _smallest(weight, 0.3 + 0.5 * strength)
        weight.data[pruned] = 0.0
        masks.append((weight, pruned))
        hook = functools.partial(torch.Tensor.masked_fill, mask=pruned, value=0.0)
        handles.append(weight.register_hook(hook))  # type: ignore[no-untyped-call]
    try:
        _train(task, clone, 0.35, seed, on_epoch=on_epoch)
    finally:
        for handle in handles:
            handle.remove()
    for weight, pruned in masks:
        weight.data[pruned] = 0.0
    return clone


def quantize(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Round the weights of each output channel to a grid of 8 bits (strength near 0) down to 3 bits (strength 1); the
    seed moves the grids' steps by up to 2 %."""
    clone, generator = _begin(model, strength), _generator(seed, "quantize")
    bits = round(8 - 5 * strength)
    for _, weight in weight_parameters(clone):
        weight.data = quantized(weight.data, bits, _between(0.98, 1.0, generator))
    return clone


def weight_noise(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Add Gaussian noise to the weights: its standard deviation is 0.3 `strength` of that of each layer's weights."""
    clone, generator = _begin(model, strength), _generator(seed, "weight_noise")
    for _, weight in weight_parameters(clone):
        noise = torch.randn(weight.shape, generator=generator).to(weight.device)
        weight.data += 0.3 * strength * float(weight.data.std()) * noise
    return clone


def distill(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train a new model (of `architecture`, by default the same class) on the model's outputs mixed with the true
    targets, whose weight is 0.2 `strength`: considerably lower, as Hinton et al. (2015) advise. It takes twice the
    task's epochs, as soft targets keep on teaching."""
    student = _student(model, strength, seed, architecture)
    epochs = 2.0 * float(getattr(task, "epochs", 10.0))
    return train_student(
        task,
        student,
        model,
        seed=_training_seed(seed),
        truth=0.2 * strength,
        epochs=epochs,
        on_epoch=on_epoch,
    )


def extract_scores(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train a new model on the model's outputs alone, asked on inputs of the thief's own.

    These are three mixtures per natural input, with a weight of up to 0.5 for another input, and noise of 0.05
    `strength` of the range; for generation a set of latents that shrinks with the strength, 4,000 to 1,000 of them.
    """
    student = _student(model, strength, seed, architecture)
    own = perturbed(task, strength, derive_seed(seed, "inputs"))
    return train_student(
        own, student, model, seed=_training_seed(seed), epochs=_extraction_epochs(task), on_epoch=on_epoch
    )


def extract_labels(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train a new classifier on nothing but the model's labels, asked on inputs as in `extract_scores`.

    Raises ObfuscationError for a task without classes.
    """
    if task.name in ("regression", "generation"):
        raise ObfuscationError(f"extract_labels needs a classification task, got {task.name}; use extract_scores.")
    student = _student(model, strength, seed, architecture)
    own = perturbed(task, strength, derive_seed(seed, "inputs"))

    def label(inputs: Tensor) -> Tensor:
        answers = predict(model, inputs).flatten(1)
        return 50.0 * nn.functional.one_hot(answers.argmax(dim=1), answers.shape[1]).float()

    return train_student(
        own, student, label, seed=_training_seed(seed), epochs=_extraction_epochs(task), on_epoch=on_epoch
    )


def adversarial_train(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train on for 0.4 of the task's epochs with half of each batch moved against the model, one signed gradient step
    from a random start (Wong et al. 2020), by 0.1 `strength` of each feature's range.

    Raises ObfuscationError for generation, whose inputs are latents.
    """
    if task.name == "generation":
        raise ObfuscationError(
            "adversarial_train needs classification or regression, got generation; use finetune_all."
        )
    wrapper = AdversarialModel(_begin(model, strength), 0.1 * strength * (task.upper - task.lower), task)
    callback = None if on_epoch is None else lambda share, outer: on_epoch(share, outer.inner)
    _train(task, wrapper, 0.4, seed, on_epoch=callback)
    return wrapper.inner.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class Obfuscation:
    """One family: its function, the tasks it makes sense for, and the strengths that surrogates and suspects get."""

    family: str
    function: Callable[..., nn.Module]
    tasks: frozenset[str] = ALL_TASKS
    needs_training: bool = True
    own_architecture: bool = True
    other_architecture: bool = False
    zoo_strengths: tuple[float, ...] = (0.2, 0.5, 0.8)
    suspect_strengths: tuple[float, ...] = (0.35, 0.65, 0.95)

    def supports(self, task: Task) -> bool:
        """Return whether the family makes sense for a task; an unknown kind of task is treated like regression."""
        return (task.name if task.name in ALL_TASKS else "regression") in self.tasks


_SUPERVISED = frozenset({"classification", "regression"})
_LABELS = frozenset({"classification"})

OBFUSCATIONS: Mapping[str, Obfuscation] = MappingProxyType(
    {
        entry.family: entry
        for entry in (
            Obfuscation(family="finetune_last", function=finetune_last),
            Obfuscation(family="finetune_all", function=finetune_all),
            Obfuscation(family="retrain_last", function=retrain_last),
            Obfuscation(family="retrain_all", function=retrain_all, tasks=_SUPERVISED),
            Obfuscation(family="weight_prune", function=weight_prune, needs_training=False),
            Obfuscation(family="filter_prune", function=filter_prune, needs_training=False),
            Obfuscation(family="prune_then_finetune", function=prune_then_finetune),
            # 6 and 4 bits for surrogates, 5 and 3 for suspects.
            Obfuscation(
                family="quantize",
                function=quantize,
                needs_training=False,
                zoo_strengths=(0.4, 0.8),
                suspect_strengths=(0.6, 1.0),
            ),
            Obfuscation(family="weight_noise", function=weight_noise, needs_training=False),
            Obfuscation(family="distill_same", function=distill),
            Obfuscation(family="distill_other", function=distill, own_architecture=False, other_architecture=True),
            Obfuscation(family="extract_labels", function=extract_labels, tasks=_LABELS, other_architecture=True),
            Obfuscation(family="extract_scores", function=extract_scores, other_architecture=True),
            Obfuscation(family="adversarial_train", function=adversarial_train, tasks=_SUPERVISED),
        )
    }
)
"""All families by name, in a fixed order."""


def check_strength(strength: float) -> None:
    """Raise InputError unless 0 < strength <= 1."""
    if not 0.0 < strength <= 1.0:
        raise InputError(f"strength must lie in (0, 1], got {strength!r}.")


def _begin(model: nn.Module, strength: float) -> nn.Module:
    check_strength(strength)
    return copied(model)


def _student(model: nn.Module, strength: float, seed: int, architecture: Architecture | None) -> nn.Module:
    check_strength(strength)
    start = derive_seed(seed, "initial weights")
    return reinitialized(model, start) if architecture is None else build(architecture, start).to(device_of(model))


def _with_new_last_layer(model: nn.Module, task: Task, strength: float, seed: int) -> tuple[nn.Module, nn.Module]:
    clone = _begin(model, strength)
    last = weighted_layers(clone, task)[-1]
    with isolated_rng(derive_seed(seed, "last layer")):
        redraw(last)
    return clone, last


def _train(
    task: Task,
    model: nn.Module,
    share: float,
    seed: int,
    *,
    parameters: list[nn.Parameter] | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train for a share of the task's epochs (of 10 for a task that does not say)."""
    epochs = share * float(getattr(task, "epochs", 10.0))
    callback: dict[str, Any] = {} if on_epoch is None else {"on_epoch": on_epoch}
    return task.train(model, seed=_training_seed(seed), parameters=parameters, epochs=epochs, **callback)


def _extraction_epochs(task: Task) -> float | None:
    """Epochs over a thief's own inputs: two thirds, as there are three times as many; None where there are not."""
    if task.name == "generation" or not hasattr(task, "with_data"):
        return None
    return 0.67 * float(getattr(task, "epochs", 10.0))


def _generator(seed: int, label: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, label))


def _between(lowest: float, highest: float, generator: torch.Generator) -> float:
    return lowest + (highest - lowest) * float(torch.rand((), generator=generator))


def _training_seed(seed: int) -> int:
    return derive_seed(seed, "training")


def _smallest(weight: Tensor, share: float) -> Tensor:
    """Return the mask of a share of the entries, the smallest in magnitude."""
    flat = weight.detach().abs().flatten()
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[flat.argsort(stable=True)[: int(share * flat.numel())]] = True
    return mask.reshape(weight.shape)
