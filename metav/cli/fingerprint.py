"""`metav fingerprint`: the fingerprint of a model, from its code, weights and data."""

from __future__ import annotations

from dataclasses import replace
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
@click.option("-o", "--output", required=True, metavar="FILE", help="The fingerprint to write, a .metav file.")
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

    Keep the fingerprint secret: who knows its queries can evade them.
    """
    output = Path(options["output"])
    _check_required(options["kind"], options)
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


def _make_fingerprint(options: dict[str, Any]) -> Fingerprint:
    from metav.cli.data_files import load_task
    from metav.cli.named_models import build_model, find_builder, importing_from_here
    from metav.support.dependencies import require_torch

    require_torch("metav fingerprint")
    from metav.fingerprinting import fingerprint
    from metav.optimization.options import OptimizationOptions
    from metav.optimization.settings import check_options
    from metav.verifiers.views import view_of
    from metav.zoo.building import build_zoo

    names = ("epochs", "learning_rate", "batch_size", "bounds", "latent", "classes", "validation", "levels")
    # before the data are read, and surrogates trained
    if options["view"] is not None:
        view_of(options["view"])
    chosen = OptimizationOptions(view=options["view"])
    task = load_task(options["data"], options["kind"], {name: options[name] for name in names})
    surrogates = min(options["positives"], options["negatives"])
    check_options(replace(chosen, queries=options["queries"]), task, surrogates)
    interface = {"output": options["model_output"], **input_options(options["inputs"])}
    # worker processes take over sys.path: it stays until they are done
    with importing_from_here():
        owner = build_model(options["owner"], options["weights"], trained=options["trained"])
        builders = [find_builder(text) for text in options["architectures"]]
        progress = False if options["no_progress"] else None
        zoo = build_zoo(
            owner,
            task,
            positives=options["positives"],
            negatives=options["negatives"],
            architectures=builders or None,
            recipe=None if options["recipe"] is None else find_builder(options["recipe"]),
            **interface,
            independent=[_independent(text) for text in options["independent"]],
            seed=options["seed"],
            cache=options["cache"],
            jobs=options["jobs"],
            progress=progress,
        )
        return fingerprint(
            owner,
            task,
            zoo=zoo,
            queries=options["queries"],
            options=chosen,
            target_fpr=options["target_fpr"],
            seed=options["seed"],
            progress=progress,
        )


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
