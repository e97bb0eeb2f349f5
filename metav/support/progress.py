"""Progress bars on stderr: shown on a terminal or in a notebook, silent elsewhere."""

from __future__ import annotations

import sys
from typing import Any


def progress_bar(*, total: int, description: str, enabled: bool | None) -> Any:
    """Return a tqdm progress bar.

    total: steps until it is full.
    description: the text in front of it.
    enabled: True always shows it, False never, None on a terminal or in a notebook only.
    """
    from tqdm.auto import tqdm

    shown = _interactive() if enabled is None else enabled
    return tqdm(total=total, desc=description, disable=not shown, leave=False, file=sys.stderr)


def _interactive() -> bool:
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    # a loaded ipykernel proves nothing: clients of notebooks import it too
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")
