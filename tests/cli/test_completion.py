"""Completion: the protocol that shells speak, and a real bash that asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from metav.cli.commands import COMMANDS, main


def asked(words: str, word: int, shell: str = "bash") -> list[str]:
    """What the program answers a shell, in a process of its own, as lines."""
    variables = {"_METAV_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(word)}
    done = subprocess.run(
        [sys.executable, "-m", "metav.cli"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_process_answers_with_all_commands_and_nothing_else():
    assert asked("metav ", 1) == [f"plain,{name}" for name in sorted(COMMANDS)]


@pytest.mark.parametrize(
    ("words", "word", "expected"),
    [
        ("metav gate --ju", 2, ["plain,--junit"]),
        ("metav cache c", 2, ["plain,clear"]),
        ("metav completion ", 2, ["plain,bash", "plain,zsh", "plain,fish"]),
        ("metav verify ", 2, ["file,"]),
        ("metav fingerprint m:b --weights w", 4, ["file,w"]),
        ("metav cache list z", 3, ["dir,z"]),
    ],
)
def test_commands_options_choices_files_and_folders_are_completed(words, word, expected, monkeypatch, capfd):
    monkeypatch.setenv("_METAV_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(word))
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    assert capfd.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_help_of_a_command_beside_its_name(shell):
    answer = "\n".join(asked("metav insp", 1 if shell == "zsh" else "insp", shell))
    assert "inspect" in answer
    assert "Show what a fingerprint was made from" in answer


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_the_program_called_metav(shell):
    script = CliRunner().invoke(main, ["completion", shell]).stdout
    assert "_METAV_COMPLETE" in script
    assert f"{shell}_complete" in script
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True).returncode == 0


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_bash_that_reads_the_script_completes(tmp_path: Path):
    program = tmp_path / "metav"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m metav.cli "$@"\n')
    program.chmod(0o755)
    code = """
eval "$(metav completion bash)"
COMP_WORDS=(metav insp) COMP_CWORD=1
_metav_completion metav
echo "${COMPREPLY[@]}"
complete -p metav
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", code],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "inspect", done.stderr
    assert "_metav_completion" in lines[1]


def test_the_help_says_where_each_script_goes():
    text = CliRunner().invoke(main, ["completion", "--help"]).stdout
    assert all(f"metav completion {shell}" in text for shell in ("bash", "zsh", "fish"))


def test_an_unknown_shell_is_wrong_usage():
    done = CliRunner().invoke(main, ["completion", "tcsh"])
    assert done.exit_code == 4
    assert "'tcsh' is not one of" in done.stderr
