"""The command line, one file a command."""

from metav.cli.commands import main

__all__ = ["main"]
