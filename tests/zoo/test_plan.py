"""The plan of a zoo: which models, with which seeds and strengths, in which share."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import task_of
from small_zoos import INDEPENDENT

from metav.zoo.plan import plan_zoo


def plan(**options):
    defaults = {"positives": 48, "negatives": 48, "architectures": 3, "seed": 0, "snapshots": 2}
    return plan_zoo(
        task_of("classification"), **{**defaults, "families": None, "shares": None, "suspects": False, **options}
    )


@settings(max_examples=60, deadline=None)
@given(positives=st.integers(1, 60), negatives=st.integers(1, 60), architectures=st.integers(1, 4))
def test_plans_have_the_counts_asked_for_and_half_homologous_negatives(positives, negatives, architectures):
    planned = plan(positives=positives, negatives=negatives, architectures=architectures)
    derived = [model for model in planned if model.is_positive]
    independent = [model for model in planned if not model.is_positive]
    assert (len(derived), len(independent)) == (positives, negatives)
    assert 2 * sum(model.family == INDEPENDENT for model in independent) >= negatives
    assert len({model.run for model in planned}) == len({model.seed for model in planned}) == len(planned)
    assert all(model.architecture < architectures for model in planned)
    assert all(not model.snapshots or model.share == "optimize" for model in planned)
    for group in (derived, independent):
        shares = [model.share for model in group]
        assert "optimize" in shares
        assert "calibrate" in shares or len(group) < 2
        assert "select" in shares or len(group) < 3


def test_the_standard_plan_covers_all_families_in_every_large_share():
    planned = plan()
    for share, least in (("optimize", 14), ("calibrate", 14), ("select", 7)):
        chosen = [model for model in planned if model.share == share]
        assert len({model.family for model in chosen if model.is_positive}) >= least
        assert len({model.family for model in chosen if not model.is_positive}) == 3
    assert [sum(m.share == s and m.is_positive for m in planned) for s in ("optimize", "select", "calibrate")] == [
        24,
        7,
        17,
    ]
    assert len({(model.family, model.strength) for model in planned if model.is_positive}) > 35


def test_a_larger_zoo_contains_the_smaller_one():
    small = {(model.run, model.seed, model.strength) for model in plan(positives=20, negatives=11)}
    assert small <= {(model.run, model.seed, model.strength) for model in plan()}


def test_a_part_of_the_homologous_surrogates_goes_through_the_zoos_own_obfuscations():
    planned = plan(negatives=200)
    attacked = [model for model in planned if model.attack is not None]
    assert {model.family for model in attacked} == {INDEPENDENT}
    assert 0.1 < len(attacked) / sum(model.family == INDEPENDENT for model in planned) < 0.35
    families = {model.attack[0] for model in attacked}
    # what needs another architecture is no obfuscation of a model of the owner's class
    assert families <= {model.family for model in planned if model.is_positive} - {"distill_other"}
    assert len(families) >= 5
    assert {model.share for model in attacked} == {"optimize", "select", "calibrate"}
    only = plan(negatives=200, families=["weight_prune", "distill_other"])
    assert {model.attack[0] for model in only if model.attack} == {"weight_prune"}
    assert not any(model.attack for model in plan(families=["distill_other"]))
    assert not any(model.attack for model in plan(negatives=200, suspects=True))
    assert not any(model.attack for model in plan(negatives=95))
    assert any(model.attack for model in plan(negatives=96))


def test_suspects_share_no_seed_strength_or_run_with_the_zoo():
    surrogates, suspects = plan(), plan(suspects=True)
    assert not {model.seed for model in surrogates} & {model.seed for model in suspects}
    assert not {model.run for model in surrogates} & {model.run for model in suspects}
    strengths = {(model.family, model.strength) for model in surrogates if model.is_positive}
    assert not strengths & {(model.family, model.strength) for model in suspects if model.is_positive}
    assert {model.share for model in suspects} == {"test"}
