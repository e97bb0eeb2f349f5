"""`python -m metav.experiments`: the accuracy tables of the README."""

from __future__ import annotations

import click

from metav.errors import MetavError
from metav.experiments.accuracy import PROTOCOLS, report_progress, run_accuracy, table, write_runs


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("tasks", nargs=-1, type=click.Choice(list(PROTOCOLS)))
@click.option("--data", type=click.Path(file_okay=False), help="Folder of the real data sets (warfarin, fashion).")
@click.option("--seeds", default="1,2,3,4,5", show_default=True, help="Seeds, one owner each, separated by commas.")
@click.option(
    "--cache", default="zoo-experiments", show_default=True, help="Folder of trained models, to continue from."
)
@click.option("--output", default="results", show_default=True, help="Folder for one JSON file a run.")
@click.option("--jobs", default=2, show_default=True, help="Processes that train models.")
def main(tasks: tuple[str, ...], data: str | None, seeds: str, cache: str, output: str, jobs: int) -> None:
    """Accuracy on suspects that no fingerprint saw, for TASKS (default: all), as Markdown tables on stdout."""
    try:
        numbers = [int(part) for part in seeds.split(",")]
    except ValueError:
        raise click.BadParameter(f"expected whole numbers separated by commas, got {seeds!r}") from None
    for task in tasks or tuple(PROTOCOLS):
        runs = []
        for seed in numbers:
            try:
                runs.append(run_accuracy(task, seed, data=data, cache=cache, jobs=jobs))
            except MetavError as error:
                raise click.ClickException(str(error)) from error
            report_progress(runs[-1])
            write_runs(runs[-1:], output)
        click.echo(table(runs) + "\n")


if __name__ == "__main__":
    main()
