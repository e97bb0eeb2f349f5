"""The recipe of a training by Hugging Face's Trainer: the same trainer, arguments and data under another seed."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging as python_logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Self

from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.utils import logging

from metav.errors import InputError
from metav.integrations.shipped_weights import fix_as_in, fresh, shipped, structure_identity
from metav.models.copying import duplicate

_SAME = (
    *("data_collator", "train_dataset", "eval_dataset", "processing_class", "compute_metrics", "compute_loss_func"),
    *("optimizer_cls_and_kwargs", "preprocess_logits_for_metrics"),
)
"""Arguments of a Trainer that it keeps as attributes of the same name."""
_OF_THE_RUN = (
    *("output_dir", "logging_dir", "run_name", "report_to", "disable_tqdm", "push_to_hub", "logging_strategy"),
    *("local_rank", "ddp_backend", "hub_model_id", "hub_token", "resume_from_checkpoint", "seed"),
)
"""Training arguments that say where and how a run reports, not how it trains."""
_SHOWING = ("DefaultFlowCallback", "ProgressCallback", "PrinterCallback", "NotebookProgressCallback")


class StopAfter(TrainerCallback):  # type: ignore[misc]
    """Ends a repeated training after an epoch; epoch: the last one, from 1."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Stop, if it is time."""
        if round(state.epoch) >= self.epoch:
            control.should_training_stop = True


class HuggingFaceRecipe:
    """From a seed to what such a training ships.

    trainer: class of the trainer.
    arguments: training arguments by name, but for those of the run.
    options: its other arguments.
    callbacks: copies of the user's callbacks as they were before.
    template: the model as it was before; None where `build` makes it.
    build: returns the model before its training; None for one of the same class and configuration with new weights.
    weights, part: see FingerprintCallback.
    epochs: after which it ends; None for the whole training.
    """

    not_in_identity = ("template",)

    def __init__(
        self,
        *,
        trainer: type,
        arguments: tuple[type, Mapping[str, Any]],
        options: Mapping[str, Any],
        callbacks: list[Any],
        template: nn.Module | None,
        build: Callable[..., nn.Module] | None,
        weights: Callable[[nn.Module], Mapping[str, Tensor]] | None,
        part: str | None,
    ) -> None:
        self.trainer, self.arguments, self.options, self.callbacks = trainer, arguments, dict(options), callbacks
        self.template, self.build, self.weights, self.part = template, build, weights, part
        self.epochs: int | None = None
        self.structure = ""
        if template is not None:
            self.structure = structure_identity(template)

    @classmethod
    def of(
        cls,
        trainer: Any,
        build: Callable[[], nn.Module] | None,
        weights: Callable[[nn.Module], Mapping[str, Tensor]] | None,
        part: str | None,
    ) -> Self:
        """Return the recipe of a training that has not begun.

        Raises InputError for a training that cannot be repeated.
        """
        if trainer.optimizer is not None:
            raise InputError(
                "a training with an optimizer that is made already cannot be repeated; pass "
                "optimizer_cls_and_kwargs to the trainer, or recipe= to the callback"
            )
        if trainer.args.deepspeed or trainer.args.fsdp:
            raise InputError("a training with DeepSpeed or FSDP cannot be repeated in one process; pass recipe=")
        build = build or trainer.model_init
        if build is None:
            _check_from_scratch(trainer.model)
        return cls(
            trainer=type(trainer),
            arguments=(type(trainer.args), _arguments(trainer.args)),
            options={name: getattr(trainer, name) for name in _accepted(type(trainer)) if hasattr(trainer, name)},
            callbacks=[copy.deepcopy(entry) for entry in trainer.callback_handler.callbacks if _counts(entry)],
            template=duplicate(trainer.model) if build is None else None,
            build=build,
            weights=weights,
            part=part,
        )

    def until(self, epoch: int) -> Self:
        """Return the recipe of what ships after an epoch."""
        other = copy.copy(self)
        other.epochs = epoch
        kind, arguments = self.arguments
        other.arguments = (kind, {**arguments, "load_best_model_at_end": False})
        return other

    def __call__(self, seed: int) -> nn.Module:
        """Return the trained model of a seed."""
        kind, arguments = self.arguments
        callbacks = copy.deepcopy(self.callbacks)
        if self.epochs is not None:
            callbacks.append(StopAfter(self.epochs))
        verbosity = logging.get_verbosity()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the owner's training has told it already
            logging.set_verbosity(python_logging.ERROR)
            try:
                given = dict(arguments)
                if given.get("data_seed") is not None:
                    given["data_seed"] = seed
                own = kind(
                    **given, output_dir=folder, seed=seed, report_to=[], disable_tqdm=True, logging_strategy="no"
                )
                start = {"model": self._fresh()} if self.build is None else {"model_init": self.build}
                trainer = self.trainer(args=own, callbacks=callbacks, **self.options, **start)
                trainer.train()
                model = trainer.model
                return shipped(model, None if self.weights is None else self.weights(model), part=self.part)
            finally:
                logging.set_verbosity(verbosity)

    def _fresh(self) -> nn.Module:
        template = self.template
        assert template is not None
        if hasattr(template, "config") and hasattr(type(template), "_from_config"):
            kind: Any = type(template)
            model: nn.Module = kind._from_config(copy.deepcopy(template.config))
            fix_as_in(template, model)
            return model
        return fresh(template)


def _check_from_scratch(model: nn.Module) -> None:
    name = getattr(getattr(model, "config", None), "_name_or_path", "")
    if name:
        raise InputError(
            f"the training starts from the pretrained {name}, and a model trained likewise must, too; give the trainer "
            "model_init, or the callback build=, a function that returns the model before its training"
        )


def _arguments(args: Any) -> dict[str, Any]:
    """Return the training arguments by which one process does the same."""
    found = {entry.name: getattr(args, entry.name) for entry in dataclasses.fields(args) if entry.init}
    found = {name: value for name, value in found.items() if name not in _OF_THE_RUN}
    found["gradient_accumulation_steps"] *= args.world_size
    if not args.load_best_model_at_end:
        found["save_strategy"] = "no"
    return found


def _accepted(trainer: type) -> list[str]:
    """Return the arguments of a trainer's class that are known here."""
    parameters = inspect.signature(trainer.__init__).parameters  # type: ignore[misc]
    takes_all = any(entry.kind is entry.VAR_KEYWORD for entry in parameters.values())
    return [name for name in _SAME if takes_all or name in parameters]


def _counts(callback: Any) -> bool:
    """Return whether a callback has a part in what comes out: none of metav, and none that shows or reports."""
    home = type(callback).__module__
    reports = home.startswith(("transformers.integrations", "metav.integrations"))
    return not reports and type(callback).__name__ not in _SHOWING
