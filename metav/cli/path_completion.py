"""Which parameters a shell completes with files and folders: those whose place in the usage says so."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

FILES = frozenset(
    {"FILE", "LOG", "FINGERPRINT", "FINGERPRINT[=ANSWERS]", "SUSPECT", "SUSPECTS...", "RELEASE", "PKG.MODULE:BUILD"}
)
FOLDERS = frozenset({"FOLDER"})


class PathText(StringParamType):
    """A text that names a file or folder; it is checked where it is used.

    kind: "file" or "dir".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """Leave the names to the shell."""
        return [CompletionItem(incomplete, type=self.kind)]


def complete_paths(command: click.Command) -> click.Command:
    """Return a command whose texts that stand for files and folders are completed as such, and those below it."""
    for parameter in command.params:
        place = parameter.metavar
        if isinstance(parameter.type, StringParamType) and place in FILES | FOLDERS:
            parameter.type = PathText("dir" if place in FOLDERS else "file")
    if isinstance(command, click.Group):
        for entry in command.commands.values():
            complete_paths(entry)
    return command
