"""How far the owner's answers lie outside of what independent models' answers vary in, read as verifiers read them."""

from __future__ import annotations

import numpy as np

from metav import _core
from metav.statistics.calibration_models import CalibrationModels
from metav.statistics.kin import outlyingness
from metav.verifiers.views import view_of

OF_CLASSES = ("relative", "tempered")
"""Views of a classifier's scores in which its confidence plays no part: one tells most of what it is sure of, the other
of what it is in doubt about."""


def owner_outlyingness(models: CalibrationModels, view: str) -> float | None:
    """Return the largest outlyingness of the owner's answers over views; None where too few models tell it.

    models: of a fingerprint, the owner's first. view: how its verifiers read answers.
    """
    others = np.flatnonzero(models.finished_independent)
    rows = np.ascontiguousarray(models.responses[[0, *others]])
    kind = view_of(view)
    views = OF_CLASSES if kind.reads_classes and not kind.reads_labels else (view,)
    found = []
    for name in views:
        features = _core.apply_view(rows, name).reshape(len(rows), -1)
        found.append(outlyingness(features[0], features[1:]))
    known = [value for value in found if value is not None]
    return max(known, default=None)
