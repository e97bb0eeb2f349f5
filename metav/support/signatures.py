"""Signatures that tell users each option of a function that passes its options on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def show_options(function: Callable[..., Any], receiver: Callable[..., Any]) -> None:
    """Show the options that a function passes on as `**options` in its signature, with their defaults.

    function: its signature, as `help` and editors show it, is replaced.
    receiver: the function they are passed on to; its parameters with a default are the options.
    """
    own = inspect.signature(function)
    named = [entry for entry in own.parameters.values() if entry.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [entry for entry in inspect.signature(receiver).parameters.values() if entry.default is not entry.empty]
    vars(function)["__signature__"] = own.replace(parameters=[*named, *options])
