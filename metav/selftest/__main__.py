"""Runs the tests of the installed package without pytest: `python -m metav.selftest`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
import unittest

from metav import selftest
from metav.support.versions import version_of


def main() -> int:
    """Run every test, one line for each; return how many failed.

    Raises SystemExit where Python leaves out assertions, without which no test can fail.
    """
    if not __debug__:
        sys.exit("the tests are assertions, which Python leaves out here; run them without -O and PYTHONOPTIMIZE")
    print(f"metav {version_of()}, Python {sys.version.split()[0]}, {sys.platform}")
    failed = 0
    for found in pkgutil.iter_modules(selftest.__path__):
        if not found.name.startswith("test_"):
            continue
        module = importlib.import_module(f"{selftest.__name__}.{found.name}")
        for name in [name for name in vars(module) if name.startswith("test_")]:
            try:
                vars(module)[name]()
                outcome = "ok"
            except unittest.SkipTest as reason:
                outcome = f"skipped: {reason}"
            except Exception:
                outcome, failed = f"FAILED\n{traceback.format_exc()}", failed + 1
            print(f"{found.name[5:]}: {name[5:].replace('_', ' ')}: {outcome}")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
