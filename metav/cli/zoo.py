"""`metav zoo`: the surrogates of a fingerprint, trained in parts by several jobs, and what is there of them."""

from __future__ import annotations

from typing import Any

import click

from metav.cli.given_models import given_model, given_model_options, surrogate_options
from metav.cli.program import SUCCESS, json_option, stdout_kept_clean, tell
from metav.errors import InputError
from metav.support.json_values import readable_json
from metav.zoo.folder_format import ZooState, zoo_state


@click.group("zoo")
def zoo_group() -> None:
    """Train the surrogates of a fingerprint in parts, on several machines."""


@zoo_group.command("train")
@given_model_options
@surrogate_options
@click.option("--zoo", "folder", required=True, metavar="FOLDER", help="Where the surrogates are kept.")
@click.option("--part", default="1/1", show_default=True, metavar="i/n", help="Which of n parts to train.")
@json_option
def train_zoo_command(folder: str, part: str, as_json: bool, **options: Any) -> int:
    """Train one part of the surrogates; all options, and the arrays of --data, are those of `metav fingerprint`.

    Parts need --recipe. They may run at the same time and share the folder, or each has its own, whose files are put
    together afterwards. A part that was stopped goes on where it was.

    \b
    Example:
      metav zoo train models:build --weights w.safetensors --data train.npz --recipe models:train --zoo zoo --part 1/2
      metav zoo train models:build --weights w.safetensors --data train.npz --recipe models:train --zoo zoo --part 2/2
      metav fingerprint models:build --weights w.safetensors --data train.npz --recipe models:train --zoo zoo \\
        -o owner.metav
    """
    from metav.support.dependencies import require_torch

    require_torch("metav zoo train")
    from metav.zoo.parts import Part, train_part

    try:
        chosen = Part.read(part)
    except InputError as error:
        raise click.BadParameter(str(error), param_hint="--part") from error
    with stdout_kept_clean(), given_model(options) as given:
        state = train_part(
            given.owner,
            given.task,
            chosen,
            folder=folder,
            positives=options["positives"],
            negatives=options["negatives"],
            jobs=options["jobs"],
            progress=False if options["no_progress"] else None,
            **given.building,
        )
    _tell(folder, state, as_json)
    return SUCCESS


@zoo_group.command("status")
@click.argument("folder", metavar="FOLDER")
@json_option
def zoo_status_command(folder: str, as_json: bool) -> int:
    """Say how many surrogates a folder holds, and which are missing; reads none of them."""
    _tell(folder, zoo_state(folder), as_json)
    return SUCCESS


def _tell(folder: str, state: ZooState, as_json: bool) -> None:
    if as_json:
        click.echo(readable_json({"folder": folder, **state.to_dict()}))
        return
    tell(f"{folder} holds {state.trained} of {state.planned} models")
    for run in state.missing[:10]:
        tell(f"  missing: {run}")
    if len(state.missing) > 10:
        tell(f"  and {len(state.missing) - 10} more")
