"""Processes that end with the one that started them; imported by each first of all, and therefore importing little."""

from __future__ import annotations

import os
import threading
import time

SECONDS_BETWEEN_LOOKS = 0.5
"""How often a process looks whether the one that started it is still there."""


def end_with_parent(parent: int) -> None:
    """Let this process end soon after the one that started it, which may have been killed in the middle of its work.

    parent: its process id.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, name="metav: end with parent", daemon=True).start()
