"""Locks that a forked child can use, whoever held them in its parent."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType
from typing import Any

_LOCKS: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


class ForkSafeLock:
    """A lock that one thread may take several times: `with lock: ...`.

    In the child of a fork it is free, unless the forking thread itself holds it: others that did are not there.
    """

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def acquire(self, *, timeout: float) -> bool:
        """Take the lock and return True, or False after so many seconds in which another thread held it."""
        return bool(self._lock.acquire(timeout=timeout))

    def release(self) -> None:
        """Give back what `acquire` took."""
        self._lock.release()

    def free_in_child(self) -> None:
        """Make the lock free where a thread holds it that does not exist."""
        if not self._lock._is_owned():
            self._lock = threading.RLock()


def _free_all() -> None:
    for lock in list(_LOCKS):
        lock.free_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)
