"""TensorBoard: numbers as scalars, texts and page as texts; it keeps no files."""

from __future__ import annotations

from typing import Any

from metav.integrations.trackers.tracked_values import TrackedValues, Tracker
from metav.support.files import PathLike


class TensorBoardTracker(Tracker):
    """A log of TensorBoard.

    target: a SummaryWriter, Lightning's TensorBoardLogger, or a folder for a writer of its own; None for the folder
        that PyTorch chooses.
    """

    def __init__(self, target: Any | PathLike | None = None) -> None:
        self._target = target

    def log(self, values: TrackedValues, step: int | None) -> None:
        """Log numbers as scalars, texts and page as texts."""
        given = getattr(self._target, "experiment", self._target)
        if hasattr(given, "add_scalar"):
            _write(given, values, step or 0)
            return
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(given) as writer:  # type: ignore[no-untyped-call]
            _write(writer, values, step or 0)


def _write(writer: Any, values: TrackedValues, step: int) -> None:
    for name, number in values.numbers.items():
        writer.add_scalar(name, number, step)
    for name, text in {**values.texts, "metav/card": values.card}.items():
        writer.add_text(name, text, step)
    writer.flush()
