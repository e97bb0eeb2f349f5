"""What trackers are told of a fingerprint: the same values for all, and nothing that helps to evade it."""

from __future__ import annotations

import html
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from metav.fingerprints.fingerprint import Fingerprint
from metav.support.html_tables import html_table
from metav.support.versions import version_of

SECRET = "whoever has its queries can evade it: keep the tracker's files from all who must not"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedValues:
    """What trackers are told.

    texts: by name: commitment, task, ...
    numbers: by name, finite: checks (0 or 1), rates with the ends of their intervals, counts.
    card: the same as one HTML page.
    """

    texts: Mapping[str, str]
    numbers: Mapping[str, float]
    card: str


class Tracker(ABC):
    """One run of a tracker.

    fingerprint_file: whether the fingerprint's file is kept there, too, with a warning.
    """

    fingerprint_file: bool = False

    @abstractmethod
    def log(self, values: TrackedValues, step: int | None) -> None:
        """Log the values; step: the epoch, None at the end of the training."""

    def log_file(self, fingerprint: Fingerprint) -> None:
        """Keep the fingerprint's file; only called where `fingerprint_file` asks for it."""
        raise NotImplementedError(f"{type(self).__name__} keeps no files")


def tracked_values(fingerprint: Fingerprint) -> TrackedValues:
    """Return what trackers are told of a fingerprint: neither queries nor verifier, salt or seed."""
    rule, check, zoo = fingerprint.calibration, fingerprint.check, fingerprint.zoo
    texts = {
        "metav.commitment": fingerprint.commitment,
        "metav.task": fingerprint.task.name,
        "metav.view": fingerprint.task.view,
        "metav.verifier": fingerprint.meta_verifier.summary,
        "metav.metric": fingerprint.task.metric_name,
        "metav.version": str(fingerprint.versions.get("metav", "")),
    }
    numbers: dict[str, object] = {
        "metav/queries": len(fingerprint.queries),
        "metav/optimized_queries": fingerprint.adaptive,
        "metav/target_fpr": rule.target_fpr,
        "metav/derived_surrogates": zoo.get("positives"),
        "metav/independent_surrogates": zoo.get("negatives"),
        "metav/owner_metric": zoo.get("owner_metric"),
        "metav/owner_matches": check.get("owner_matches"),
        "metav/owner_score": check.get("owner_score"),
    }
    for name, share in (("true_positives", rule.true_positives), ("false_positives", rule.false_positives)):
        numbers |= {
            f"metav/{name}": share.value,
            f"metav/{name}_low": share.low,
            f"metav/{name}_high": share.high,
            f"metav/{name}_of": share.total,
        }
    standing = zoo.get("standing")
    if isinstance(standing, Mapping):
        texts["metav.recipe"] = str(standing.get("recipe"))
        numbers["metav/owner_stands_among_independent"] = standing.get("covered")
    known = {name: float(value) for name, value in numbers.items() if isinstance(value, int | float)}
    known = {name: value for name, value in known.items() if math.isfinite(value)}
    return TrackedValues(texts=texts, numbers=known, card=_card(fingerprint, texts, known))


def log_values(fingerprint: Fingerprint, tracker: Tracker, step: int | None = None) -> None:
    """Tell a tracker what a fingerprint shows; warns where its file is kept there."""
    tracker.log(tracked_values(fingerprint), step)
    if tracker.fingerprint_file:
        warnings.warn(f"the fingerprint itself is kept in the tracker, and {SECRET}", stacklevel=3)
        tracker.log_file(fingerprint)


def _card(fingerprint: Fingerprint, texts: Mapping[str, str], numbers: Mapping[str, float]) -> str:
    rows = [*texts.items(), *((name, f"{value:.6g}") for name, value in numbers.items())]
    title = html.escape(f"metav: fingerprint {fingerprint.commitment[:12]}")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>'
        "body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:1.5rem auto;padding:0 1rem;color:#1a1a1a}"
        "table{border-collapse:collapse;width:100%;margin:0 0 1.5rem}caption{text-align:left;font-weight:600;"
        "padding:.4rem 0}th{text-align:left;font-weight:500;color:#595959;padding:.25rem 1rem .25rem 0;"
        "white-space:nowrap;vertical-align:top}td{padding:.25rem 0;overflow-wrap:anywhere}"
        "tr{border-top:1px solid #e6e6e6}</style></head><body>"
        f"{fingerprint._repr_html_()}{html_table(['What the tracker holds'], rows)}"
        "<p>The commitment proves later that the fingerprint existed now. Keep the fingerprint itself secret: whoever "
        "has its queries can evade it.</p>"
        f"<footer>Written by metav {html.escape(version_of())}.</footer></body></html>\n"
    )
