"""`metav reproduce` in a process of its own, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def reproduce(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "metav.cli", "reproduce", *map(str, arguments)]
    # beside other programs a second thread of PyTorch would mostly wait, and burn processor time
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=cwd, env=environment)
