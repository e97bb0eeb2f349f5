"""The command line: `metav demo`, `fingerprint`, `inspect`, `verify`, `reproduce`.

Results for programs go to stdout as JSON, everything for people to stderr. Exit codes say what was found, so that none
of them may come from anything else: an unexpected failure, or a suspect's code that calls sys.exit, is a run error.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import metav
from metav.cli.named_models import check_target, write_queries
from metav.cli.program import SUCCESS, ExitCode, Program, json_option, stdout_kept_clean, tell
from metav.cli.reproduce import reproduce_command

if TYPE_CHECKING:
    from metav.fingerprints.fingerprint import Fingerprint
    from metav.verdicts.verdict import Verdict


_WEIGHTS = click.option("--weights", metavar="FILE", help="Weights of the model, a .safetensors file.")
_TRAINED = click.option("--trained", is_flag=True, help="build() returns a trained model; no --weights are needed.")

_EPILOG = """\b
Exit codes of all commands:
  0  no match (verify), or done (every other command)
  1  match: the suspect was derived from the owner's model
  2  error: a file, a model or data that cannot be used
  3  inconclusive: the suspect failed, or its answers cannot be scored
  4  usage: an unknown command or option, or a missing argument
"""


@click.group(cls=Program, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metav.__version__, "-V", "--version", prog_name="metav")
def main() -> None:
    """Fingerprints of trained models: was this suspect derived from mine, with stated error rates.

    \b
    Examples:
      metav demo
      metav fingerprint models:build --weights w.safetensors --data data.npz -o owner.metav
      metav inspect owner.metav --queries queries.npy
      metav verify owner.metav answers.csv
    """


@main.command("demo")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random choice.")
@click.option("--output", default="metav_demo.png", show_default=True, metavar="FILE", help="Where the picture goes.")
@click.option("--jobs", type=int, default=2, show_default=True, help="Processes that train; -1 is one per core.")
@json_option
def demo_command(seed: int, output: str, jobs: int, as_json: bool) -> int:
    """Show what a fingerprint can do, offline and in under a minute, on real handwritten digits.

    Trains a small CNN, makes its fingerprint, then verifies models derived from it and models trained independently,
    with seeds, strengths and architectures that the fingerprint never saw.
    """
    from metav.experiments.demonstration import run_demo, write_picture

    picture = Path(output)
    check_target(picture, overwrite=True)
    with stdout_kept_clean():
        result = run_demo(seed=seed, jobs=jobs, say=tell)
        write_picture(result, picture)
        tell(f"Picture: {picture}")
    if as_json:
        click.echo(result.to_json())
    return SUCCESS


@main.command("fingerprint")
@click.argument("owner", metavar="PKG.MODULE:BUILD")
@_WEIGHTS
@_TRAINED
@click.option("--data", required=True, metavar="FILE", help="Training data, an .npz file (see below).")
@click.option(
    "--task",
    "kind",
    type=click.Choice(["classification", "regression", "generation"]),
    default="classification",
    show_default=True,
    help="What the model does.",
)
@click.option("-o", "--output", required=True, metavar="FILE", help="The fingerprint to write, a .metav file.")
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
@click.option("--queries", type=click.IntRange(min=1), default=100, show_default=True, help="Number of queries.")
@click.option("--target-fpr", type=float, default=0.05, show_default=True, help="Wanted false-positive rate.")
@click.option("--positives", type=click.IntRange(min=1), default=48, show_default=True, help="Derived surrogates.")
@click.option("--negatives", type=click.IntRange(min=1), default=48, show_default=True, help="Independent surrogates.")
@click.option("--architecture", "architectures", multiple=True, metavar="PKG.MODULE:BUILD", help="Can be repeated.")
@click.option("--epochs", type=float, help="Epochs of one training.  [default: the task's]")
@click.option("--learning-rate", type=float, help="Learning rate of a training.  [default: the task's]")
@click.option("--batch-size", type=int, help="Batch size of a training.  [default: the task's]")
@click.option("--latent", type=click.IntRange(min=1), help="Size of the latent vector (generation).")
@click.option("--bounds", type=(float, float), metavar="LOW HIGH", help="Range of an input.  [default: the data's]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random choice.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Processes that train; -1 is one per core.")
@click.option("--cache", metavar="FOLDER", help="Keep trained surrogates here, and continue from them.")
@click.option("--no-progress", is_flag=True, help="No progress bars (they show on a terminal only anyway).")
@json_option
def fingerprint_command(**options: Any) -> int:
    """Make the fingerprint of a model: trains surrogates, finds queries, calibrates.

    PKG.MODULE:BUILD names a callable that returns a fresh model of the owner's class; modules in the current folder are
    found. --architecture names further ones, which independent models and thieves may use.

    \b
    Arrays of --data, by task:
      classification  inputs, labels    (or x, y; or images, labels)
      regression      inputs, targets   (or x, y)
      generation      samples           (or x, or images), with --latent

    \b
    Example:
      metav fingerprint models:build --weights w.safetensors --data train.npz -o owner.metav \\
        --architecture models:other --jobs 4 --cache zoo

    Keep the fingerprint secret: who knows its queries can evade them.
    """
    output = Path(options["output"])
    _check_generation(options["kind"], options["latent"])
    check_target(output, overwrite=options["force"])
    try:
        with stdout_kept_clean():
            fp = _make_fingerprint(options)
            fp.save(output)
            tell(_card(fp))
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


@main.command("inspect")
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.option("--queries", metavar="FILE", help="Write the queries, in order, to this .npy or .npz file.")
@click.option("--force", is_flag=True, help="Overwrite the file of queries if it exists.")
@json_option
def inspect_command(fingerprint: str, queries: str | None, force: bool, as_json: bool) -> int:
    """Show what a fingerprint was made from, how it decides, and its commitment; write its queries.

    \b
    Example, for a suspect that somebody else asks:
      metav inspect owner.metav --queries queries.npy
      (send the queries, record the answers in that order)
      metav verify owner.metav answers.npy
    """
    fp = metav.load(fingerprint)
    tell(_card(fp))
    if queries is not None:
        target = Path(queries)
        check_target(target, overwrite=force)
        write_queries(fp.queries, target)
        tell(f"{len(fp.queries)} queries written to {target}, float32 of shape {fp.queries.shape}")
    if as_json:
        click.echo(fp.to_json())
    return SUCCESS


@main.command("verify")
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.argument("suspect", metavar="SUSPECT")
@_WEIGHTS
@_TRAINED
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Queries per call.")
@click.option("--plot", metavar="FILE", help="Draw the score among the calibration scores into this picture file.")
@json_option
def verify_command(
    fingerprint: str,
    suspect: str,
    weights: str | None,
    trained: bool,
    batch_size: int,
    plot: str | None,
    as_json: bool,
) -> NoReturn:
    """Judge whether a suspect was derived from the owner's model; the exit code says it (0 no match, 1 match).

    SUSPECT is a file of recorded answers (.npy, .npz, .csv or .json, one row per query), or pkg.module:build with
    --weights. A build() that returns a function from queries to answers, such as a remote model's client, needs none.

    \b
    Examples:
      metav verify owner.metav answers.csv
      metav verify owner.metav models:build --weights suspect.safetensors --json
      metav verify owner.metav clients:connect --batch-size 16
    """
    from metav.cli.named_models import names_a_builder

    is_builder = names_a_builder(suspect)
    if not is_builder and (weights is not None or trained):
        raise click.UsageError("--weights and --trained go with pkg.module:build, not with a file of recorded answers")
    fp = metav.load(fingerprint)
    if plot is not None:
        check_target(Path(plot), overwrite=True)
    with stdout_kept_clean():
        verdict = _verdict(fp, suspect, is_builder, weights, trained, batch_size)
        tell(str(verdict))
        if plot is not None:
            from metav.reports.score_plot import plot_scores, save_plot

            save_plot(plot_scores(fp, verdict), plot)
    if as_json:
        click.echo(verdict.to_json())
    raise click.exceptions.Exit(ExitCode[verdict.decision.name])


def _verdict(
    fp: Fingerprint, suspect: str, is_builder: bool, weights: str | None, trained: bool, batch_size: int
) -> Verdict:
    from metav.cli.named_models import build_model, importing_from_here

    if not is_builder:
        return metav.verify(fp, suspect, batch_size=batch_size)
    with importing_from_here():
        model = build_model(suspect, weights, trained=trained)
        return metav.verify(fp, model, batch_size=batch_size)


def _make_fingerprint(options: dict[str, Any]) -> Fingerprint:
    from metav.cli.named_models import build_model, find_builder, importing_from_here, load_task, require_torch

    require_torch("metav fingerprint")
    names = ("epochs", "learning_rate", "batch_size", "bounds", "latent")
    task = load_task(options["data"], options["kind"], {name: options[name] for name in names})
    # worker processes take over sys.path: it stays until they are done
    with importing_from_here():
        owner = build_model(options["owner"], options["weights"], trained=options["trained"])
        builders = [find_builder(text) for text in options["architectures"]]
        progress = False if options["no_progress"] else None
        zoo = metav.build_zoo(
            owner,
            task,
            positives=options["positives"],
            negatives=options["negatives"],
            architectures=builders or None,
            seed=options["seed"],
            cache=options["cache"],
            jobs=options["jobs"],
            progress=progress,
        )
        return metav.fingerprint(
            owner,
            task,
            zoo=zoo,
            queries=options["queries"],
            target_fpr=options["target_fpr"],
            seed=options["seed"],
            progress=progress,
        )


def _check_generation(kind: str, latent: int | None) -> None:
    if kind == "generation" and latent is None:
        raise click.UsageError("--task generation needs --latent SIZE, the length of the vector that the model takes")
    if kind != "generation" and latent is not None:
        raise click.UsageError(f"--latent is for --task generation, not for {kind}")


def _card(fp: Fingerprint) -> str:
    """What a fingerprint is, for people."""
    rule, zoo, shape = fp.calibration, fp.zoo, "x".join(map(str, fp.task.input_shape))
    rows = {
        "task": f"{fp.task.name}, inputs of {shape}, {fp.task.outputs} outputs, read as {fp.task.view}",
        "queries": f"{len(fp.queries)}, {fp.adaptive} of them optimised",
        "verifier": ", ".join(f"{count} {kind}" for kind, count in Counter(fp.meta_verifier.kinds).items()),
        "surrogates": f"{zoo.get('positives', '?')} derived, {zoo.get('negatives', '?')} independent",
        "owner": f"{fp.task.metric_name} {_number(zoo.get('owner_metric'))}",
        "wanted": f"false-positive rate {rule.target_fpr:g}",
        "false positives": f"{rule.false_positives} in calibration",
        "true positives": f"{rule.true_positives} in calibration",
        "made with": ", ".join(f"{name} {version}" for name, version in sorted(fp.versions.items())),
        "seed": str(fp.seed),
        "commitment": fp.commitment,
    }
    width = max(map(len, rows))
    return "\n".join(["Fingerprint", *(f"  {name.ljust(width)}  {text}" for name, text in rows.items())])


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not known"


main.add_command(reproduce_command)

if __name__ == "__main__":
    main()
