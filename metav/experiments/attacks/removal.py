"""Attacks that aim at the fingerprint: RemovalNet, fine-pruning, and unlearning of leaked queries."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.errors import InputError, ObfuscationError
from metav.models.architectures import Architecture, reinitialized
from metav.models.running import copied, device_of, evaluating, predict
from metav.models.staging import on_device
from metav.models.training import TrainingOptions, fit, training_mode
from metav.obfuscations.layers import channel_count, following_norms, weighted_layers, zero_channels
from metav.obfuscations.steps import check_strength
from metav.support.arithmetic import fixed_arithmetic
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task
from metav.tasks.classification import log_probabilities
from metav.tasks.generation import Generation
from metav.tasks.supervised import SupervisedTask

TEMPERATURE = 20.0
"""Temperature at which RemovalNet's student matches the altered answers."""

WEIGHTS = (0.2, 2.0, 0.6)
"""RemovalNet's weights of altered answers, altered features and true targets."""

ALTERING_STEPS = 5
"""Signed gradient steps that alter the features of a batch."""

FORGETTING = 0.5
"""Weight of the leaked queries beside the clean inputs while they are unlearned."""

CLEAN_INPUTS = 512
"""Clean inputs on which fine-pruning measures how active a channel is."""


def removal_net(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Distil a model away from its own inner features, in a min-max game: RemovalNet.

    Inner level: the features of a middle layer are reordered in a share `strength` of the channels, then moved away
    from the model's by signed gradient steps, as far as the rest of the model still gives its answer; for classes the
    answers are mixed with those of the most different input of the batch where the label stays. Outer level: a copy of
    the model learns altered features, altered answers and the true targets for a share 0.5 + 0.5 `strength` of the
    task's epochs.

    Raises ObfuscationError for generation, for a task without targets in memory and for a model of one layer. Source:
    Yao et al. 2023, arXiv 2308.12319.
    """
    check_strength(strength)
    inputs, targets = _training_part(task, "removal_net")
    teacher, student = copied(model), copied(model)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    altered = _Alteration.of(teacher, task, strength, seed)
    student_layer = _middle_layer(student, task)
    device = device_of(model)
    inputs, targets = inputs.to(device), targets.to(device)

    def batch_loss(indices: Tensor) -> Tensor:
        batch, truth = inputs[indices], targets[indices]
        features, answers = altered(batch)
        found, outputs = _run(student_layer, student, batch)
        distance = (found - features).square().mean() / features.var().clamp_min(1e-12)
        weights = WEIGHTS
        if task.kind.answers_classes:
            taught = functional.log_softmax(answers / TEMPERATURE, dim=1)
            soft = functional.log_softmax(log_probabilities(outputs) / TEMPERATURE, dim=1)
            follow = TEMPERATURE**2 * functional.kl_div(soft, taught, log_target=True, reduction="batchmean")
        else:
            follow = task.loss(outputs, answers)
        return weights[0] * follow + weights[1] * distance + weights[2] * task.loss(outputs, truth)

    return _fit(student, task, batch_loss, len(inputs), 0.5 + 0.5 * strength, seed)


def fine_prune(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Set to zero the channels that clean inputs activate least, then train the rest: fine-pruning.

    The channels are those of the last hidden convolution (linear layer where there is none), a share 0.2 + 0.6
    `strength` of them; the training takes 0.4 of the task's epochs. A channel's activity is the mean magnitude that the
    next layer reads of it.

    Raises ObfuscationError for a model without a hidden layer of several channels. Source: Liu et al. 2018.
    """
    check_strength(strength)
    clone = copied(model)
    layer, activity = _activity(clone, task, seed)
    count = min(len(activity) - 1, max(1, int((0.2 + 0.6 * strength) * len(activity))))
    channels = activity.argsort(stable=True)[:count]
    norm = following_norms(clone).get(id(layer))
    # (parameter, mask of what stays zero) of the layer and of the batch norm behind it.
    zero_channels(layer, channels)
    masks = [(parameter, parameter.detach() == 0.0) for parameter in layer.parameters()]
    for parameter in () if norm is None else norm.parameters(recurse=False):
        parameter.data[channels] = 0.0
        masks.append((parameter, parameter.detach() == 0.0))
    handles = []
    for parameter, pruned in masks:
        hook = functools.partial(torch.Tensor.masked_fill, mask=pruned, value=0.0)
        handles.append(parameter.register_hook(hook))  # type: ignore[no-untyped-call]
    try:
        task.train(clone, seed=derive_seed(seed, "training"), epochs=0.4 * task.epochs)
    finally:
        for handle in handles:
            handle.remove()
    for parameter, pruned in masks:
        parameter.data[pruned] = 0.0
    return clone


def unlearn_fingerprint(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    queries: Tensor,
    architecture: Architecture | None = None,
    decoy: bool = False,
) -> nn.Module:
    """Train a copy to answer the queries of a leaked fingerprint otherwise, while it keeps learning its task.

    It learns to answer each query with a mixture of the model's own answer and, with weight `strength`, its answer to
    another query; for classes one of another label where there is one. That takes all of the task's epochs; a quarter
    as many queries as clean inputs stand in each batch.

    queries: (n, *input), at least two.
    decoy: the other answers are not the model's, but those of one of the same class that the thief trains from scratch
    for this, so that the copy answers as an independent one would.

    Raises InputError for queries that do not fit the task, ObfuscationError for a task without data in memory.
    """
    check_strength(strength)
    if queries.ndim != 1 + len(task.input_shape) or tuple(queries.shape[1:]) != tuple(task.input_shape):
        raise InputError(f"queries must have shape (n, *{tuple(task.input_shape)}), got {tuple(queries.shape)}")
    if len(queries) < 2:
        raise InputError(f"queries must be at least two, got {len(queries)}")
    teacher, student, device = copied(model), copied(model), device_of(model)
    generator = torch.Generator().manual_seed(derive_seed(seed, "unlearn_fingerprint"))
    leaked = queries.detach().float().to(device)
    own = predict(teacher, leaked)
    if decoy:
        independent = reinitialized(model, derive_seed(seed, "decoy weights"))
        other = predict(task.train(independent, seed=derive_seed(seed, "decoy training")), leaked)
    else:
        other = own[_other_queries(own, task, generator)]
    wanted = _mixture(own, other, task, strength).to(device)
    batches, count = _clean_batches(task, teacher, device, generator)
    size = min(len(leaked), max(2, _options(task).batch_size // 4))

    def batch_loss(indices: Tensor) -> Tensor:
        batch, targets = batches(indices)
        chosen = on_device(torch.randperm(len(leaked), generator=generator)[:size], device)
        # One pass for both: batch norm must meet the queries among clean inputs, as it will when it is deployed.
        outputs = student(torch.cat([batch, leaked[chosen]]))
        clean, asked = outputs[: len(batch)], outputs[len(batch) :]
        forget = task.teacher_loss(asked, wanted[chosen])
        return task.loss(clean, targets) + FORGETTING * forget

    return _fit(student, task, batch_loss, count, 1.0, seed)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Alteration:
    """The inner level of RemovalNet: batch -> altered features of one layer, altered answers."""

    teacher: nn.Module
    layer: nn.Module
    task: Task
    strength: float
    order: Tensor

    @classmethod
    def of(cls, teacher: nn.Module, task: Task, strength: float, seed: int) -> _Alteration:
        layer = _middle_layer(teacher, task)
        generator = torch.Generator().manual_seed(derive_seed(seed, "removal_net"))
        count = channel_count(layer)
        moved = torch.randperm(count, generator=generator)[: max(1, round(strength * count))]
        # The same order for all batches: only a function of the input can be learned.
        order = torch.arange(count)
        order[moved] = moved.roll(1)
        return cls(teacher=teacher, layer=layer, task=task, strength=strength, order=order)

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        with evaluating(self.teacher):
            features, answers = _run(self.layer, self.teacher, batch)
        own = answers.detach()
        spread = features.std().clamp_min(1e-6)
        axis = 1 if features.ndim > 1 else 0
        moved = features.index_select(axis, self.order.to(features.device))
        with evaluating(self.teacher), torch.enable_grad():
            for _ in range(ALTERING_STEPS):
                start = moved.detach().requires_grad_(True)
                tail = _answer_from(self.layer, self.teacher, batch, start)
                away = (start - features).square().mean() / spread.square()
                loss = self._kept(tail, own) - 0.1 * self.strength * away
                (gradient,) = torch.autograd.grad(loss, start)
                moved = start - 0.1 * spread * gradient.sign()
        return moved.detach(), self._mixed(own)

    def _kept(self, tail: Tensor, own: Tensor) -> Tensor:
        if self.task.kind.answers_classes:
            return functional.nll_loss(log_probabilities(tail), own.flatten(1).argmax(dim=1))
        return self.task.loss(tail, own)

    def _mixed(self, own: Tensor) -> Tensor:
        """Answers with a part of those of the most different input, where that keeps the label."""
        if not self.task.kind.answers_classes:
            return own
        answers = log_probabilities(own)
        farthest = torch.cdist(answers, answers).argmax(dim=1)
        mixed = (1.0 - 0.4 * self.strength) * answers + 0.4 * self.strength * answers[farthest]
        kept = (mixed.argmax(dim=1) == answers.argmax(dim=1))[:, None]
        return torch.where(kept, mixed, answers)


def _middle_layer(model: nn.Module, task: Task) -> nn.Module:
    layers = [layer for layer in weighted_layers(model, task) if channel_count(layer) and hasattr(layer, "weight")]
    if len(layers) < 2:
        raise ObfuscationError("removal_net needs a hidden layer, and this model has one layer; use finetune_all")
    return layers[(len(layers) - 1) // 2]


def _run(layer: nn.Module, model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output of a layer and the model's."""
    caught: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: caught.append(output))
    try:
        outputs = model(batch)
    finally:
        handle.remove()
    return caught[-1], outputs


def _answer_from(layer: nn.Module, model: nn.Module, batch: Tensor, features: Tensor) -> Tensor:
    """Return the model's answers with other features in place of a layer's output."""
    handle = layer.register_forward_hook(lambda *_: features)
    try:
        result: Tensor = model(batch)
    finally:
        handle.remove()
    return result


def _activity(model: nn.Module, task: Task, seed: int) -> tuple[nn.Module, Tensor]:
    """Return the layer to prune and the mean magnitude (channels,) that the layer after it reads of each channel."""
    layers = weighted_layers(model, task)
    hidden = [(layer, after) for layer, after in itertools.pairwise(layers) if channel_count(layer) > 1]
    hidden = [pair for pair in hidden if hasattr(pair[0], "weight")]
    pairs = [pair for pair in hidden if pair[0].weight.ndim > 2] or hidden  # type: ignore[operator]
    count = CLEAN_INPUTS if task.natural_count is None else min(CLEAN_INPUTS, task.natural_count)
    inputs = task.natural_queries(count, seed=derive_seed(seed, "clean"))
    for layer, after in reversed(pairs):
        read: list[Tensor] = []
        handle = after.register_forward_pre_hook(lambda _, given, into=read: into.append(given[0]))
        try:
            with isolated_rng(0), evaluating(model):
                model(inputs.to(device_of(model)))
        finally:
            handle.remove()
        channels = channel_count(layer)
        if read and read[-1].ndim > 1 and read[-1].shape[1] % channels == 0:
            return layer, read[-1].abs().reshape(len(read[-1]), channels, -1).mean(dim=(0, 2)).cpu()
    raise ObfuscationError(
        "fine_prune finds no hidden layer whose channels the next layer reads one by one; use filter_prune"
    )


def _other_queries(own: Tensor, task: Task, generator: torch.Generator) -> list[int]:
    """Return for each query the number of another one, of another label where there is one."""
    labels = own.flatten(1).argmax(dim=1) if task.kind.answers_classes else torch.arange(len(own))
    others = []
    for index, label in enumerate(labels.tolist()):
        candidates = (labels != label).nonzero().flatten()
        if len(candidates) == 0:
            candidates = torch.tensor([other for other in range(len(own)) if other != index])
        others.append(int(candidates[torch.randint(len(candidates), (), generator=generator)]))
    return others


def _mixture(own: Tensor, other: Tensor, task: Task, strength: float) -> Tensor:
    """Return answers between two, of probabilities where the task has classes."""
    if not task.kind.answers_classes:
        return (1.0 - strength) * own + strength * other
    mine, its = log_probabilities(own).exp(), log_probabilities(other).exp()
    return ((1.0 - strength) * mine + strength * its).clamp_min(1e-6).log()


def _clean_batches(
    task: Task, teacher: nn.Module, device: torch.device, generator: torch.Generator
) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
    """Return a function of indices that gives clean inputs and targets, and how many indices there are."""
    if isinstance(task, Generation):
        # What a generator answers to other latents is all that its thief can keep.
        def drawn(indices: Tensor) -> tuple[Tensor, Tensor]:
            latents = task.draw(len(indices), generator)
            return on_device(latents, device), predict(teacher, latents, device=device)

        return drawn, len(task.training_indices)
    inputs, targets = (values.to(device) for values in _training_part(task, "unlearn_fingerprint"))
    return lambda indices: (inputs[indices], targets[indices]), len(inputs)


def _training_part(task: Task, name: str) -> tuple[Tensor, Tensor]:
    if not isinstance(task, SupervisedTask):
        raise ObfuscationError(f"{name} needs inputs with targets in memory, got {task.name}; use fine_prune")
    indices = task.training_indices
    return task.examples[indices], task.targets[indices]


def _options(task: Task) -> TrainingOptions:
    if task.options is None:
        raise ObfuscationError(f"the task of class {type(task).__name__} says not how it trains; give it `options`")
    return task.options


def _fit(
    model: nn.Module, task: Task, batch_loss: Callable[[Tensor], Tensor], count: int, share: float, seed: int
) -> nn.Module:
    """Train all of a model on a loss of its own for a share of the task's epochs."""
    chosen: list[Tensor] = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    options, own = replace(_options(task), epochs=share * task.epochs), derive_seed(seed, "training")
    with isolated_rng(own), fixed_arithmetic(), training_mode(model, chosen):
        fit(model, batch_loss, count=count, options=options, seed=own, parameters=chosen)
    return model
