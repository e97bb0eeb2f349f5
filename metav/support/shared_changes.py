"""Changes of what a whole process shares: made by the first thread that needs them, undone by the last one."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from metav.support.locks import ForkSafeLock

Saved = TypeVar("Saved")

_CHANGES: weakref.WeakSet[SharedChange] = weakref.WeakSet()  # type: ignore[type-arg]


class SharedChange(Generic[Saved]):
    """A change that lasts while any thread is inside of `lasting`.

    make: makes the change, and returns what was there before.
    undo: is given that, and brings it back.

    In the child of a fork the threads of the parent no longer count.
    """

    def __init__(self, make: Callable[[], Saved], undo: Callable[[Saved], None]) -> None:
        self._make, self._undo = make, undo
        self._lock = ForkSafeLock()
        self._inside: Counter[int] = Counter()
        self._saved: list[Saved] = []
        _CHANGES.add(self)

    @property
    def is_made(self) -> bool:
        """Whether some thread is inside."""
        return bool(self._inside)

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """Run the body with the change in place."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """Make the change, unless it is there; each call needs one of `leave` in the same thread."""
        with self._lock:
            if not self._inside:
                self._saved = [self._make()]
            self._inside[threading.get_ident()] += 1

    def leave(self) -> None:
        """Undo the change after the last `enter`."""
        with self._lock:
            self._inside[threading.get_ident()] -= 1
            self._inside += Counter()  # drops those at zero
            self._undo_if_unused()

    def forget_other_threads(self) -> None:
        """Count no thread but this one."""
        own = self._inside[threading.get_ident()]
        self._inside = Counter({threading.get_ident(): own} if own else {})
        self._undo_if_unused()

    def _undo_if_unused(self) -> None:
        if not self._inside and self._saved:
            self._undo(self._saved.pop())


def _forget_other_threads() -> None:
    for change in list(_CHANGES):
        change.forget_other_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
