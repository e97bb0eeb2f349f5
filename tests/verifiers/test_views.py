"""Features that verifiers read."""

from __future__ import annotations

import numpy as np

from metav.verifiers.views import paired_features


def test_paired_features_hold_the_answer_and_its_distance_from_the_owners():
    owner, given = np.array([[1.0, -2.0]], np.float32), np.array([[[0.5, 1.0]], [[3.0, -2.0]]], np.float32)
    assert paired_features(given, owner, "identity").tolist() == [[[0.5, 1.0, 0.5, 3.0]], [[3.0, -2.0, 2.0, 0.0]]]
