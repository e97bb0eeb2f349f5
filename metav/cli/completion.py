"""`metav completion`: the script with which a shell completes commands, options and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from metav.cli.program import COMPLETION_VARIABLE, PROGRAM, SUCCESS

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> int:
    """Print the script that lets a shell complete metav's commands, options and files.

    \b
    bash (4.4 or later), for you, from the next shell on:
      mkdir -p ~/.local/share/bash-completion/completions
      metav completion bash > ~/.local/share/bash-completion/completions/metav
    or, without the package bash-completion, in ~/.bashrc:
      eval "$(metav completion bash)"

    \b
    zsh, in ~/.zshrc, after compinit:
      eval "$(metav completion zsh)"

    \b
    fish:
      metav completion fish > ~/.config/fish/completions/metav.fish
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"this version of click knows no completion for {shell}; expected one of {SHELLS}")
    click.echo(script(context.find_root().command, {}, PROGRAM, COMPLETION_VARIABLE).source())
    return SUCCESS
