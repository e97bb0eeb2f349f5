"""Views: how raw answers are made comparable before a verifier reads them. Their mathematics stands in the C core."""

from __future__ import annotations

import numpy as np

from metav import _core
from metav.support.arrays import FloatArray


def reads_distances(view: str) -> bool:
    """Whether a verifier that can shall take `paired_features` under this view.

    Among log-probabilities the distances of the improbable classes would drown the others.
    """
    return not reads_classes(view)


def reads_classes(view: str) -> bool:
    """Whether the answers read under this view are a classifier's: whole, rounded, its best few, or the best alone."""
    return not view.startswith("identity")


def reads_labels(view: str) -> bool:
    """Whether nothing but a suspect's most likely class is read under this view."""
    return view == "label"


def paired_features(responses: FloatArray, owner: FloatArray, view: str) -> FloatArray:
    """Features (models, queries, 2 * outputs): the responses under a view, and how far each lies from the owner's.

    responses (models, queries, outputs), owner (queries, outputs). A verifier finds derived models on all sides of the
    owner's answers, which a function that is nearly linear in the answers cannot tell from independent ones.
    """
    own = _core.apply_view(owner[None], view)
    features = _core.apply_view(responses, view)
    return np.concatenate([features, np.abs(features - own)], axis=2)
