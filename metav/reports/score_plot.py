"""Pictures of scores: independent models, the threshold, derived models, and suspects as marked lines.

Matplotlib is imported when a plot is drawn; its global state and backend stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint
from metav.support.files import PathLike, path_text, write_atomically
from metav.verdicts.evaluation import Evaluation
from metav.verdicts.verdict import Verdict

Suspects: TypeAlias = Verdict | Sequence[Verdict] | Mapping[str, Verdict]

# Okabe and Ito (2008): told apart with any kind of colour vision; the markers differ too
INDEPENDENT, DERIVED, SUSPECT, INK = "#0072B2", "#D55E00", "#000000", "#595959"
_KINDS = {
    "independent": ("o", INDEPENDENT, 28, 0.7),
    "derived": ("D", DERIVED, 24, 0.7),
    "suspect": ("*", SUSPECT, 130, 1.0),
}
_LEFT, _RIGHT = -0.03, 1.03  # what is shown of the axis of scores
_LONGEST_NAME = 34
PICTURES = (".png", ".svg", ".pdf")
"""Endings of the files that a plot can be written to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One line of the plot: a family or a suspect, its scores (n,), and what stands at the right margin."""

    name: str
    kind: str
    scores: NDArray[np.float64]
    note: str


def plot_scores(
    source: Evaluation | Fingerprint, suspects: Suspects | None = None, *, title: str | None = None, ax: Any = None
) -> Any:
    """Draw the scores of models of known origin, row by row, the threshold, and suspects as marked lines.

    source: an Evaluation, drawn by family, or a Fingerprint, for the models that calibrated it. suspects: a verdict,
    several, or names with verdicts. ax: Axes to draw into, None makes a figure of its own. Returns the Axes.
    InputError on anything else, and where there is nothing to draw.
    """
    known = _known_rows(source)
    rows = known + _suspect_rows(suspects)
    axes = _new_axes(len(rows)) if ax is None else ax
    axes.axvspan(0.5, _RIGHT, color=DERIVED, alpha=0.06, linewidth=0, zorder=0)
    axes.axvline(0.5, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1, label="threshold")
    for place, row in enumerate(rows):
        _draw_row(axes, place, row, first=place == 0 or rows[place - 1].kind != row.kind)
    _decorate(axes, rows, _title(source) if title is None else title)
    return axes


def save_plot(axes: Any, path: PathLike, *, dpi: int = 150) -> None:
    """Write the figure of an Axes to a picture file, at once or not at all.

    path: with one of PICTURES as its ending.
    dpi: dots per inch.

    Raises InputError for another ending, and where the file cannot be written.
    """
    target = Path(path_text(path))
    if target.suffix.lower() not in PICTURES:
        raise InputError(f"{target} is no picture file; expected a name that ends with {', '.join(PICTURES)}")
    kind = target.suffix.lower().removeprefix(".")
    try:
        write_atomically(target, lambda file: axes.figure.savefig(file, dpi=dpi, format=kind))
    except OSError as error:
        raise InputError(
            f"the plot cannot be written to {target} ({error.strerror or error}); choose a file in an existing folder"
        ) from error


def _known_rows(source: object) -> list[_Row]:
    """Return the rows of models of known origin: independent ones, then derived ones."""
    if isinstance(source, Evaluation):
        rows = [_family_row(source, name) for name in source.by_family]
    elif isinstance(source, Fingerprint):
        rows = [_calibration_row(source, is_positive) for is_positive in (False, True)]
    elif isinstance(source, Verdict):
        raise InputError(
            "source is a Verdict, which does not hold the scores of other models; pass its fingerprint first: "
            "plot_scores(fingerprint, verdict)"
        )
    else:
        raise InputError(
            f"source must be an Evaluation or a Fingerprint, got {type(source).__name__}; pass what metav.evaluate or "
            "metav.load returned"
        )
    if not any(row.scores.size for row in rows):
        raise InputError("there is no score to draw: every suspect of the evaluation was inconclusive")
    return sorted(rows, key=lambda row: list(_KINDS).index(row.kind))


def _family_row(evaluation: Evaluation, name: str) -> _Row:
    family = evaluation.by_family[name]
    scores = [entry.score for entry in evaluation.results if entry.family == name and entry.score is not None]
    return _Row(
        name=name.replace("_", " "),
        kind="derived" if family.is_positive else "independent",
        scores=np.array(scores, dtype=np.float64),
        note=f"{family.rate.count}/{family.n}",
    )


def _calibration_row(fp: Fingerprint, is_positive: bool) -> _Row:
    rule = fp.calibration
    share = rule.true_positives if is_positive else rule.false_positives
    right = share.count if is_positive else share.total - share.count
    kind = "derived" if is_positive else "independent"
    return _Row(
        name=f"{kind}, calibration",
        kind=kind,
        scores=rule.score(rule.positives if is_positive else rule.negatives),
        note=f"{right}/{share.total}",
    )


def _suspect_rows(suspects: Suspects | None) -> list[_Row]:
    named: list[tuple[str, Any]]
    if suspects is None:
        named = []
    elif isinstance(suspects, Verdict):
        named = [(suspects.suspect, suspects)]
    elif isinstance(suspects, Mapping):
        named = [(str(name), verdict) for name, verdict in suspects.items()]
    elif isinstance(suspects, Sequence) and not isinstance(suspects, str | bytes):
        named = [(getattr(verdict, "suspect", ""), verdict) for verdict in suspects]
    else:
        raise InputError(f"suspects must be verdicts of metav.verify, got {type(suspects).__name__}")
    for name, verdict in named:
        if not isinstance(verdict, Verdict):
            raise InputError(f"suspects must be verdicts of metav.verify, got {type(verdict).__name__} for {name!r}")
    return [
        _Row(
            name=_shortened(name),
            kind="suspect",
            scores=np.array([] if verdict.score is None else [verdict.score]),
            note=verdict.decision.replace("_", " ").lower(),
        )
        for name, verdict in named
    ]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _new_axes(rows: int) -> Any:
    """Axes in a figure that pyplot does not know, so that neither its state nor its backend changes."""
    from metav.reports.shown_axes import shown_axes

    return shown_axes(8.6, 1.7 + 0.27 * max(rows, 5))


def _draw_row(axes: Any, place: int, row: _Row, *, first: bool) -> None:
    marker, color, size, alpha = _KINDS[row.kind]
    if first and place:
        axes.axhline(place - 0.5, color="#D9D9D9", linewidth=0.8, zorder=0)
    spread = 0.0 if row.scores.size < 2 else 0.24
    # the same data give the same picture
    offsets = np.random.default_rng(0).uniform(-spread, spread, row.scores.size)
    if row.kind == "suspect":
        for score in row.scores:
            axes.axvline(score, color=color, linewidth=0.9, alpha=0.55, zorder=2)
    axes.scatter(
        row.scores,
        place + offsets,
        s=size,
        marker=marker,
        color=color,
        alpha=alpha,
        edgecolors="white",
        linewidths=0.6,
        zorder=3,
        clip_on=False,
        label=row.kind if first else None,
    )
    shown = f"{row.scores[0]:.3f}  {row.note}" if row.kind == "suspect" and row.scores.size else row.note
    axes.text(1.012, place, shown, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=color)


def _decorate(axes: Any, rows: Sequence[_Row], title: str) -> None:
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=9)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(_KINDS[row.kind][1])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(_LEFT, _RIGHT)
    axes.set_xticks(np.linspace(0, 1, 11))
    axes.set_xlabel("score (0.5 and above: the model counts as derived from the owner's)")
    axes.text(1.012, 1.0, "judged rightly", transform=axes.transAxes, va="bottom", fontsize=8, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=12, pad=26)
    columns = len({row.kind for row in rows}) + 1
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=9,
        borderpad=0.0,
        borderaxespad=0.4,
        handletextpad=0.4,
        columnspacing=1.4,
        markerscale=1.1,
    )


def _title(source: Evaluation | Fingerprint) -> str:
    if isinstance(source, Evaluation):
        derived, independent = source.tpr, source.tnr
        rates = f"TPR {derived.count}/{derived.total}, TNR {independent.count}/{independent.total}"
        return f"{source.queries} queries: {rates}"
    wanted = source.calibration.target_fpr
    return f"{source.task.name.capitalize()}, {len(source.queries)} queries, false-positive rate {wanted:g} wanted"
