"""How the program ends and where it writes: exit codes, errors as messages, stdout for JSON and nothing else."""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from enum import IntEnum
from functools import partial
from importlib import import_module
from typing import Any

import click
from click.shell_completion import shell_complete

from metav.cli.path_completion import complete_paths
from metav.errors import InputError, MetavError
from metav.support.arguments import MOST_SEED

CORE = "metav._core"
"""The extension module, without which nothing but `metav doctor` works."""
PROGRAM, COMPLETION_VARIABLE = "metav", "_METAV_COMPLETE"
"""What a shell calls, and the environment variable in which it asks for completions."""


class ExitCode(IntEnum):
    """What the commands of this program end with; 0 and 1 have two names, since a check passes or fails."""

    NO_MATCH = 0
    PASSED = 0  # of checks (gate, doctor), as 0 stands for success everywhere
    MATCH = 1
    FAILED = 1
    ERROR = 2
    INCONCLUSIVE = 3
    USAGE = 4
    STOPPED = 130


SUCCESS = 0


class LazyCommands(MutableMapping[str, click.Command]):
    """Commands by name, each imported when it is first asked for: `metav doctor` runs where others cannot be imported.

    homes: by name, module and attribute, as "module:attribute".
    """

    def __init__(self, homes: Mapping[str, str]) -> None:
        self._found: dict[str, click.Command | str] = dict(homes)

    def __getitem__(self, name: str) -> click.Command:
        entry = self._found[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self._found[name] = complete_paths(getattr(import_module(module), attribute))
        return entry

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class Program(click.Group):
    """A click group whose exit codes are those of ExitCode, for whatever ends it."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and, unless standalone_mode is off, end the process."""
        instruction = os.environ.get(COMPLETION_VARIABLE)
        if standalone_mode and instruction:  # click would end the process itself, which counts as an error here
            sys.exit(shell_complete(self, extra, PROGRAM, COMPLETION_VARIABLE, instruction))
        run = partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        sys.exit(self._ended(run))

    def _ended(self, run: Callable[[], Any]) -> int:
        """Run a command line and return its exit code."""
        try:
            code = run()
        except click.UsageError as error:
            error.show()
            return ExitCode.USAGE
        except click.Abort:
            tell("stopped")
            return ExitCode.STOPPED
        except click.ClickException as error:
            return _failed(error.format_message())
        except MetavError as error:
            return _failed(str(error))
        except ImportError as error:
            if sys.modules.get(CORE) is None:
                return _failed(f"metav's core cannot be loaded ({error}); `metav doctor` says what to do")
            return _defect(error)
        except SystemExit as error:
            return _failed(f"the code of a model, task or suspect ended the program (sys.exit({error.code!r}))")
        except Exception as error:
            return _defect(error)
        return code if isinstance(code, int) else SUCCESS


def _defect(error: Exception) -> int:
    traceback.print_exception(error, file=sys.stderr)
    return _failed(f"{type(error).__name__}: {error}; this is a defect of metav or of a model's own code")


def _failed(message: str) -> int:
    tell(f"error: {message}")
    return ExitCode.ERROR


def tell(text: str) -> None:
    """One line for people, on stderr."""
    click.echo(text, err=True)


@contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send to stderr what a model's code and its worker processes print, so that stdout holds JSON and nothing else."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = _show_warning
        try:
            sys.__stdout__.flush()  # type: ignore[union-attr]
            kept = os.dup(1)
        except (OSError, ValueError, AttributeError):  # there is no such stream
            yield
            return
        try:
            os.dup2(2, 1)
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def _show_warning(message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None) -> None:
    tell(f"warning: {_with_options(str(message))}")


def _with_options(text: str) -> str:
    """Return a text in which arguments of Python functions are called as the options of the command that runs."""
    context = click.get_current_context(silent=True)
    parameters = context.command.params if context is not None else []
    options = {str(entry.name): entry.opts[-1] for entry in parameters if isinstance(entry, click.Option)}
    if not options:
        return text
    names = "|".join(re.escape(name) for name in options)
    return re.sub(rf"\b({names})=(?=(\d)?)", lambda found: options[found[1]] + (" " if found[2] else ""), text)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --json, as every one that has a result."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")(command)


def weights_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --weights, as every one that takes a model."""
    return click.option("--weights", metavar="FILE", help="Weights of the model, a .safetensors file.")(command)


def trained_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --trained, as every one that takes a model."""
    text = "build() returns a trained model; no --weights are needed."
    return click.option("--trained", is_flag=True, help=text)(command)


def seed_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --seed, as every one that makes random choices."""
    kind = click.IntRange(0, MOST_SEED)
    return click.option("--seed", type=kind, default=0, show_default=True, help="Seed of every random choice.")(command)


def jobs_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --jobs, as every one that trains models."""
    return click.option(
        "--jobs",
        type=int,
        callback=_checked_jobs,
        show_default="one per core that it may use, where that saves time",
        help="Processes that train; -1 is one per core.",
    )(command)


def _checked_jobs(context: click.Context, parameter: click.Parameter, value: int | None) -> int | None:
    from metav.support.processor import job_count

    try:
        return None if value is None else job_count(value)
    except InputError as error:
        raise click.BadParameter(str(error), context, parameter) from error
