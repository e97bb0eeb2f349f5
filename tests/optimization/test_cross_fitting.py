"""Calibration models are judged by members that they did not train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from small_fingerprints import small_task, small_zoo

from metav import _core
from metav.optimization.cross_fitting import calibration_parts, refit
from metav.optimization.options import OptimizationOptions
from metav.optimization.settings import resolve_settings
from metav.optimization.shares import Shares
from metav.statistics.roc_aruc import roc_auc
from metav.verifiers.meta_verifier import Member, MetaVerifier


def test_every_family_is_spread_over_the_calibration_parts():
    families = ["distill", "quantize"] * 4 + ["distill"]
    parts = calibration_parts(families, 3)
    assert np.bincount(parts).tolist() == [3, 3, 3]
    for family in set(families):
        sizes = np.bincount(parts[[name == family for name in families]], minlength=3)
        assert max(sizes) - min(sizes) <= 1


def test_calibration_models_are_judged_by_members_that_they_did_not_train():
    random = np.random.default_rng(0)
    families = ("distill",) * 6 + ("independent_same_data",) * 6
    derived = np.array([True] * 6 + [False] * 6)

    def answers(count):
        return random.standard_normal((count, 4, 2)).astype(np.float32)

    shares = Shares(
        owner=answers(1),
        optimize=answers(7),
        optimize_roles=bytes([_core.ROLE_OWNER, *[_core.ROLE_POSITIVE] * 3, *[_core.ROLE_NEGATIVE] * 3]),
        select=answers(2),
        select_derived=np.array([True, False]),
        calibrate=answers(12),
        calibrate_derived=derived,
        calibrate_families=families,
    )
    # noise for answers: a member knows the models that it learned by heart, and no others
    options = OptimizationOptions(
        queries=4, view="identity", repeats=2, refit_steps=300, mix=0.0, noise=0.0, dropout=0.0
    )
    resolved = resolve_settings(options, small_task(), small_zoo())
    member = Member(
        name="mlp:all", verifier=_core.Verifier("mlp", 2, 2), start=0, stop=2, weight=1.0, center=0.0, spread=1.0
    )
    found = refit(MetaVerifier((member,)), shares, resolved, seed=0)
    assert [member.weight for member in found.meta_verifier.members] == [0.5, 0.5]
    for part, member in zip((0, 1), found.meta_verifier.members, strict=True):
        out = calibration_parts(families, 2) == part
        logits = MetaVerifier((replace(member, weight=1.0),)).logits(shares.calibrate)
        assert roc_auc(logits[derived & ~out], logits[~derived & ~out]) == 1.0
        assert set(logits[derived & out]) <= set(found.positives)
        assert set(logits[~derived & out]) <= set(found.negatives)
