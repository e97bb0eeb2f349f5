"""`metav fingerprint`: the fingerprint of a model, from its code, weights and data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metav.cli.cards import fingerprint_card
from metav.cli.output_files import check_target
from metav.cli.program import (
    SUCCESS,
    ExitCode,
    jobs_option,
    json_option,
    seed_option,
    stdout_kept_clean,
    tell,
    trained_option,
    weights_option,
)
from metav.cli.suspect_options import INPUT_OPTION, input_options
from metav.support.arguments import MOST_QUERIES
from metav.tasks.kinds import TASK_KINDS

if TYPE_CHECKING:
    from metav.fingerprints.fingerprint import Fingerprint

_RECIPE = "a model trained from scratch, given a seed"


@click.command("fingerprint")
@click.argument("owner", metavar="PKG.MODULE:BUILD")
@weights_option
@trained_option
@click.option("--data", required=True, metavar="FILE", help="Training data, an .npz file (see below).")
@click.option(
    "--task",
    "kind",
    type=click.Choice(list(TASK_KINDS)),
    default="classification",
    show_default=True,
    help="What the model does.",
)
@click.option("-o", "--output", metavar="FILE", help="The fingerprint to write, a .metav file; not for --dry-run.")
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
@click.option(
    "--queries", type=click.IntRange(1, MOST_QUERIES), default=100, show_default=True, help="Number of queries."
)
@click.option("--target-fpr", type=float, default=0.01, show_default=True, help="Wanted false-positive rate.")
@click.option("--recipe", metavar="PKG.MODULE:FUNCTION", help="From a seed to a model trained like the owner's.")
@click.option(
    "--independent",
    multiple=True,
    metavar="PKG.MODULE:BUILD[=FILE]",
    help="A model that you have and that does not derive from the owner's, trained or with weights; repeatable.",
)
@click.option("--positives", type=click.IntRange(min=1), default=48, show_default=True, help="Derived surrogates.")
@click.option("--negatives", type=click.IntRange(min=1), default=48, show_default=True, help="Independent surrogates.")
@click.option("--architecture", "architectures", multiple=True, metavar="PKG.MODULE:BUILD", help="Can be repeated.")
@click.option("--epochs", type=float, help="Epochs of one training.  [default: the task's]")
@click.option("--learning-rate", type=float, help="Learning rate of a training.  [default: the task's]")
@click.option("--batch-size", type=int, help="Batch size of a training.  [default: the task's]")
@click.option(
    "--autocast",
    type=click.Choice(["bfloat16"]),
    help="Train surrogates under autocast, which is faster on a GPU.  [default: full precision]",
)
@click.option(
    "--view", metavar="VIEW", help="How answers are read: label, round(2), topk(3), ...  [default: the task's]"
)
@click.option("--classes", type=click.IntRange(min=2), help="Number of classes, where some are not in the data.")
@click.option("--validation", type=float, metavar="SHARE", help="Share of the data held out, 0 to 0.9.  [default: 0.2]")
@click.option("--levels", type=click.IntRange(min=2), help="Values that an input feature can take; 256 survives a PNG.")
@click.option("--latent", type=click.IntRange(min=1), help="Size of the latent vector (generation).")
@click.option("--bounds", type=(float, float), metavar="LOW HIGH", help="Range of an input.  [default: the data's]")
@click.option("--model-output", metavar="NAME", help="Part of the model's answer that counts, where several fit.")
@INPUT_OPTION
@seed_option
@jobs_option
@click.option("--cache", metavar="FOLDER", help="Keep trained surrogates here, and continue from them.")
@click.option("--zoo", metavar="FOLDER", help="Take the surrogates that `metav zoo train` made, and train none.")
@click.option("--dry-run", is_flag=True, help="Measure here what it would take; write nothing.")
@click.option("--no-progress", is_flag=True, help="No progress bars (they show on a terminal only anyway).")
@json_option
def fingerprint_command(**options: Any) -> int:
    """Make the fingerprint of a model: trains surrogates, finds queries, calibrates.

    PKG.MODULE:BUILD names a callable that returns a fresh model of the owner's class; modules in the current folder are
    found. --architecture names further ones, which independent models and thieves may use. --recipe names a function
    that takes a seed and returns a model trained from scratch like the owner's: give it wherever the owner's model was
    trained by code of your own; without it recipes are drawn at random, and more honest models may be accused.

    One fingerprint serves suspects that answer scores, rounded scores or labels alone. --view label makes one for
    labels alone, which does better at that; --levels 256 makes queries that can be sent as pictures.

    \b
    Arrays of --data, by task:
      classification  inputs, labels    (or x, y; or images, labels)
      multi-label     inputs, labels    (or x, y), one column of 0 and 1 per label
      segmentation    inputs, masks     (or x, y; or images, labels)
      regression      inputs, targets   (or x, y)
      generation      samples           (or x, or images), with --latent

    \b
    Example:
      metav fingerprint models:build --weights w.safetensors --data train.npz -o owner.metav \\
        --architecture models:other --jobs 4 --cache zoo

    \b
    A model of several inputs whose answer holds several tensors:
      metav fingerprint models:build ... --input pixels --input mask=mask.npy --model-output logits

    --dry-run trains a model of each family for a moment, and one of the recipe to its end, to tell how long all of it
    will take on this machine.

    Keep the fingerprint secret: who knows its queries can evade them.
    """
    _check_required(options["kind"], options)
    if options["zoo"] is not None and options["cache"] is not None:
        raise click.UsageError("--zoo takes trained surrogates from a folder, --cache trains them; give one of the two")
    if options["dry_run"]:
        return _dry_run(options)
    if options["output"] is None:
        raise click.MissingParameter(param_hint="'-o' / '--output'", param_type="option")
    output = Path(options["output"])
    check_target(output, overwrite=options["force"], endings=(".metav",))
    try:
        with stdout_kept_clean():
            fp = _make_fingerprint(options)
            fp.save(output)
            tell(fingerprint_card(fp))
            tell(f"written to {output}; keep it secret: who knows its queries can evade them")
    except KeyboardInterrupt:
        cache = options["cache"]
        hint = (
            f"run the same command again to continue from {cache}" if cache else "with --cache FOLDER it can continue"
        )
        tell(f"\nstopped, and nothing was written; {hint}")
        raise click.exceptions.Exit(ExitCode.STOPPED) from None
    if options["as_json"]:
        click.echo(fp.to_json())
    return SUCCESS


def _dry_run(options: dict[str, Any]) -> int:
    """Tell what the fingerprint will cost."""
    with stdout_kept_clean(), given_model(options) as given:
        from metav.estimation import estimate

        found = estimate(
            given.owner,
            given.task,
            options=given.options,
            positives=options["positives"],
            negatives=options["negatives"],
            cache=options["zoo"] or options["cache"],
            jobs=options["jobs"],
            say=lambda what: tell(f"measuring: {what}"),
            **given.building,
        )
        tell(str(found))
        tell("nothing was written")
    if options["as_json"]:
        click.echo(found.to_json())
    return SUCCESS


def _make_fingerprint(options: dict[str, Any]) -> Fingerprint:
    with given_model(options) as given:
        if options["zoo"] is not None:
            from metav.zoo.parts import check_complete

            sizes = {name: options[name] for name in ("positives", "negatives")}
            check_complete(given.owner, given.task, folder=options["zoo"], **sizes, **given.building)
        from metav.fingerprinting import fingerprint, fingerprint_job
        from metav.optimization.timing import ModelCounts
        from metav.support.model_interface import ModelInterface
        from metav.zoo.building import SNAPSHOTS, build_zoo

        progress = False if options["no_progress"] else None
        counts = ModelCounts.of_sizes(options["positives"], options["negatives"], SNAPSHOTS)
        interface = ModelInterface(**{name: given.building[name] for name in ("output", "input", "constants")})
        with fingerprint_job(
            given.owner, given.task, counts, given.options, interface, has_zoo=False, progress=progress
        ):
            zoo = build_zoo(
                given.owner,
                given.task,
                positives=options["positives"],
                negatives=options["negatives"],
                cache=options["zoo"] or options["cache"],
                jobs=options["jobs"],
                progress=progress,
                **given.building,
            )
            return fingerprint(
                given.owner,
                given.task,
                zoo=zoo,
                options=given.options,
                target_fpr=options["target_fpr"],
                seed=options["seed"],
                progress=progress,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenModel:
    """What the options name: model, task, options of the optimisation, and what a zoo is built from."""

    owner: Any
    task: Any
    options: Any
    building: dict[str, Any]


@contextmanager
def given_model(options: dict[str, Any]) -> Iterator[GivenModel]:
    """Load what the options name, and keep the user's modules importable for the body."""
    from metav.cli.data_files import load_task
    from metav.cli.named_models import build_model, find_builder, importing_from_here
    from metav.support.dependencies import require_torch

    _check_required(options["kind"], options)
    require_torch("metav fingerprint")
    from metav.optimization.options import OptimizationOptions
    from metav.optimization.settings import check_options
    from metav.verifiers.views import view_of

    names = ("epochs", "learning_rate", "batch_size", "bounds", "latent", "classes", "validation", "levels")
    # before the data are read, and surrogates trained
    if options["view"] is not None:
        view_of(options["view"])
    chosen = OptimizationOptions(view=options["view"], queries=options["queries"])
    task = load_task(options["data"], options["kind"], {name: options[name] for name in names})
    check_options(chosen, task, min(options["positives"], options["negatives"]))
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
        yield GivenModel(owner=owner, task=task, options=chosen, building=building)


def _independent(text: str) -> Any:
    from metav.cli.named_models import build_model

    name, equals, weights = text.partition("=")
    return build_model(name, weights if equals else None, trained=not equals)


def _check_required(kind: str, options: dict[str, Any]) -> None:
    """Refuse options of one kind of task that another kind does not take, and those that are missing."""
    own = TASK_KINDS[kind].required_options
    for name, meaning in own.items():
        if options.get(name) is None:
            raise click.UsageError(f"--task {kind} needs --{name} {meaning}")
    for other in TASK_KINDS.values():
        for name in other.required_options:
            if name not in own and options.get(name) is not None:
                raise click.UsageError(f"--{name} is for --task {other.name}, not for {kind}")
