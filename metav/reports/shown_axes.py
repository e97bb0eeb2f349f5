"""Axes in a figure of their own: pyplot does not know it, and a notebook shows it once where it ends a cell.

This module imports Matplotlib; it is imported when a plot is drawn.
"""

from __future__ import annotations

import io
from typing import cast

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class ShownAxes(Axes):
    """Axes that a notebook shows as a picture of their figure.

    pyplot shows the figures that it knows at the end of a cell, whatever the cell ends with; of this one it knows
    nothing, so that it is shown here, and nowhere else.
    """

    def _repr_png_(self) -> bytes:
        picture, figure = io.BytesIO(), cast(Figure, self.figure)
        figure.savefig(picture, format="png", dpi=100)
        return picture.getvalue()


def shown_axes(width: float, height: float) -> ShownAxes:
    """Return empty axes in a figure of this size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return cast(ShownAxes, figure.add_subplot(axes_class=ShownAxes))
