"""Calibration models are judged by members that they did not train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_fingerprints import small_task, small_zoo

from metav import _core
from metav.errors import InputError
from metav.optimization.cross_fitting import calibration_parts, refit
from metav.optimization.members import fit_member
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
    families = ("distill",) * 6 + ("independent_same_data",) * 4 + ("free_noise",) * 2
    derived, free = np.array([True] * 6 + [False] * 6), np.array([False] * 10 + [True] * 2)

    def answers(count):
        return random.standard_normal((count, 4, 2)).astype(np.float32)

    shares = Shares(
        owner=answers(1),
        optimize=answers(7),
        optimize_roles=bytes([_core.ROLE_OWNER, *[_core.ROLE_POSITIVE] * 3, *[_core.ROLE_NEGATIVE] * 3]),
        optimize_free=np.array([False] * 5 + [True] * 2),
        select=answers(2),
        select_free=answers(2),
        select_derived=np.array([True, False]),
        calibrate=answers(12),
        calibrate_derived=derived,
        calibrate_free=free,
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
    assert [member.part for member in found.meta_verifier.members] == [0, 1]
    assert found.parts.tolist() == calibration_parts(families, 2).tolist()
    for part, member in zip((0, 1), found.meta_verifier.members, strict=True):
        out = found.parts == part
        logits = MetaVerifier((replace(member, weight=1.0),)).logits(shares.calibrate)
        assert roc_auc(logits[derived & ~out], logits[~derived & ~out]) == 1.0
        assert found.logits[out].tolist() == logits[out].tolist()
        given = np.ascontiguousarray(shares.calibrate[out])
        assert found.meta_verifier.logits_of_part(given, part).tolist() == logits[out].tolist()


def test_a_part_without_members_gives_no_logits():
    member = Member(
        name="mlp:all", verifier=_core.Verifier("mlp", 2, 2), start=0, stop=2, weight=1.0, center=0.0, spread=1.0
    )
    with pytest.raises(InputError, match="a meta-verifier of 1 members has none of part 3"):
        MetaVerifier((member,)).logits_of_part(np.zeros((1, 2, 2), np.float32), 3)


@pytest.mark.parametrize("free", [2, 0])
def test_closed_forms_are_made_without_the_free_negatives(free):
    """These would widen what counts as usual among models of the task."""
    random = np.random.default_rng(1)
    responses, asked = (random.standard_normal((count, 4, 2)).astype(np.float32) for count in (8, 5))
    roles = bytes([_core.ROLE_OWNER, _core.ROLE_POSITIVE, *[_core.ROLE_NEGATIVE] * 6])
    settings = resolve_settings(OptimizationOptions(queries=4, view="identity"), small_task(), small_zoo())
    found = fit_member("matched:all", (0, 4), responses, roles, np.arange(8) >= 8 - free, settings, 0)
    expected = _core.Verifier("matched", 4, 2)
    expected.standardize(responses)
    expected.fit_closed_form(responses[0], responses[2 : 8 - free])
    assert found.raw_logits(asked) == pytest.approx(expected.logits(asked), rel=1e-6)
