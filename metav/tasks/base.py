"""What every task has in common: the interface, and arrays in memory with their split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from metav.datasets import balanced_order, split_indices
from metav.digests import source_identity, tensor_digest
from metav.errors import InputError, ModelError
from metav.randomness import derive_seed, isolated_rng, single_thread
from metav.training import OnEpoch, Teacher, TrainingOptions, predict, training_mode

Augment = Callable[[Tensor], Tensor]


class Task:
    """Base of all tasks; subclass it, or pass any object with the same methods, for a task of your own.

    A subclass sets the attributes below and writes `loss`, `_batch_loss` (or `train` as a whole), `metric`,
    `natural_queries` and `digest`. A `train` of your own without the parameter `on_epoch` is fine: then no snapshots
    are taken; without `truth` a distilled model learns from its teacher alone.

    Attributes: `name`; `view`, the view of the outputs that a fingerprint uses; `input_shape` of one input; `outputs`
    per query, flattened; `lower` and `upper`, float32 bounds of `input_shape`; `levels`, number of values per feature
    or None; `metric_name` and `higher_is_better`; `baseline`, the metric of the best constant answer; `options`.
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
    options: TrainingOptions

    @property
    def epochs(self) -> float:
        """Epochs of one training from scratch."""
        return self.options.epochs

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of a batch of outputs against targets."""
        raise NotImplementedError

    def metric(self, model: nn.Module) -> float:
        """Return the quality of a model on the validation part (the training part where there is none)."""
        raise NotImplementedError

    def natural_queries(self, count: int, *, seed: int) -> Tensor:
        """Return `count` different natural inputs, float32 of shape (count, *input_shape)."""
        raise NotImplementedError

    def digest(self) -> str:
        """Return a SHA-256 over all data and options: two tasks with the same digest train the same models."""
        raise NotImplementedError

    def subset(self, indices: Any) -> Self:
        """Return a task of the same kind and bounds on the examples at `indices`."""
        raise NotImplementedError

    def bootstrap(self, seed: int, fraction: float = 0.5) -> Self:
        """Return a task of the same kind on a random part of the examples, drawn without replacement."""
        raise NotImplementedError

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

        With `teacher` (a module or callable) its outputs are the targets, mixed with the true ones at the weight
        `truth` in [0, 1]. `parameters` restricts the training to these (None: those that
        require gradients, all if none does). `epochs` overrides the task's; a fraction of
        an epoch is at least one step. `on_epoch(share done, model)` is called after each epoch.
        Raises ModelError when training diverges. The global random state is untouched.
        """
        chosen = _trainable(model) if parameters is None else list(parameters)
        if not chosen:
            raise ModelError("the model has no parameters to train; pass a module with weights.")
        options = self._options(epochs)
        with isolated_rng(seed), single_thread(), training_mode(model, chosen):
            self._fit(model, chosen, options, seed=seed, teacher=teacher, truth=truth, on_epoch=on_epoch)
        return model

    def check_model(self, model: nn.Module) -> None:
        """Raise ModelError unless a model answers two natural inputs with finite outputs that fit the task."""
        inputs = self.natural_queries(2, seed=0)
        shape = tuple(inputs.shape)
        try:
            with isolated_rng(0):
                outputs = predict(model, inputs)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model failed on inputs of shape {shape}: {type(error).__name__}: {error}; "
                f"this {self.name} task needs a model that takes (n, {', '.join(map(str, self.input_shape))})."
            ) from error
        found = tuple(outputs.shape)
        if not found or found[0] != 2 or (self.outputs is not None and outputs[0].numel() != self.outputs):
            raise ModelError(
                f"the model answers inputs of shape {shape} with shape {found}, expected (2, "
                f"{self.outputs if self.outputs is not None else '...'}) outputs (flattened); "
                "change its last layer or the task's targets."
            )
        if not torch.isfinite(outputs).all():
            raise ModelError(f"the model answers natural inputs of shape {shape} with NaN or infinite values.")

    def _options(self, epochs: float | None) -> TrainingOptions:
        if epochs is None:
            return self.options
        options = self.options
        return TrainingOptions(
            epochs=epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
        )

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


