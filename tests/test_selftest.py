"""The tests that ship: where nothing could fail, they do not say that all is well."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("options", "variables"), [(["-O"], {}), (["-OO"], {}), ([], {"PYTHONOPTIMIZE": "1"})])
def test_without_assertions_they_refuse_to_run(options, variables):
    command = [sys.executable, *options, "-m", "metav.selftest"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=900)
    assert (done.returncode, done.stdout) == (1, "")
    assert "without -O and PYTHONOPTIMIZE" in done.stderr
