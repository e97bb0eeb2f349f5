"""The command line that is installed, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from metav.support.versions import version_of


def _call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "metav.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_tells_its_version() -> None:
    """`metav --version` starts and knows what is installed."""
    assert _call("--version").stdout.strip() == f"metav, version {version_of()}"


def test_a_file_that_is_no_fingerprint_is_refused_with_exit_code_2() -> None:
    """`metav inspect` of this very file says what was expected."""
    done = _call("inspect", __file__)
    assert done.returncode == 2, done.stderr
    assert "is no fingerprint; expected a file" in done.stderr
