"""The fingerprint as a value: what fits together, how it scores, what it shows of itself."""

from __future__ import annotations

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from small_fingerprints import OUTPUTS, QUERIES, handmade, handmade_of_places, handmade_task, member, numbers, rule

from metav.errors import InputError
from metav.fingerprints.fingerprint import derive_salt, load
from metav.verifiers.meta_verifier import MetaVerifier
from metav.verifiers.places import Places


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": np.zeros((0, 2, 2))}, r"queries must have shape \(N, 2, 2\), N >= 1, got \(0, 2, 2\)"),
        ({"queries": np.zeros((6, 3))}, r"got \(6, 3\)"),
        ({"queries": np.full((6, 2, 2), np.inf)}, "queries must be finite"),
        ({"adaptive": -1}, "adaptive must be a whole number"),
        ({"adaptive": True}, "adaptive must be a whole number"),
        ({"salt": "pepper"}, "salt must be 64 hexadecimal digits, got 'pepper'; use derive_salt"),
        ({"seed": "1"}, "seed must be a whole number"),
        ({"meta_verifier": MetaVerifier((member("mlp", 0, 7),))}, "reads the queries 0 to 7"),
        ({"meta_verifier": MetaVerifier((member("mlp", 0, 6, spread=float("nan")),))}, "expected finite"),
        ({"zoo": {"model": object()}}, "cannot be written as JSON"),
        ({"calibration": rule(negatives=np.array([1.0, 0.0]))}, "non-empty sorted list"),
    ],
)
def test_parts_that_do_not_fit_make_no_fingerprint(change, message):
    with pytest.raises(InputError, match=message):
        handmade(**change)


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        (
            np.zeros((QUERIES, OUTPUTS)),
            r"responses must have shape \(models, 6, 3\) of at least one model, got \(6, 3\)",
        ),
        (np.zeros((2, QUERIES, 4)), r"got \(2, 6, 4\)"),
        (np.zeros((2, 5, OUTPUTS)), r"got \(2, 5, 3\)"),
        (np.zeros((0, QUERIES, OUTPUTS)), r"got \(0, 6, 3\)"),
        (np.full((1, QUERIES, OUTPUTS), np.nan), "responses must be finite"),
    ],
)
def test_responses_that_do_not_fit_are_refused(responses, message):
    with pytest.raises(InputError, match=message):
        handmade().scores(responses)


def test_a_score_does_not_depend_on_the_models_beside_it():
    fp, responses = handmade(), numbers(8, QUERIES, OUTPUTS, seed=5)
    together = fp.scores(responses)
    assert together.tolist() == [float(fp.scores(one[None])[0]) for one in responses]


def test_a_fingerprint_scores_in_many_threads_at_once():
    fp = handmade()
    many = np.tile(numbers(8, QUERIES, OUTPUTS, seed=5), (500, 1, 1))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: fp.scores(many).tobytes(), range(40)))
    assert set(found) == {fp.scores(many).tobytes()}


def test_copies_score_the_same_and_have_the_same_commitment():
    fp, responses = handmade(), numbers(8, QUERIES, OUTPUTS, seed=5)
    for other in (copy.deepcopy(fp), pickle.loads(pickle.dumps(fp))):
        assert other.commitment == fp.commitment
        assert other.scores(responses).tobytes() == fp.scores(responses).tobytes()


def test_scores_are_the_weighted_members_through_the_logistic_rule():
    fp, responses = handmade(calibration=rule()), numbers(8, QUERIES, OUTPUTS, seed=5)
    logits = np.zeros(8)
    for part in fp.meta_verifier.members:
        raw = part.verifier.logits(np.ascontiguousarray(responses[:, part.start : part.stop]))
        logits += part.weight * (raw.astype(np.float64) - 0.25) / 2.0
    assert fp.logits(responses) == pytest.approx(logits, rel=1e-12)
    assert fp.scores(responses) == pytest.approx(1 / (1 + np.exp(-2.0 * (logits - 0.5))), rel=1e-12)


def test_the_summary_is_json_and_holds_neither_queries_nor_salt():
    fp = handmade()
    summary = json.loads(fp.to_json())
    assert summary == fp.to_dict()
    assert summary["queries"] == QUERIES
    assert summary["commitment"] == fp.commitment
    assert "salt" not in summary
    assert summary["calibration"]["false_positives"]["total"] == 50


def test_what_json_lacks_becomes_none():
    fp = handmade(zoo={"owner_metric": float("nan"), "count": np.int64(3), "rates": np.array([0.5, np.inf])})
    assert fp.zoo == {"owner_metric": None, "count": 3, "rates": [0.5, None]}


def test_the_card_escapes_names():
    fp = handmade(task=handmade_task(name="<script>alert(1)</script>"))
    assert "<script>" not in fp._repr_html_()
    assert fp.commitment in fp._repr_html_()
    assert fp.commitment[:12] in repr(fp)
    assert "6 queries of shape (2, 2), 4 of them adaptive" in repr(fp)


def test_places_names_and_the_name_of_the_output_are_kept_in_the_file(tmp_path):
    fp = handmade_of_places()
    fp.save(tmp_path / "a.metav")
    loaded = load(tmp_path / "a.metav")
    assert loaded.task == fp.task
    assert loaded.commitment == fp.commitment
    assert loaded.to_dict()["task"]["class_names"] == ["sea", "land", "ice"]
    assert pickle.loads(pickle.dumps(fp)).task == fp.task
    assert "places" not in handmade().to_dict()["task"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "classification", "view": "tempered", "places": Places(classes=3, shape=(4,), chosen=(2,))},
            "no places",
        ),
        ({"name": "segmentation", "places": Places(classes=2, shape=(4,), chosen=(2,))}, "places must hold 3 numbers"),
        ({"class_names": ("a", "b")}, "class_names must name 3 classes, got 2"),
        ({"class_names": ("a", "b", "a")}, "class_names must be different texts"),
        ({"class_names": (1, 2, 3)}, "class_names must be different texts"),
        ({"output_name": 3}, "different texts"),
    ],
)
def test_names_and_places_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        handmade_task(**{"name": "classification", **changes})


@pytest.mark.parametrize(
    "truth", [np.array([0, 2]), np.array([[0], [3]]), np.array([[0.5], [1.0]]), np.zeros((2, 2), int)]
)
def test_truth_of_other_places_is_refused(truth):
    with pytest.raises(InputError, match="truth must hold classes of 1 places per query"):
        replace(handmade_of_places(), truth=np.array(truth))


def test_salts_follow_seed_and_owner():
    salts = {derive_salt(seed, owner) for seed in (0, 1, 11) for owner in ("a", "1a", "b")}
    assert len(salts) == 9
    assert derive_salt(0, "a") == derive_salt(0, "a")
