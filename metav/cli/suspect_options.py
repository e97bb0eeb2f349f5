"""Options of every command that asks a suspect: how a file of a model or a service is asked."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from metav.errors import InputError
from metav.suspects.onnx_files import PROVIDERS
from metav.suspects.tensor_specifications import LAYOUTS

INPUT_OPTION = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Input that takes the queries; with =VALUE what another one is given, JSON or a .npy file. Repeatable.",
)
"""Option of every command that asks a model of several inputs."""

_OPTIONS = (
    INPUT_OPTION,
    click.option("--output", metavar="NAME", help="Output that is judged, where a model has several."),
    click.option(
        "--layout", type=click.Choice(LAYOUTS), help="How a query is sent; by itself, as the model declares it."
    ),
    click.option(
        "--provider", type=click.Choice(sorted(PROVIDERS)), help="Where an .onnx file is run.  [default: cpu]"
    ),
    click.option(
        "--header",
        "headers",
        multiple=True,
        metavar="'NAME: TEXT'",
        help="HTTP header; write $VARIABLE for what is secret, in single quotes. Repeatable.",
    ),
    click.option("--timeout", type=float, metavar="SECONDS", help="Most seconds for one batch."),
    click.option("--trust-code", is_flag=True, help="Allow a .pt2 or TorchScript archive to run its own code."),
)


def suspect_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options; it gets those that were set as `options`, by the names of `open_suspect`."""

    @functools.wraps(command)
    def gathered(
        *,
        inputs: tuple[str, ...],
        output: str | None,
        layout: str | None,
        provider: str | None,
        headers: tuple[str, ...],
        timeout: float | None,
        trust_code: bool,
        **rest: Any,
    ) -> Any:
        options = {
            **input_options(inputs),
            "output": output,
            "layout": layout,
            "provider": provider,
            "headers": dict(map(_header, headers)),
            "timeout": timeout,
            "trust_code": trust_code,
        }
        return command(
            options={
                name: value
                for name, value in options.items()
                if value is not None and value is not False and value != {}
            },
            **rest,
        )

    return functools.reduce(lambda function, option: option(function), reversed(_OPTIONS), gathered)


def input_options(inputs: tuple[str, ...]) -> dict[str, Any]:
    """Return what `--input` says as `input` and `constants`."""
    return {"input": _queried(inputs), "constants": _constants(inputs)}


def _queried(inputs: tuple[str, ...]) -> str | None:
    names = [text for text in inputs if "=" not in text]
    if len(names) > 1:
        raise click.UsageError(f"--input names {' and '.join(names)}; one input takes the queries, others need =VALUE")
    return names[0] if names else None


def _constants(inputs: tuple[str, ...]) -> dict[str, Any]:
    pairs = [text.partition("=") for text in inputs if "=" in text]
    return {name: _value(name, text) for name, _, text in pairs}


def _value(name: str, text: str) -> Any:
    if text.endswith(".npy"):
        return _array(name, text)
    try:
        value = json.loads(text)
    except ValueError:
        raise click.UsageError(
            f"--input {name}={text}: expected a number or a list such as [0.5, 0.5], true, false, or a .npy file"
        ) from None
    return np.asarray(value) if isinstance(value, list) else value


def _array(name: str, path: str) -> Any:
    if not Path(path).is_file():
        raise InputError(f"there is no file {path} for the input {name}; check the path")
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error}); write it with numpy.save") from error


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise click.UsageError("--header expects 'NAME: TEXT', such as 'Authorization: Bearer $API_TOKEN'")
    return name.strip(), value.strip()
