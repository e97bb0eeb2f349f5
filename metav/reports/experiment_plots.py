"""Figures of experiments: ROC, misses against accusations, rates by kind, AUC against a number, queries, costs.

Each draws into `ax`, or into a figure of its own where that is None, and returns the Axes. Matplotlib is imported when
a figure is drawn; its global state and backend stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metav.errors import InputError
from metav.statistics.intervals import Interval
from metav.statistics.roc_aruc import aruc, robustness_uniqueness, roc_auc, roc_curve

# Okabe and Ito (2008): told apart with any kind of colour vision; the line styles differ too
_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")
_MOST_INSIDE = 5

Scores = tuple[ArrayLike, ArrayLike]
"""Scores of derived and of independent models."""


def plot_roc(schemes: Mapping[str, Scores], *, title: str = "", ax: Any = None) -> Any:
    """Draw the ROC curve of each scheme, its AUC in the legend. Raises InputError where a scheme lacks a class."""
    axes = _axes(5.2, 4.6) if ax is None else ax
    axes.plot([0, 1], [0, 1], color="#BFBFBF", linewidth=0.8)
    for number, (name, (high, low)) in enumerate(schemes.items()):
        fpr, tpr = roc_curve(high, low)
        axes.plot(fpr, tpr, label=f"{name} ({roc_auc(high, low):.3f})", **_line(number))
    axes.set_xlabel("share of independent models called derived")
    axes.set_ylabel("share of derived models called derived")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    return _finished(axes, title, legend="AUC")


def plot_misses(
    schemes: Mapping[str, Scores],
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
    ax: Any = None,
) -> Any:
    """Draw the share of derived models that are missed over the share of honest models that are accused, per scheme.

    schemes: scores of derived and of honest models.
    points: (accused, missed) of each scheme at its own threshold, drawn as a dot.

    Both axes are linear near zero and logarithmic above a hundredth: what matters lies near both.

    Raises InputError where a scheme lacks a class.
    """
    axes = _axes(6.0, 4.6) if ax is None else ax
    for number, (name, (high, low)) in enumerate(schemes.items()):
        fpr, tpr = roc_curve(high, low)
        style = _line(number)
        axes.plot(fpr, 1.0 - tpr, label=name, drawstyle="steps-post", **style)
        if points is not None and name in points:
            axes.plot(*points[name], marker="o", markersize=6, color=style["color"], zorder=5, clip_on=False)
    for scale, limit in ((axes.set_xscale, axes.set_xlim), (axes.set_yscale, axes.set_ylim)):
        scale("symlog", linthresh=0.01, linscale=0.5)
        limit(0.0, 1.0)
    ticks = (0.0, 0.01, 0.05, 0.2, 1.0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{tick:.0%}" for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.set_xlabel("honest models accused (dot: at the scheme's own threshold)")
    axes.set_ylabel("derived models missed")
    return _finished(axes, title)


def plot_rates(rows: Sequence[tuple[str, str, Interval]], *, title: str = "", ax: Any = None) -> Any:
    """Draw the share of models that are called derived with its exact interval, one row a family.

    rows: (family, "derived" or "independent", share); diamonds stand for derived ones, dots for independent ones.
    """
    axes = _axes(6.4, 1.2 + 0.26 * len(rows)) if ax is None else ax
    colors = {"derived": _COLORS[0], "independent": _COLORS[1]}
    for place, (_, kind, share) in enumerate(rows):
        axes.plot([share.low, share.high], [place, place], color=colors[kind], linewidth=1.6)
        axes.plot(
            [share.value], [place], color=colors[kind], marker="o" if kind == "independent" else "D", markersize=5
        )
        axes.text(1.03, place, f"{share.count}/{share.total}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("called derived, exact 95 % interval")
    return _finished(axes, title, legend=None)


def plot_parts(parts: Mapping[str, Mapping[str, Interval]], *, title: str = "", ax: Any = None) -> Any:
    """Draw what is found and accused without each part of a method, one row a part, one marker a quantity.

    parts: by the part that is left out, shares by quantity.
    """
    quantities = list(dict.fromkeys(name for shares in parts.values() for name in shares))
    axes = _axes(7.0, 1.4 + 0.5 * len(parts)) if ax is None else ax
    for number, quantity in enumerate(quantities):
        places = [place + 0.13 * (number - 0.5 * (len(quantities) - 1)) for place in range(len(parts))]
        chosen = [
            (at, shares[quantity]) for at, shares in zip(places, parts.values(), strict=True) if quantity in shares
        ]
        values = np.array([share.value for _, share in chosen])
        errors = [values - [share.low for _, share in chosen], [share.high for _, share in chosen] - values]
        axes.errorbar(
            values,
            [at for at, _ in chosen],
            xerr=errors,
            label=quantity,
            linestyle="none",
            marker="Dosv^"[number % 5],
            markersize=5,
            capsize=2,
            color=_COLORS[number % len(_COLORS)],
        )
    axes.set_yticks(range(len(parts)), list(parts), fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share, with exact 95 % interval")
    axes.set_ylabel("without")
    _finished(axes, title)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return axes


def plot_robustness(positives: ArrayLike, negatives: ArrayLike, *, title: str = "", ax: Any = None) -> Any:
    """Draw robustness, uniqueness and the smaller of both over the threshold; the area under that is the ARUC.

    positives, negatives: scores in [0, 1].

    Raises InputError for scores outside.
    """
    axes = _axes(5.2, 4.0) if ax is None else ax
    area = aruc(positives, negatives)
    grid = np.linspace(0.0, 1.0, 501)
    robustness, uniqueness = robustness_uniqueness(positives, negatives, grid)
    axes.fill_between(grid, np.minimum(robustness, uniqueness), color="#E6E6E6", label=f"ARUC {area:.3f}")
    axes.plot(grid, robustness, label="robustness: derived models at or above", **_line(0))
    axes.plot(grid, uniqueness, label="uniqueness: independent models below", **_line(1))
    axes.set_xlabel("threshold")
    axes.set_ylabel("share of models")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    return _finished(axes, title)


def plot_sweep(
    schemes: Mapping[str, Mapping[int, Sequence[float]]], *, label: str, title: str = "", ax: Any = None
) -> Any:
    """Draw AUC against a number (of queries, of surrogates), per scheme: means, with bars from least to largest.

    schemes: for each number the AUC of every run.
    label: of the horizontal axis.
    """
    axes = _axes(6.0, 4.0) if ax is None else ax
    for number, (name, points) in enumerate(schemes.items()):
        places = sorted(points)
        means = np.array([np.mean(points[place]) for place in places])
        low = means - [min(points[place]) for place in places]
        high = [max(points[place]) for place in places] - means
        axes.errorbar(places, means, yerr=[low, high], label=name, marker="o", markersize=4, capsize=2, **_line(number))
    ticks = sorted({place for points in schemes.values() for place in points})
    if ticks:
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(place) for place in ticks])
        axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel("AUC")
    return _finished(axes, title)


def plot_queries(
    queries: ArrayLike, *, adaptive: int, limit: int = 40, columns: int = 10, title: str = "", ax: Any = None
) -> Any:
    """Draw the first queries of a fingerprint: images (N, 1 or 3, h, w) as a mosaic, other inputs as a heat map.

    adaptive: how many of them are optimised; they come first.
    limit: how many are drawn at most, of both kinds in proportion.
    columns: of the mosaic.

    Raises InputError for another shape.
    """
    values = np.asarray(queries, dtype=np.float32)
    if values.ndim < 2 or not len(values):
        raise InputError(f"queries must have shape (N, ...), N >= 1, got {values.shape}")
    shown, optimised = _both_kinds(values, adaptive, limit)
    is_image = values.ndim == 4 and values.shape[1] in (1, 3)
    picture = _mosaic(shown, columns) if is_image else shown.reshape(len(shown), -1)
    axes = _axes(7.0, 7.0 * min(1.5, picture.shape[0] / picture.shape[1]) + 0.8) if ax is None else ax
    drawn = axes.imshow(picture, cmap="gray" if is_image else "viridis", interpolation="nearest")
    if not is_image:
        axes.figure.colorbar(drawn, ax=axes, shrink=0.8)
        axes.set_xlabel("feature")
        axes.set_ylabel("query")
    else:
        axes.set_axis_off()
    note = f"{optimised} optimised, then {len(shown) - optimised} natural, of {len(values)} queries"
    axes.set_title(f"{title}: {note}" if title else note, loc="left", fontsize=10)
    return axes


def plot_costs(seconds: Mapping[str, float], *, title: str = "", ax: Any = None) -> Any:
    """Draw seconds per phase as bars on a logarithmic scale."""
    axes = _axes(6.4, 1.2 + 0.34 * len(seconds)) if ax is None else ax
    names = list(seconds)
    values = [max(value, 1e-3) for value in seconds.values()]
    axes.barh(range(len(names)), values, color=_COLORS[1], height=0.6)
    for place, value in enumerate(values):
        axes.text(value * 1.1, place, f"{value:.3g} s", va="center", fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=max(values) * 4)
    axes.set_xlabel("seconds")
    return _finished(axes, title, legend=None)


def _both_kinds(values: NDArray[np.float32], adaptive: int, limit: int) -> tuple[NDArray[np.float32], int]:
    """Return at most `limit` queries, and how many of them are optimised."""
    if len(values) <= limit:
        return values, adaptive
    optimised = round(limit * adaptive / len(values))
    return np.concatenate([values[:optimised], values[adaptive : adaptive + limit - optimised]]), optimised


def _mosaic(images: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """Lay images (n, c, h, w) side by side, their values from 0 to 1, with white lines between them."""
    low, high = float(images.min()), float(images.max())
    scaled = np.pad((images - low) / max(high - low, 1e-9), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=1.0)
    rows = math.ceil(len(scaled) / columns)
    missing = rows * columns - len(scaled)
    filled = np.concatenate([scaled, np.ones((missing, *scaled.shape[1:]), dtype=np.float32)])
    channels, height, width = filled.shape[1:]
    tiled = filled.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    picture: NDArray[np.float32] = tiled.reshape(rows * height, columns * width, channels)
    return picture[..., 0] if channels == 1 else picture


def _axes(width: float, height: float) -> Any:
    """Return axes in a figure that pyplot does not know."""
    from metav.reports.shown_axes import shown_axes

    return shown_axes(width, height)


def _line(number: int) -> dict[str, Any]:
    return {
        "color": _COLORS[number % len(_COLORS)],
        "linestyle": _STYLES[number // len(_COLORS) % len(_STYLES)] if number else "-",
        "linewidth": 2.2 if number == 0 else 1.3,
        "zorder": 4 if number == 0 else 3,
    }


def _finished(axes: Any, title: str, legend: str | None = "") -> Any:
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, loc="left", fontsize=11)
    if legend is not None:
        # many schemes' names would cover their lines
        crowded = len(axes.get_legend_handles_labels()[1]) > _MOST_INSIDE
        beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)} if crowded else {}
        axes.legend(title=legend or None, frameon=False, fontsize=8, **beside)
    return axes
