"""Views: how raw answers are made comparable before a verifier reads them.

What there is, and what it reads, stands in the core's table (`csrc/mv_view.c`), as does the mathematics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from metav import _core
from metav.errors import InputError
from metav.support.arrays import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One view.

    name: without its parameter.
    parameter: whether it takes a number, as in "round(2)".
    reads_classes: whether the answers are a classifier's: whole, rounded, its best few, or the best alone.
    reads_labels: whether nothing but the most likely class is read.
    """

    name: str
    parameter: bool
    reads_classes: bool
    reads_labels: bool


_TEXT = re.compile(r"(\w+)(\([0-9]+\))?")

VIEWS: Mapping[str, View] = {name: View(name=name, **row) for name, row in _core.views().items()}
"""All views by name."""


def view_of(view: str) -> View:
    """Return what is known of a view such as "logprob" or "round(2)"; InputError for an unknown one."""
    parts = _TEXT.fullmatch(view) if isinstance(view, str) else None
    found = None if parts is None else VIEWS.get(parts[1])
    if found is None or parts is None or (parts[2] is not None) is not found.parameter:
        known = ", ".join(f"{entry.name}(n)" if entry.parameter else entry.name for entry in VIEWS.values())
        raise InputError(f"view must be one of {known}, got {view!r}")
    try:
        _core.apply_view(np.ones((1, 1, 2), dtype=np.float32), view)
    except ValueError as error:  # its number is out of range
        raise InputError(str(error)) from error
    return found


def reads_distances(view: str) -> bool:
    """Return whether members that can are given `paired_features` under this view: for all but a classifier's answers.

    Among log-probabilities the distances of the improbable classes would drown the others.
    """
    return not view_of(view).reads_classes


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
