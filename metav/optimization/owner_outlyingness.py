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
    used = models.independent | (models.of_share("optimize", "select") & ~models.derived & ~models.free)
    used &= np.asarray(models.finished, dtype=np.bool_)
    kind = view_of(view)
    views = OF_CLASSES if kind.reads_classes and not kind.reads_labels else (view,)
    found = []
    for name in views:
        features = _core.apply_view(np.ascontiguousarray(models.responses), name)
        features = features.reshape(len(models.parts), -1)
        found.append(outlyingness(features[0].astype(np.float64), features[used].astype(np.float64)))
    known = [value for value in found if value is not None]
    return max(known, default=None)
