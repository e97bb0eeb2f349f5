"""The model of a command that trains surrogates: its code, weights and data, and which surrogates there are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from metav.cli.program import jobs_option, seed_option, trained_option, weights_option
from metav.cli.suspect_options import INPUT_OPTION, input_options
from metav.tasks.kinds import TASK_KINDS

_MODEL = (
    click.argument("owner", metavar="PKG.MODULE:BUILD"),
    weights_option,
    trained_option,
    click.option("--data", required=True, metavar="FILE", help="Training data, an .npz file (see below)."),
    click.option(
        "--task",
        "kind",
        type=click.Choice(list(TASK_KINDS)),
        default="classification",
        show_default=True,
        help="What the model does.",
    ),
)
_SURROGATES = (
    click.option("--recipe", metavar="PKG.MODULE:FUNCTION", help="From a seed to a model trained like the owner's."),
    click.option(
        "--independent",
        multiple=True,
        metavar="PKG.MODULE:BUILD[=FILE]",
        help="A model that you have and that does not derive from the owner's, trained or with weights; repeatable.",
    ),
    click.option("--positives", type=click.IntRange(min=1), default=48, show_default=True, help="Derived surrogates."),
    click.option(
        "--negatives", type=click.IntRange(min=1), default=48, show_default=True, help="Independent surrogates."
    ),
    click.option("--architecture", "architectures", multiple=True, metavar="PKG.MODULE:BUILD", help="Can be repeated."),
    click.option("--epochs", type=float, help="Epochs of one training.  [default: the task's]"),
    click.option("--learning-rate", type=float, help="Learning rate of a training.  [default: the task's]"),
    click.option("--batch-size", type=int, help="Batch size of a training.  [default: the task's]"),
    click.option(
        "--autocast",
        type=click.Choice(["bfloat16"]),
        help="Train surrogates under autocast, which is faster on a GPU.  [default: full precision]",
    ),
    click.option("--classes", type=click.IntRange(min=2), help="Number of classes, where some are not in the data."),
    click.option(
        "--validation", type=float, metavar="SHARE", help="Share of the data held out, 0 to 0.9.  [default: 0.2]"
    ),
    click.option(
        "--levels", type=click.IntRange(min=2), help="Values that an input feature can take; 256 survives a PNG."
    ),
    click.option("--latent", type=click.IntRange(min=1), help="Size of the latent vector (generation)."),
    click.option("--bounds", type=(float, float), metavar="LOW HIGH", help="Range of an input.  [default: the data's]"),
    click.option("--model-output", metavar="NAME", help="Part of the model's answer that counts, where several fit."),
    INPUT_OPTION,
    seed_option,
    jobs_option,
    click.option("--no-progress", is_flag=True, help="No progress bars (they show on a terminal only anyway)."),
)
_OF_TASK = ("epochs", "learning_rate", "batch_size", "bounds", "latent", "classes", "validation", "levels")
"""Options that the task is given."""

_RECIPE = "a model trained from scratch, given a seed"


def given_model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name the owner's model and its data."""
    return _with(_MODEL, command)


def surrogate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which surrogates there are, and how they are trained."""
    return _with(_SURROGATES, command)


def _with(options: tuple[Callable[..., Any], ...], command: Callable[..., Any]) -> Callable[..., Any]:
    return functools.reduce(lambda function, option: option(function), reversed(options), command)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenModel:
    """What the options name.

    owner: the model. task: of its data.
    building: the other arguments of `build_zoo` that the options state, but for sizes and processes.
    """

    owner: Any
    task: Any
    building: dict[str, Any]


@contextmanager
def given_model(options: Mapping[str, Any], *, check: Callable[[Any], None] | None = None) -> Iterator[GivenModel]:
    """Load what the options name, and keep the user's modules importable for the body; PyTorch must be there.

    check: is given the task before any model is loaded; None for nothing to check.
    """
    from metav.cli.data_files import load_task
    from metav.cli.named_models import build_model, find_builder, importing_from_here

    check_required(options)
    task = load_task(options["data"], options["kind"], {name: options[name] for name in _OF_TASK})
    if check is not None:
        check(task)
    # worker processes take over sys.path: it stays until they are done
    with importing_from_here():
        owner = build_model(options["owner"], options["weights"], trained=options["trained"])
        building = {
            "architectures": [find_builder(text) for text in options["architectures"]] or None,
            "recipe": None if options["recipe"] is None else find_builder(options["recipe"], _RECIPE),
            "output": options["model_output"],
            **input_options(options["inputs"]),
            "independent": [_independent(text) for text in options["independent"]],
            "autocast": options["autocast"],
            "seed": options["seed"],
        }
        yield GivenModel(owner=owner, task=task, building=building)


def _independent(text: str) -> Any:
    from metav.cli.named_models import build_model

    name, equals, weights = text.partition("=")
    return build_model(name, weights if equals else None, trained=not equals)


def check_required(options: Mapping[str, Any]) -> None:
    """Refuse options of one kind of task that another kind does not take, and those that are missing."""
    kind = options["kind"]
    own = TASK_KINDS[kind].required_options
    for name, meaning in own.items():
        if options.get(name) is None:
            raise click.UsageError(f"--task {kind} needs --{name} {meaning}")
    for other in TASK_KINDS.values():
        for name in other.required_options:
            if name not in own and options.get(name) is not None:
                raise click.UsageError(f"--{name} is for --task {other.name}, not for {kind}")
