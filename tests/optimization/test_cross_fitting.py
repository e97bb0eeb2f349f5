"""Calibration models are judged by members that they did not train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_fingerprints import small_task, small_zoo

from metav import _core
from metav.errors import InputError
from metav.optimization.cross_fitting import model_parts, refit
from metav.optimization.members import fit_member
from metav.optimization.options import OptimizationOptions
from metav.optimization.settings import resolve_settings
from metav.optimization.shares import Shares
from metav.statistics.calibration import calibrate
from metav.statistics.calibration_models import ALL_TRAINED
from metav.statistics.roc_aruc import roc_auc
from metav.verifiers.meta_verifier import Member, MetaVerifier


def random_shares(random: np.random.Generator) -> Shares:
    """Noise for answers, of models of every share and kind, a run of three snapshots among them."""

    def answers(count):
        return random.standard_normal((count, 4, 2)).astype(np.float32)

    optimize = ["owner", *["distill"] * 5, *["independent_same_data"] * 5, "free_noise", "free_noise"]
    roles = [_core.ROLE_OWNER, *[_core.ROLE_POSITIVE] * 5, *[_core.ROLE_NEGATIVE] * 7]
    return Shares(
        owner=answers(1),
        optimize=answers(13),
        optimize_roles=bytes(roles),
        optimize_free=np.array([name == "free_noise" for name in optimize]),
        select=answers(4),
        select_free=answers(2),
        select_derived=np.array([True, True, False, False]),
        calibrate=answers(15),
        calibrate_derived=np.array([True] * 8 + [False] * 7),
        calibrate_free=np.array([False] * 13 + [True] * 2),
        calibrate_families=("distill", "quantize") * 4 + ("independent_same_data",) * 5 + ("free_noise",) * 2,
        other_families=(*optimize, "distill", "quantize", *["independent_same_data"] * 2, *["free_noise"] * 2),
        optimize_runs=("", "a", "b", "c", "c", "c", "d", "e", "f", "f", "g", "h", "i"),
        optimize_finished=np.array([name not in (3, 4, 8) for name in range(13)]),
    )


def test_every_class_and_family_is_spread_over_the_parts():
    shares = random_shares(np.random.default_rng(0))
    parts = model_parts(shares, 3)
    assert np.flatnonzero(parts == ALL_TRAINED).tolist() == [0, 11, 12, 17, 18]
    models = shares.models(parts)
    runs = np.array([*shares.optimize_runs, *map(str, range(13, 34))])
    classes = [models.judged & models.derived, models.judged & ~models.derived]
    for chosen in (*classes, *(models.calibrating & own for own in classes)):
        first = np.array([np.flatnonzero(runs == run)[0] for run in dict.fromkeys(runs[chosen])])
        sizes = np.bincount(parts[first], minlength=3)
        assert max(sizes) - min(sizes) <= 1
    for run in set(runs):
        assert len(set(parts[runs == run].tolist())) == 1
    assert models.finished.tolist() == [*shares.optimize_finished.tolist(), *[True] * 21]


def test_with_one_part_only_calibration_models_are_left_out():
    shares = random_shares(np.random.default_rng(0))
    assert model_parts(shares, 1).tolist() == [ALL_TRAINED] * 19 + [0] * 15


def test_models_are_judged_by_members_that_they_did_not_train():
    shares = random_shares(np.random.default_rng(0))
    # noise for answers: a member knows the models that it learned by heart, and no others
    options = OptimizationOptions(
        queries=4, view="identity", repeats=2, refit_steps=300, mix=0.0, noise=0.0, dropout=0.0
    )
    resolved = resolve_settings(options, small_task(), small_zoo())
    member = Member(
        name="mlp:all", verifier=_core.Verifier("mlp", 2, 2), start=0, stop=2, weight=1.0, center=0.0, spread=1.0
    )
    parts = model_parts(shares, 2)
    models = shares.models(parts)
    found = refit(MetaVerifier((member,)), models, resolved, seed=0)
    assert [member.weight for member in found.meta_verifier.members] == [0.5, 0.5]
    assert [member.part for member in found.meta_verifier.members] == [0, 1]
    for part, member in zip((0, 1), found.meta_verifier.members, strict=True):
        out = parts == part
        logits = MetaVerifier((replace(member, weight=1.0),)).logits(models.responses)
        assert roc_auc(logits[models.derived & ~out], logits[~models.derived & ~out]) == 1.0
        assert found.logits[out[models.judged]].tolist() == logits[out].tolist()
        given = np.ascontiguousarray(models.responses[out])
        assert found.meta_verifier.logits_of_part(given, part).tolist() == logits[out].tolist()


def test_snapshots_and_free_negatives_set_no_threshold():
    shares = random_shares(np.random.default_rng(0))
    models = shares.models(model_parts(shares, 3))
    logits = np.random.default_rng(1).standard_normal(int(models.judged.sum()))
    rule = models.calibration(logits, target_fpr=0.05)
    of_all = np.full(34, np.nan)
    of_all[models.judged] = logits
    expected = calibrate(of_all[19:27], of_all[27:32], others=[of_all[[6, 7, 9, 10]], of_all[15:17]], target_fpr=0.05)
    assert rule.threshold == pytest.approx(expected.threshold, rel=1e-12)
    assert rule.negatives.tolist() == expected.negatives.tolist()


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
