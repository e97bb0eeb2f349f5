"""Which of the candidates have a say in the meta-verifier."""

from __future__ import annotations

import pytest

from metav import _core
from metav.errors import ZooError
from metav.optimization.candidates import Candidate, select_members
from metav.verifiers.meta_verifier import Member


def candidate(auc, separation, kind="mlp"):
    member = Member(
        name=f"{kind}:all",
        verifier=_core.Verifier(kind, 2, 2),
        start=0,
        stop=2,
        weight=1.0,
        center=0.0,
        spread=1.0,
    )
    return Candidate(member=member, auc=auc, separation=separation)


def test_a_candidate_that_separates_worse_has_no_say():
    chosen = select_members([candidate(1.0, 4.0), candidate(1.0, 1.0, "local"), candidate(0.9, 4.0, "matched")])
    assert [(member.verifier.kind, member.weight) for member in chosen.members] == [("mlp", 1.0)]


def test_equal_candidates_share_the_weight():
    chosen = select_members([candidate(1.0, 9.0), candidate(1.0, 12.0)])
    assert [member.weight for member in chosen.members] == [0.5, 0.5]


def test_other_kinds_count_only_where_no_mlp_comes_close():
    others = [candidate(1.0, 9.0, "local"), candidate(1.0, 9.0, "matched")]
    assert [member.verifier.kind for member in select_members([candidate(0.99, 3.0), *others]).members] == ["mlp"]
    chosen = select_members([candidate(0.9, 9.0), *others])
    assert [member.verifier.kind for member in chosen.members] == ["local", "matched"]


def test_candidates_that_separate_nothing_are_refused():
    with pytest.raises(ZooError, match="no verifier tells derived from independent models"):
        select_members([candidate(0.4, -1.0)])
