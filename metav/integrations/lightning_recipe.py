"""The recipe of a Lightning training: the same trainer, configuration and data under another seed."""

from __future__ import annotations

import copy
import importlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from metav.errors import InputError, ModelError
from metav.integrations.registry import integration
from metav.integrations.shipped_weights import fresh, shipped, structure_identity
from metav.models.copying import duplicate

_SAME = (
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "limit_train_batches", "limit_val_batches"),
    *("overfit_batches", "val_check_interval", "check_val_every_n_epoch", "gradient_clip_val"),
    *("reload_dataloaders_every_n_epochs", "precision"),
)
"""Arguments of a Trainer that it keeps as attributes of the same name."""
_SHOWING = ("ProgressBar", "ModelSummary")
"""Callbacks that only show something; no training depends on them."""


def stop_after(trainer: type, epoch: int) -> Any:
    """Return a callback that ends a repeated training after an epoch.

    trainer: class of the trainer, whose library the callback is of.
    epoch: the last one, from 1.
    """

    def on_train_epoch_end(self: Any, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch + 1 >= epoch:
            trainer.should_stop = True

    base = importlib.import_module(trainer_library(trainer)).Callback
    return type("StopAfter", (base,), {"on_train_epoch_end": on_train_epoch_end})()


class LightningRecipe:
    """From a seed to what such a training ships.

    trainer: class of the trainer.
    options: its arguments.
    callbacks: copies of its callbacks as they were before.
    data: arguments of `Trainer.fit`.
    template: the module as it was before.
    build: returns a module before its training; None for the template with new weights.
    weights, part: see FingerprintCallback.
    epochs: after which it ends; None for the whole training.
    """

    not_in_identity = ("template",)

    def __init__(
        self,
        *,
        trainer: type,
        options: Mapping[str, Any],
        callbacks: Iterable[Any],
        data: Mapping[str, Any],
        template: nn.Module,
        build: Callable[[], nn.Module] | None,
        weights: Any,
        part: str | None,
    ) -> None:
        self.trainer, self.options, self.data = trainer, dict(options), dict(data)
        self.callbacks = list(callbacks)
        self.template, self.build, self.weights, self.part = template, build, weights, part
        self.epochs: int | None = None
        self.structure = structure_identity(template)

    @classmethod
    def of(
        cls,
        trainer: Any,
        module: Any,
        own: object,
        build: Callable[[], nn.Module] | None,
        weights: Any,
        part: str | None,
    ) -> Self:
        """Return the recipe of a training that is about to begin.

        own: metav's callback, which is left away.

        Raises InputError for a training that cannot be repeated in one process.
        """
        strategy = type(trainer.strategy).__name__
        if not strategy.startswith(("SingleDevice", "DDP")):
            raise InputError(
                f"a training with {strategy} cannot be repeated in one process; pass recipe=, a function from a seed "
                "to a trained module, or recipe=None"
            )
        loops = trainer.fit_loop
        return cls(
            trainer=type(trainer),
            options=_options(trainer),
            callbacks=[
                _copied_callback(entry, trainer.world_size)
                for entry in trainer.callbacks
                if entry is not own and _counts(entry, keeps_best=weights == "best")
            ],
            data=_data(loops._data_source.instance, loops.epoch_loop.val_loop._data_source.instance, module),
            template=duplicate(module),
            build=build,
            weights=weights,
            part=part,
        )

    def until(self, epoch: int) -> Self:
        """Return the recipe of what ships after an epoch: the weights of that epoch, not the best ones until then."""
        other = copy.copy(self)
        other.epochs, other.weights = epoch, "final" if self.weights == "best" else self.weights
        return other

    def __call__(self, seed: int) -> nn.Module:
        """Return the trained model of a seed; the global generators are seeded with it already."""
        module = fresh(self.template) if self.build is None else self.build()
        callbacks = copy.deepcopy(self.callbacks)
        if self.epochs is not None:
            callbacks.append(stop_after(self.trainer, self.epochs))
        with tempfile.TemporaryDirectory() as folder, _quiet():
            trainer = self.trainer(
                **self.options,
                callbacks=callbacks,
                logger=_dummy_logger(self.trainer),
                default_root_dir=folder,
                enable_checkpointing=any(_is(entry, "ModelCheckpoint") for entry in callbacks),
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
            )
            trainer.fit(module, **_seeded(self.data, seed))
            chosen = best_weights(trainer) if self.weights == "best" else None
            if callable(self.weights):
                chosen = self.weights(trainer, module)
            return shipped(module, chosen, part=self.part)


def best_weights(trainer: Any) -> Mapping[str, Tensor]:
    """Return the weights of the best checkpoint.

    Raises ModelError where there is none.
    """
    callback = trainer.checkpoint_callback
    path = getattr(callback, "best_model_path", "")
    if not path:
        raise ModelError("there is no best checkpoint; give ModelCheckpoint a monitor, or ship weights='final'")
    weights: Mapping[str, Tensor] = trainer.strategy.load_checkpoint(path)["state_dict"]
    return weights


def _options(trainer: Any) -> dict[str, Any]:
    """Return the arguments of a trainer that does the same on one device."""
    found = {name: getattr(trainer, name) for name in _SAME}
    algorithm = trainer.gradient_clip_algorithm
    # a trainer makes these PyTorch's own settings, and does not keep them
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    scheduled = any(_is(entry, "GradientAccumulationScheduler") for entry in trainer.callbacks)
    return {
        **found,
        # one process alone takes as many batches for a step as all of them together
        "accumulate_grad_batches": 1 if scheduled else trainer.accumulate_grad_batches * trainer.world_size,
        "gradient_clip_algorithm": None if algorithm is None else str(algorithm.value),
        "deterministic": torch.are_deterministic_algorithms_enabled() and ("warn" if warns else True),
        "detect_anomaly": trainer._detect_anomaly,
        "inference_mode": trainer.validate_loop.inference_mode,
        "accelerator": "cpu" if type(trainer.accelerator).__name__ == "CPUAccelerator" else "auto",
        "devices": 1,
    }


def _counts(callback: Any, *, keeps_best: bool) -> bool:
    """Return whether a callback has a part in what comes out: not where it only shows or keeps something.

    keeps_best: whether the best checkpoint ships.
    """
    if _is(callback, "ModelCheckpoint"):
        return keeps_best
    return not any(_is(callback, name) for name in _SHOWING)


def _copied_callback(callback: Any, processes: int) -> Any:
    """Return a copy of a callback as it is before the training.

    processes: that train together.
    """
    clone = copy.deepcopy(callback)
    if _is(clone, "ModelCheckpoint"):
        clone.dirpath = None
    elif _is(clone, "GradientAccumulationScheduler"):
        clone.scheduling = {epoch: number * processes for epoch, number in clone.scheduling.items()}
    return clone


def _is(thing: Any, name: str) -> bool:
    return any(entry.__name__ == name for entry in type(thing).__mro__)


def _data(train: Any, validation: Any, module: Any) -> dict[str, Any]:
    """Return the arguments of `Trainer.fit`, with loaders of their own on the same data sets."""
    if train is module:
        return {}  # the module has its own loaders
    if _is(train, "LightningDataModule"):
        return {"datamodule": train}
    given = {"train_dataloaders": train}
    if validation is not None and validation is not module:
        given["val_dataloaders"] = validation
    return _own_loaders(given)


def _own_loaders(data: dict[str, Any]) -> dict[str, Any]:
    memo = {id(loader.dataset): loader.dataset for loader in _loaders(data)}
    found = copy.deepcopy(data, memo)
    for generator in _generators(found):
        generator.manual_seed(0)  # so that its state says nothing of when this was
    return found


def _seeded(data: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the data with loaders of their own, which draw from the seed."""
    if "datamodule" in data:
        return {"datamodule": copy.deepcopy(data["datamodule"])}
    found = _own_loaders(dict(data))
    for generator in _generators(found):
        generator.manual_seed(seed)
    return found


def _loaders(data: Any) -> Iterator[DataLoader[Any]]:
    if isinstance(data, DataLoader):
        yield data
    elif isinstance(data, Mapping):
        for entry in data.values():
            yield from _loaders(entry)
    elif isinstance(data, list | tuple):
        for entry in data:
            yield from _loaders(entry)
    elif hasattr(data, "iterables"):  # Lightning's CombinedLoader
        yield from _loaders(data.iterables)


def _generators(data: Any) -> Iterator[torch.Generator]:
    for loader in _loaders(data):
        for holder in (loader, loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator):
                yield generator


def _dummy_logger(trainer: type) -> Any:
    """Return a logger of the trainer's library that keeps nothing."""
    return importlib.import_module(f"{trainer_library(trainer)}.loggers.logger").DummyLogger()


def trainer_library(trainer: type) -> str:
    """Return the name of the Lightning that a trainer's class comes from, or derives from."""
    for entry in trainer.__mro__:
        for name in integration("Lightning").libraries:
            if entry.__module__.startswith(f"{name}."):
                return name
    raise InputError(f"{trainer.__name__} is no Trainer of Lightning")


@contextmanager
def _quiet() -> Iterator[None]:
    """Run the body without what Lightning tells of each trainer: the owner's training has told it already."""
    loggers = [logging.getLogger(name) for name in integration("Lightning").libraries]
    loggers += [logging.getLogger(f"{entry.name}.utilities.rank_zero") for entry in list(loggers)]
    levels = [entry.level for entry in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for entry in loggers:
            entry.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for entry, level in zip(loggers, levels, strict=True):
                entry.setLevel(level)
