"""Which of the candidates have a say in the meta-verifier."""

from __future__ import annotations

import pytest

from metav import _core
from metav.errors import ZooError
from metav.optimization.candidates import LABELS_ALONE, LABELS_WEIGHT, Candidate, select_members
from metav.verifiers.meta_verifier import Member


def candidate(auc, separation, kind="mlp", name=None):
    member = Member(
        name=name or f"{kind}:all",
        verifier=_core.Verifier(kind, 2, 2),
        start=0,
        stop=2,
        weight=1.0,
        center=0.0,
        spread=1.0,
    )
    return Candidate(member=member, auc=auc, separation=separation)


def weights(candidates):
    return [(member.verifier.kind, member.weight) for member in select_members(candidates).members]


def test_a_candidate_that_separates_worse_has_no_say():
    others = [candidate(1.0, 1.0, "local"), candidate(0.9, 4.0, "local")]
    assert weights([candidate(1.0, 4.0), *others]) == [("mlp", 1.0)]
    assert weights([candidate(1.0, 4.0), candidate(1.0, 1.0), candidate(0.9, 4.0)]) == [("mlp", 1.0)]
    # a closed form has to beat other closed forms only
    assert weights([candidate(1.0, 4.0), candidate(0.9, 4.0, "matched"), candidate(0.7, 4.0, "matched")]) == [
        ("mlp", 0.5),
        ("matched", 0.5),
    ]


@pytest.mark.parametrize("separation", [0.5, 2.0, 50.0])
@pytest.mark.parametrize("auc", [0.6, 0.9, 1.0])
def test_closed_forms_have_half_of_the_weight_however_well_they_separate(auc, separation):
    """They are not misled by what the zoo lacks, which the selection share does not show."""
    found = weights([candidate(1.0, 4.0), candidate(1.0, 4.0), candidate(auc, separation, "matched")])
    assert found == [("mlp", 0.25), ("mlp", 0.25), ("matched", 0.5)]


def test_one_half_alone_has_the_whole_weight():
    assert weights([candidate(1.0, 4.0), candidate(0.5, -1.0, "matched")]) == [("mlp", 1.0)]
    assert weights([candidate(0.5, -1.0), candidate(0.9, 1.0, "matched")]) == [("matched", 1.0)]
    assert weights([candidate(0.9, 1.0, "matched")]) == [("matched", 1.0)]


def test_within_a_half_weights_are_the_squares_of_the_separations():
    chosen = [candidate(1.0, 4.0), candidate(1.0, 3.6), candidate(0.9, 2.0, "matched"), candidate(0.9, 1.9, "matched")]
    (_, first), (_, second), (_, third), (_, fourth) = weights(chosen)
    assert first / second == pytest.approx((4.0 / 3.6) ** 2)
    assert third / fourth == pytest.approx((2.0 / 1.9) ** 2)
    assert first + second == pytest.approx(0.5)
    assert third + fourth == pytest.approx(0.5)


def test_equal_candidates_share_the_weight():
    chosen = select_members([candidate(1.0, 9.0), candidate(1.0, 12.0)])
    assert [member.weight for member in chosen.members] == [0.5, 0.5]


def test_other_kinds_that_learn_by_steps_count_only_where_no_mlp_comes_close():
    others = [candidate(1.0, 9.0, "local"), candidate(1.0, 9.0, "matched")]
    assert weights([candidate(0.99, 3.0), *others]) == [("mlp", 0.5), ("matched", 0.5)]
    assert weights([candidate(0.9, 9.0), *others]) == [("local", 0.5), ("matched", 0.5)]


@pytest.mark.parametrize("separation", [0.5, 2.0, 50.0])
def test_one_that_reads_labels_comes_on_top_in_units_of_a_deviation(separation):
    labels = candidate(0.9, separation, name=LABELS_ALONE)
    found = weights([candidate(1.0, 4.0), candidate(0.9, 3.0, "matched"), labels])
    gain = LABELS_WEIGHT * min(separation, 5.0) / 4.0
    assert [weight for _, weight in found] == pytest.approx([0.5 / (1 + gain), 0.5 / (1 + gain), gain / (1 + gain)])
    assert weights([candidate(0.4, -1.0), labels]) == [("mlp", 1.0)]
    assert weights([candidate(1.0, 4.0), candidate(0.4, -1.0, name=LABELS_ALONE)]) == [("mlp", 1.0)]


def test_candidates_that_separate_nothing_are_refused():
    with pytest.raises(ZooError, match="no verifier tells derived from independent models"):
        select_members([candidate(0.4, -1.0)])
