"""What is closed at the end of a `with` block."""

from __future__ import annotations

from types import TracebackType
from typing import Self, final


class Closing:
    """A base class: `with` closes what a subclass opens, however the block ends."""

    def close(self) -> None:
        """Release what is held; nothing happens on a second call."""

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
