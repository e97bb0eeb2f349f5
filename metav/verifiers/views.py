"""Views: how raw answers are made comparable before a verifier reads them. Their mathematics stands in the C core."""

from __future__ import annotations

import numpy as np

from metav import _core
from metav.support.arrays import FloatArray


def reads_distances(view: str) -> bool:
    """Return whether members that can are given `paired_features` under this view: for all but a classifier's answers.

    Among log-probabilities the distances of the improbable classes would drown the others.
    """
    return not reads_classes(view)


def reads_classes(view: str) -> bool:
    """Return whether the answers read under this view are a classifier's.

    They may be read whole, rounded, the best few, or the best alone.
    """
    return not view.startswith("identity")


def reads_labels(view: str) -> bool:
    """Return whether nothing but a suspect's most likely class is read under this view."""
    return view == "label"


def paired_features(responses: FloatArray, owner: FloatArray, view: str) -> FloatArray:
    """Return features (models, queries, 2 * outputs): responses under a view, and how far each lies from the owner's.

    responses: raw, (models, queries, outputs), float32.
    owner: the owner's raw responses (queries, outputs).
    view: how both are read.

    Derived models lie on all sides of the owner's answers. A verifier that is nearly linear in the answers alone cannot
    tell them from independent ones; with the distances it can.
    """
    own = _core.apply_view(owner[None], view)
    features = _core.apply_view(responses, view)
    return np.concatenate([features, np.abs(features - own)], axis=2)
