"""How a model is called, on the command line: which output counts, which input carries the queries, what others get."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from metav.errors import InputError


def interface_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options --model-output, --query-input and --constant-input, as every one that asks a model."""
    for option in (
        click.option(
            "--constant-input",
            "constant_inputs",
            multiple=True,
            metavar="NAME=VALUE",
            help="What another input is given: JSON, or a .npy file. Can be repeated.",
        ),
        click.option("--query-input", metavar="NAME", help="Input that carries the queries, of a model with several."),
        click.option(
            "--model-output",
            metavar="NAME",
            help="Part of its answer that counts, by name or number.  [default: the one that fits]",
        ),
    ):
        command = option(command)
    return command


def interface_of(model_output: str | None, query_input: str | None, constant_inputs: Sequence[str]) -> dict[str, Any]:
    """Return the three options as the library takes them.

    Raises InputError for a constant that is no NAME=VALUE, or a file that cannot be read.
    """
    is_number = model_output is not None and model_output.removeprefix("-").isdecimal()
    return {
        "output": int(model_output) if model_output is not None and is_number else model_output,
        "query_input": query_input,
        "constant_inputs": dict(map(_constant, constant_inputs)) or None,
    }


def _constant(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(
            f"{text!r} is no constant input; expected NAME=VALUE, such as mask=mask.npy or use_cache=false"
        )
    if value.endswith(".npy"):
        if not Path(value).is_file():
            raise InputError(f"there is no file {value} for the input {name}; check the path")
        try:
            return name, np.load(value, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{value} cannot be read ({error}); write it with numpy.save") from error
    try:
        found = json.loads(value)
    except ValueError:
        return name, value  # a plain text
    return name, np.asarray(found) if isinstance(found, list) else found
