"""`metav fingerprint`: the fingerprint of a model, from its code, weights and data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metav.cli.cards import fingerprint_card
from metav.cli.given_models import GivenModel, check_required, given_model, given_model_options, surrogate_options
from metav.cli.output_files import check_target
from metav.cli.program import SUCCESS, ExitCode, json_option, stdout_kept_clean, tell
from metav.support.arguments import MOST_QUERIES

if TYPE_CHECKING:
    from metav.fingerprints.fingerprint import Fingerprint
    from metav.optimization.options import OptimizationOptions


@click.command("fingerprint")
@given_model_options
@click.option("-o", "--output", metavar="FILE", help="The fingerprint to write, a .metav file; not for --dry-run.")
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
@click.option(
    "--queries", type=click.IntRange(1, MOST_QUERIES), default=100, show_default=True, help="Number of queries."
)
@click.option("--target-fpr", type=float, default=0.01, show_default=True, help="Wanted false-positive rate.")
@click.option(
    "--view", metavar="VIEW", help="How answers are read: label, round(2), topk(3), ...  [default: the task's]"
)
@surrogate_options
@click.option("--cache", metavar="FOLDER", help="Keep trained surrogates here, and continue from them.")
@click.option("--zoo", metavar="FOLDER", help="Take the surrogates that `metav zoo train` made, and train none.")
@click.option("--dry-run", is_flag=True, help="Measure here what it would take; write nothing.")
@json_option
def fingerprint_command(**options: Any) -> int:
    """Make the fingerprint of a model: trains surrogates, finds queries, calibrates.

    PKG.MODULE:BUILD names a callable that returns a fresh model of the owner's class; modules in the current folder are
    found. --architecture names further ones, which independent models and thieves may use. --recipe names a function
    that takes a seed and returns a model trained from scratch like the owner's: give it wherever the owner's model was
    trained by code of your own; without it recipes are drawn at random, and only near copies match.

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
    check_required(options)
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


@contextmanager
def _given(options: dict[str, Any]) -> Iterator[tuple[GivenModel, OptimizationOptions]]:
    """Load the model, once it is checked that its queries can be found as the options say."""
    from metav.support.dependencies import require_torch

    require_torch("metav fingerprint")
    from metav.optimization.options import OptimizationOptions
    from metav.optimization.settings import check_options
    from metav.verifiers.views import view_of

    if options["view"] is not None:
        view_of(options["view"])
    chosen = OptimizationOptions(view=options["view"], queries=options["queries"])
    surrogates = min(options["positives"], options["negatives"])
    with given_model(options, check=lambda task: check_options(chosen, task, surrogates)) as given:
        yield given, chosen


def _dry_run(options: dict[str, Any]) -> int:
    """Tell what the fingerprint will cost."""
    with stdout_kept_clean(), _given(options) as (given, chosen):
        from metav.estimation import estimate

        found = estimate(
            given.owner,
            given.task,
            options=chosen,
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
    with _given(options) as (given, chosen):
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
        with fingerprint_job(given.owner, given.task, counts, chosen, interface, has_zoo=False, progress=progress):
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
                options=chosen,
                target_fpr=options["target_fpr"],
                seed=options["seed"],
                progress=progress,
            )