class ArrayTask(Task):
    """A task on arrays in memory: `examples` (n, ...) and, but for generation, `targets` (n, ...)."""

    examples: Tensor
    targets: Tensor | None = None
    augment: Augment | None = None
    validation: float | None
    training_indices: Tensor
    validation_indices: Tensor

    def digest(self) -> str:
        """Return a SHA-256 over all data and options: two tasks with the same digest train the same models."""
        # A digest of megabytes is taken once: a task is never changed after it is made.
        if not hasattr(self, "_digest"):
            tensors = {"examples": self.examples, "lower": self.lower, "upper": self.upper}
            if self.targets is not None:
                tensors["targets"] = self.targets
            described = {"kind": type(self).__qualname__, **self._described()}
            self._digest = tensor_digest(tensors, described)
        return self._digest

    def subset(self, indices: Any) -> Self:
        """Return a task of the same kind and bounds on the examples at `indices` (integers, any order)."""
        chosen = torch.as_tensor(indices)
        if chosen.ndim != 1 or chosen.is_floating_point() or chosen.dtype == torch.bool or len(chosen) < 2:
            raise InputError(f"indices must be at least two integers, shape (n,), got {tuple(chosen.shape)}.")
        if int(chosen.min()) < 0 or int(chosen.max()) >= len(self.examples):
            raise InputError(
                f"indices must lie in 0..{len(self.examples) - 1}, got {int(chosen.min())}..{int(chosen.max())}."
            )
        targets = None if self.targets is None else self.targets[chosen]
        return self._rebuilt(self.examples[chosen], targets)

    def with_data(self, examples: Tensor, targets: Tensor | None = None) -> Self:
        """Return a task of the same kind and options on other data (within wider bounds if needed)."""
        return self._rebuilt(examples, targets)

    def bootstrap(self, seed: int, fraction: float = 0.5) -> Self:
        """Return a task on a random part of the examples, drawn without replacement, class by class.

        Without replacement: a copied example would otherwise sit in the training and the validation part at once.
        """
        if not 0.0 < fraction <= 1.0:
            raise InputError(f"fraction must lie in (0, 1], got {fraction}.")
        generator = torch.Generator().manual_seed(derive_seed(seed, "bootstrap"))
        order, classes = balanced_order(torch.arange(len(self.examples)), None, generator), self._classes()
        groups = [order] if classes is None else [order[classes[order] == label] for label in torch.unique(classes)]
        parts = [group[: max(1, round(fraction * len(group)))] for group in groups]
        return self.subset(torch.cat(parts).sort().values)

    def _classes(self) -> Tensor | None:
        """Return the class of each example, (n,), or None where there are none."""
        return None

    def _split(self, validation: float | None) -> None:
        self.validation = validation
        self.training_indices, self.validation_indices = split_indices(len(self.examples), validation, self._classes())

    def _measured(self) -> Tensor:
        return self.validation_indices if len(self.validation_indices) else self.training_indices

    def _described(self) -> dict[str, Any]:
        augment = None if self.augment is None else source_identity(self.augment)
        return {"name": self.name, **self._shared_options(), "bounds": None, "augment": augment}

    def _shared_options(self) -> dict[str, Any]:
        """Return the options that all constructors take, to make a task of the same kind."""
        options = self.options
        return {
            "validation": self.validation,
            "bounds": (self.lower, self.upper),
            "levels": self.levels,
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "learning_rate": options.learning_rate,
            "weight_decay": options.weight_decay,
        }

    def _rebuilt(self, examples: Tensor, targets: Tensor | None) -> Self:
        raise NotImplementedError


def _trainable(model: nn.Module) -> list[Tensor]:
    """Return the parameters that the user left trainable; all of a model that was frozen as a whole."""
    floating: list[Tensor] = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    return [parameter for parameter in floating if parameter.requires_grad] or floating
