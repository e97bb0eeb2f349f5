"""The gate of a release: recognised as its owner's, as nobody else's, and what is neither."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from linear_fingerprints import OTHER_OWNER_SEED, OWNER_SEED, QUERY_ARRAY, answers, linear_fingerprint, weights
from small_fingerprints import make_fingerprint, small_fingerprint, small_owner, small_task, small_zoo

import metav
from metav.models.running import copied
from metav.obfuscations import quantize, weight_prune

OWN, OTHER = linear_fingerprint(), linear_fingerprint(owner=OTHER_OWNER_SEED)


def model(owner: int | None, seed: int = 200):
    """A linear model derived from an owner's, or trained by nobody (None)."""
    matrix = weights(derived=owner is not None, seed=seed, owner=owner or OWNER_SEED)
    return functools.partial(answers, matrix)


@pytest.mark.parametrize(
    ("owner", "outcome", "outcomes"),
    [
        (OWNER_SEED, "passed", ["passed", "passed"]),
        (OTHER_OWNER_SEED, "failed", ["failed", "failed"]),
        (None, "failed", ["failed", "passed"]),
    ],
    ids=["own", "another owner's", "nobody's"],
)
def test_it_passes_for_the_owners_release_and_fails_for_models_of_others(owner, outcome, outcomes):
    gate = metav.check_release(OWN, model(owner), against=[OTHER])
    assert gate.outcome == outcome
    assert [check.outcome for check in gate.checks] == outcomes
    assert [check.is_owner for check in gate.checks] == [True, False]
    assert [check.verdict.commitment for check in gate.checks] == [OWN.commitment, OTHER.commitment]


@pytest.mark.parametrize("obfuscate", [weight_prune, quantize])
def test_a_pruned_or_quantised_release_of_a_real_network_passes(obfuscate):
    release = obfuscate(small_owner(), small_task(), strength=0.3, seed=5)
    assert metav.check_release(small_fingerprint(), release).outcome == "passed"


def test_a_real_network_that_is_not_the_owners_fails():
    independent = next(entry.model for entry in small_zoo().negatives if entry.family == "independent_same_data")
    gate = metav.check_release(small_fingerprint(), copied(independent))
    assert gate.outcome == "failed"
    assert gate.checks[0].verdict.decision == "NO_MATCH"


def test_it_is_the_verdicts_of_verify_and_nothing_else():
    release = model(OWNER_SEED)
    gate = metav.check_release(OWN, release, against=[OTHER], batch_size=16)
    alone = [metav.verify(fp, release, batch_size=16) for fp in (OWN, OTHER)]
    assert [check.verdict for check in gate.checks] == alone


def test_a_check_that_tells_nothing_is_inconclusive_and_a_failed_one_outweighs_it():
    other_inputs = small_fingerprint()
    assert metav.check_release(OWN, model(OWNER_SEED), against=[other_inputs]).outcome == "inconclusive"
    assert metav.check_release(OWN, model(OTHER_OWNER_SEED), against=[other_inputs]).outcome == "failed"


def test_recorded_answers_are_those_to_one_fingerprints_queries():
    ask = model(OWNER_SEED)
    recorded = ask(QUERY_ARRAY)
    assert metav.check_release(OWN, recorded, against=[(OTHER, ask(OTHER.queries))]).outcome == "passed"
    with pytest.raises(metav.InputError, match="belong to the queries of one fingerprint"):
        metav.check_release(OWN, recorded, against=[OTHER])


def test_the_owners_fingerprint_cannot_be_somebody_elses_too(tmp_path):
    OWN.save(tmp_path / "again.metav")
    with pytest.raises(metav.InputError, match=r"again\.metav is the same fingerprint as"):
        metav.check_release(OWN, model(OWNER_SEED), against=[tmp_path / "again.metav"])
    with pytest.raises(metav.InputError, match="is the same fingerprint as"):
        metav.check_release(OWN, model(OWNER_SEED), against=[OTHER, OTHER])


def test_each_fingerprint_has_a_log_of_its_own_that_is_gone_on_from(tmp_path):
    asked = []

    def ask(queries):
        asked.append(len(queries))
        return model(OWNER_SEED)(queries)

    with pytest.raises(metav.InputError, match="one log is of one fingerprint"):
        metav.check_release(OWN, ask, against=[OTHER], log=tmp_path / "run.db")
    first = metav.check_release(OWN, ask, against=[OTHER], logs=tmp_path / "logs")
    assert len(list((tmp_path / "logs").glob("*.db"))) == 2
    asked.clear()
    again = metav.check_release(OWN, ask, against=[OTHER], logs=tmp_path / "logs")
    assert asked == []
    assert [check.verdict.score for check in again.checks] == [check.verdict.score for check in first.checks]


def test_the_logs_of_a_gate_hold_queries_where_that_is_asked_for(tmp_path):
    release = metav.suspects.CallableSuspect(model(OWNER_SEED), accepts="numpy")
    with pytest.raises(metav.InputError, match=r"pass logs, a folder .*, as well"):
        metav.check_release(OWN, release, against=[OTHER], keep_queries=True)
    metav.check_release(OWN, release, against=[OTHER], keep_queries=True, logs=tmp_path / "logs")
    kept = [path.read_bytes() for path in (tmp_path / "logs").iterdir()]
    assert [OWN.queries[0].tobytes() in content for content in kept] == [True, True]


def test_the_result_is_frozen_plain_and_no_truth_value():
    gate = metav.check_release(OWN, model(OWNER_SEED), against=[OTHER])
    found = json.loads(gate.to_json())
    assert (found["outcome"], [check["expected"] for check in found["checks"]]) == ("passed", ["MATCH", "NO_MATCH"])
    assert found["checks"][0]["verdict"] == gate.checks[0].verdict.to_dict()
    with pytest.raises(AttributeError):
        gate.release = "another"
    for value in (gate, gate.outcome):
        with pytest.raises(metav.InputError, match="always holds"):
            bool(value)


def test_with_several_others_it_says_how_often_one_is_matched_by_chance():
    third = make_fingerprint(target_fpr=0.1)
    gate = metav.check_release(OWN, model(OWNER_SEED), against=[OTHER, third])
    assert gate.false_alarms == pytest.approx(0.05 + 0.1)
    assert "up to 15 % of releases" in str(gate)
    assert "by chance" not in str(metav.check_release(OWN, model(OWNER_SEED), against=[OTHER]))


def test_names_of_releases_and_fingerprints_stay_on_one_line(tmp_path):
    hostile = tmp_path / "<b>a\nb\x1b[31m.metav"
    OTHER.save(hostile)
    gate = metav.check_release(OWN, model(OWNER_SEED), against=[hostile])
    assert len(str(gate).splitlines()) == 3
    assert "\x1b" not in str(gate)
    html = gate._repr_html_()
    assert "&lt;b&gt;a b" in html
    assert "<b>a" not in html


def test_answers_that_change_nothing_are_not_kept_between_checks():
    """A suspect that writes into its queries spoils neither fingerprint."""

    def greedy(queries):
        found = model(OWNER_SEED)(queries)
        queries[:] = np.nan
        return found

    assert metav.check_release(OWN, greedy, against=[OTHER]).outcome == "passed"
