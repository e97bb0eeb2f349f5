"""The suspect of a command: a file, an address, or a model by the name of a function, with its options checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from metav.cli.program import trained_option, weights_option
from metav.suspects import Suspect
from metav.suspects.callables import CallableSuspect
from metav.suspects.numbered_answers import NumberedRecording
from metav.suspects.registry import open_suspect

_RECORDED = "SUSPECT is the form of metav queries export, rows in any order."


def given_suspect_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options --weights, --trained and --recorded."""
    return weights_option(trained_option(click.option("--recorded", is_flag=True, help=_RECORDED)(command)))


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSuspect:
    """A suspect as the command line names it.

    text: a path, an address, or pkg.module:build.
    weights, trained, recorded: as the options of these names say.
    options: how it is asked, by the names of `open_suspect`.

    Raises click.UsageError for options that do not go together.
    """

    text: str
    weights: str | None
    trained: bool
    recorded: bool
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.recorded and self.is_builder:
            raise click.UsageError("--recorded goes with a file of answers, not with pkg.module:build")
        if not self.is_builder and (self.weights is not None or self.trained):
            raise click.UsageError("--weights and --trained go with pkg.module:build, not with a file or an address")
        of_models = {"input", "constants", "output"} if self.is_builder else set()
        foreign = set(self.options) - of_models - {"timeout"} if self.is_builder or self.recorded else set()
        if foreign:
            raise click.UsageError(
                f"{', '.join(sorted(foreign))}: how a file or a service is asked, not for pkg.module:build or "
                "--recorded"
            )

    @property
    def is_builder(self) -> bool:
        """Whether it names a function that returns the model."""
        from metav.cli.named_models import names_a_builder

        return names_a_builder(self.text)

    @property
    def timeout(self) -> float | None:
        """Seconds for a batch where asking keeps them; files and services keep their own time."""
        return self.options.get("timeout") if self.is_builder else None

    def open(self) -> Suspect:
        """Return the suspect; modules that the user names must be importable."""
        from metav.cli.named_models import build_model

        if self.recorded:
            return NumberedRecording(self.text)
        options = {name: value for name, value in self.options.items() if not self.is_builder or name != "timeout"}
        thing: Any = build_model(self.text, self.weights, trained=self.trained) if self.is_builder else self.text
        opened = open_suspect(thing, **options)
        return CallableSuspect(thing, name=self.text, **options) if isinstance(opened, CallableSuspect) else opened
