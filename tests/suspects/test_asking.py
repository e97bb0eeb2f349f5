"""Asking with care: whatever goes wrong, no wrong decision, no answered query asked twice, no row lost."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import numpy as np
import pytest
from faulty_services import FAULTS, SILENT, FaultyService, drawn_faults
from linear_fingerprints import QUERIES, answers, linear_fingerprint, weights

import metav
from metav import Decision
from metav.errors import InputError, QueryLogError, TransportError
from metav.suspects import query_log
from metav.suspects.asking import Pace
from metav.suspects.asking_options import AskingOptions
from metav.suspects.asking_plan import plan_asking
from metav.suspects.log_rows import read_log
from metav.suspects.transports import TransportSuspect

FP = linear_fingerprint()
KINDS = {True: Decision.MATCH, False: Decision.NO_MATCH}
COPY, HONEST = weights(derived=True, seed=700), weights(derived=False, seed=700)


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self) -> None:
        self.time, self.waits = 100.0, []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds

    def now(self) -> float:
        return self.time


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(Pace, "sleep", staticmethod(found.sleep))
    monkeypatch.setattr(Pace, "now", staticmethod(found.now))
    return found


def ask(service: FaultyService, **options):
    return metav.verify(FP, TransportSuspect(service), **{"batch_size": 8, "decoys": 8, "progress": False, **options})


def function(matrix=COPY, *, calls: list | None = None):
    """A callable suspect in this process that counts its calls."""

    def linear(queries):
        if calls is not None:
            calls.append(len(queries))
        return answers(matrix, queries)

    return linear


def own(verdict) -> dict:
    """A verdict without what tells when and how often it was asked."""
    return {name: value for name, value in verdict.to_dict().items() if name != "asking"}


def planned_times(options: AskingOptions) -> Counter:
    plan = plan_asking(FP, options)
    return Counter(plan.inputs[source].tobytes() for source in plan.sources)


# In this process -----------------------------------------------------------------------------------------------------


def test_without_options_nothing_changes_and_a_log_changes_nothing_else(tmp_path):
    plain = metav.verify(FP, function(), accepts="numpy")
    assert plain.asking is None
    calls = []
    logged = metav.verify(FP, function(calls=calls), accepts="numpy", log=tmp_path / "run.db")
    assert own(logged) == own(plain)
    assert calls == [QUERIES, 8]
    assert (logged.asking.answered, logged.asking.shuffled) == (QUERIES + 8, False)


@pytest.mark.parametrize("batch_size", [1, 7, 48, 256])
def test_answers_do_not_depend_on_order_decoys_and_log(tmp_path, batch_size):
    plain = metav.verify(FP, function(), accepts="numpy", batch_size=batch_size)
    careful = metav.verify(
        FP, function(), accepts="numpy", batch_size=batch_size, decoys=10, repeats=5, seed=3, log=tmp_path / "run.db"
    )
    assert (careful.score, careful.p_value, careful.noise) == (plain.score, plain.p_value, plain.noise)
    assert (careful.asking.decoys, careful.asking.repeats, careful.asking.planned) == (10, 5, QUERIES + 15)


def test_a_complete_log_is_a_verdict_without_a_question(tmp_path):
    first = metav.verify(FP, function(), accepts="numpy", log=tmp_path / "run.db", decoys=4)
    calls = []
    again = metav.verify(FP, function(calls=calls), accepts="numpy", log=tmp_path / "run.db", decoys=4)
    assert calls == []
    assert again == first, "to the head of the log"


def test_options_are_one_value_whose_fields_can_be_given_alone(tmp_path):
    options = AskingOptions(decoys=4, seed=9)
    together = metav.verify(FP, function(), accepts="numpy", asking=options, repeats=3)
    alone = metav.verify(FP, function(), accepts="numpy", decoys=4, seed=9, repeats=3)
    assert own(together) == own(alone)
    assert (together.asking.decoys, together.asking.repeats) == (4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoys": 3}, "decoys come in pairs .* even number"),
        ({"decoys": 2, "shuffle": False}, "decoys stand out in a fixed order"),
        ({"money": 1.0}, "without the price"),
        ({"rate": 0.0}, "rate must be a number above 0"),
        ({"budget": 0}, "budget must be a whole number from 1"),
        ({"price": float("nan")}, "price must be a number from 0"),
        ({"log": 7}, "log must be the path of a file"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        AskingOptions(**options)


def test_queries_that_are_to_be_kept_in_no_log_are_refused_before_anything_is_asked():
    calls = []
    with pytest.raises(InputError, match="pass log as well"):
        metav.verify(FP, function(calls=calls), accepts="numpy", keep_queries=True)
    assert calls == []


def test_recorded_answers_are_not_asked(tmp_path):
    with pytest.raises(InputError, match="are there already and are not asked"):
        metav.verify(FP, answers(COPY, FP.queries), log=tmp_path / "run.db")


# Faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("derived", [True, False])
def test_each_fault_alone_changes_nothing(name, derived):
    for place in (0, 3):
        service = FaultyService(weights(derived=derived, seed=700), plan={place: name})
        verdict = ask(service)
        assert verdict.decision is KINDS[derived], (name, place, verdict.message)
        assert verdict.asking.failed == 1
        assert service.seen == planned_times(AskingOptions(batch_size=8, decoys=8, shuffle=True))


@pytest.mark.parametrize("part", range(4))
def test_200_runs_with_faults_give_no_wrong_decision_ask_nothing_twice_and_lose_no_row(tmp_path, part, monkeypatch):
    monkeypatch.setitem(
        query_log.SYNCHRONOUS, True, "OFF"
    )  # no power is cut here, and waiting for a disk proves nothing
    injected = 0
    for seed in range(50 * part, 50 * (part + 1)):
        derived, path = seed % 2 == 0, tmp_path / f"{seed}.db"
        clean = ask(FaultyService(weights(derived=derived, seed=700)), seed=seed)
        service = FaultyService(weights(derived=derived, seed=700), plan=drawn_faults(seed))
        verdict, sessions = ask(service, log=path, attempts=3, seed=seed), 1
        while verdict.decision is Decision.INCONCLUSIVE:
            assert sessions < 20, verdict.message
            verdict, sessions = ask(service, log=path, attempts=3, seed=seed), sessions + 1
        assert own(verdict) == own(clean), seed
        rows = read_log(path)
        assert service.seen == planned_times(AskingOptions(batch_size=8, decoys=8, seed=seed, shuffle=True)), seed
        assert sum(row.event == "answered" for row in rows) == verdict.asking.planned
        assert rows[-1].hash == verdict.asking.head
        assert sum(row.event == "sent" for row in rows) == service.requests
        injected += verdict.asking.failed
    assert injected >= 200


@pytest.mark.parametrize("name", SILENT)
@pytest.mark.parametrize("derived", [True, False])
def test_rows_in_another_order_are_never_a_wrong_decision(name, derived):
    for place in range(9):
        service = FaultyService(weights(derived=derived, seed=700), plan={place: name})
        verdict = ask(service)
        assert verdict.decision is Decision.INCONCLUSIVE, place
        assert verdict.reason in ("changed", "noisy")


@pytest.mark.parametrize("first", [True, False])
def test_a_model_that_changes_halfway_is_inconclusive(first):
    for place in range(2, 9):
        service = FaultyService(weights(derived=first, seed=700), changes=(place, weights(derived=not first, seed=700)))
        verdict = ask(service)
        assert verdict.decision is Decision.INCONCLUSIVE, place
        assert verdict.reason in ("changed", "noisy")


def test_an_expired_token_stops_the_run_which_a_new_one_continues(tmp_path):
    service = FaultyService(COPY, expires=4)
    stopped = ask(service, log=tmp_path / "run.db")
    assert (stopped.decision, stopped.reason) == (Decision.INCONCLUSIVE, "refused")
    assert "the same call goes on from" in stopped.message
    assert stopped.asking.answered == 4 * 8
    service.expires = None
    assert ask(service, log=tmp_path / "run.db").decision is Decision.MATCH
    assert service.seen == planned_times(AskingOptions(batch_size=8, decoys=8, shuffle=True))


def test_the_largest_batch_that_is_taken_is_found_by_halving(tmp_path):
    service = FaultyService(COPY, limit=11)
    verdict = ask(service, batch_size=256, log=tmp_path / "run.db")
    assert verdict.decision is Decision.MATCH
    assert max(size for size in service.sizes if size <= 11) == service.sizes[-2]
    assert [size for size in service.sizes if size > 11] == sorted({s for s in service.sizes if s > 11}, reverse=True)
    assert service.seen == planned_times(AskingOptions(batch_size=256, decoys=8, shuffle=True))


def test_batches_keep_to_what_a_service_says_that_it_takes():
    class Small(FaultyService):
        asked = 0

        @property
        def largest_batch(self):
            self.asked += 1
            if self.asked == 1:
                raise TransportError("unreachable", "not yet", retriable=True)
            return 3

    service = Small(COPY)
    assert ask(service).decision is Decision.MATCH
    assert max(service.sizes) == 3
    broken = Small(COPY)
    broken.asked = -5
    assert ask(broken, attempts=1).decision is Decision.MATCH
    broken.asked = 0
    assert ask(broken, attempts=1).reason == "unreachable"


def test_a_suspect_whose_every_answer_is_unreadable_is_asked_twice_and_no_more():
    service = FaultyService(COPY, plan=dict.fromkeys(range(100), "NaN as text"))
    verdict = ask(service)
    assert (verdict.reason, service.requests) == ("not_numeric", 2)


def test_waits_follow_what_the_service_asks_for(clock):
    ask(FaultyService(COPY, plan={0: "429 with Retry-After", 5: "503"}))
    assert clock.waits == [7.0, 2.0]
    clock.waits.clear()
    ask(FaultyService(COPY, plan=dict.fromkeys(range(4), "500")))
    assert all(later > earlier for earlier, later in itertools.pairwise(clock.waits))


def test_a_service_that_asks_for_a_long_wait_stops_the_run(clock):
    verdict = ask(FaultyService(COPY, plan={2: "429 with Retry-After"}), longest_wait=5.0)
    assert (verdict.decision, clock.waits) == (Decision.INCONCLUSIVE, [])
    assert "asks to wait 7 seconds, the most is 5" in verdict.message


def test_the_rate_holds_over_the_whole_run(clock):
    start = clock.time
    verdict = ask(FaultyService(COPY), rate=4.0)
    # the last batch leaves when the ones before it have had their time
    assert clock.time - start == pytest.approx((verdict.asking.sent - verdict.asking.sent % 8) / 4.0)


# Budget --------------------------------------------------------------------------------------------------------------


def test_a_budget_that_cannot_suffice_sends_nothing():
    service = FaultyService(COPY)
    for options in ({"budget": 60}, {"price": 0.5, "money": 30.0}):
        with pytest.raises(InputError, match=r"60 in all.*nothing was sent"):
            ask(service, **options)
    assert service.requests == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_more_than_the_budget_is_ever_sent(tmp_path, seed):
    service = FaultyService(COPY, plan=dict.fromkeys(range(seed, 200, 2), "500"))
    budget = sum(planned_times(AskingOptions(batch_size=8, decoys=8, shuffle=True)).values()) + 10
    verdict = ask(service, budget=budget, log=tmp_path / "run.db")
    assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "budget")
    assert sum(service.sizes) == verdict.asking.sent <= budget
    with pytest.raises(InputError, match=f"the budget allows {budget} in all"):
        ask(service, budget=budget, log=tmp_path / "run.db")
    assert sum(service.sizes) == verdict.asking.sent, "a second session has no budget of its own"


def test_queries_that_were_refused_cost_nothing():
    planned = sum(planned_times(AskingOptions(batch_size=8, decoys=8, shuffle=True)).values())
    verdict = ask(FaultyService(COPY, plan={0: "429", 4: "503"}), budget=planned, price=0.25)
    assert verdict.decision is Decision.MATCH
    assert (verdict.asking.sent, verdict.asking.cost) == (planned, planned * 0.25)


# Time limits, stopping -----------------------------------------------------------------------------------------------


def test_a_callable_that_hangs_is_left_alone_after_the_timeout():
    def hanging(queries):
        time.sleep(0.05 if len(queries) < QUERIES else 30)
        return answers(COPY, queries)

    verdict = metav.verify(FP, hanging, accepts="numpy", timeout=0.2)
    assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "failed")
    assert "TimeoutError: no answer within 0.2 seconds" in verdict.message


def test_ctrl_c_keeps_everything(tmp_path):
    calls = []

    def interrupted(queries):
        calls.append(len(queries))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return answers(COPY, queries)

    options = {"accepts": "numpy", "batch_size": 8, "log": tmp_path / "run.db"}
    with pytest.raises(KeyboardInterrupt):
        metav.verify(FP, interrupted, **options)
    assert len([row for row in read_log(tmp_path / "run.db") if row.event == "answered"]) == 24
    verdict = metav.verify(FP, interrupted, **options)
    assert sum(calls) == verdict.asking.planned + 8, "but for the batch that was interrupted"
    assert own(verdict) == own(metav.verify(FP, function(), accepts="numpy", batch_size=8)) | {
        "suspect": verdict.suspect
    }


# Steadiness ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("honest", [True, False])
def test_a_suspect_that_treats_the_queries_apart_is_noticed(honest):
    """It answers inputs it knows with one model, everything else with another."""
    known = {row.tobytes() for row in FP.queries}
    inside, outside = (HONEST, COPY) if honest else (COPY, HONEST)

    def evading(queries):
        apart = np.array([row.tobytes() in known for row in np.asarray(queries, np.float32)])
        return np.where(apart[:, None], answers(inside, queries), answers(outside, queries))

    verdict = metav.verify(FP, evading, accepts="numpy", decoys=20)
    assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "treated_apart")
    assert "of 10 cases" in verdict.message
    assert metav.verify(FP, evading, accepts="numpy").reason is None, "without decoys it gets through"


@pytest.mark.parametrize("seed", range(20))
def test_suspects_that_hold_still_are_judged_as_ever(seed):
    random = np.random.default_rng(seed)
    matrix = weights(derived=seed % 2 == 0, seed=700)

    def noisy(queries):
        rows = answers(matrix, queries)
        return rows + random.normal(scale=0.003, size=rows.shape).astype(np.float32)

    verdict = metav.verify(FP, noisy, accepts="numpy", decoys=20, seed=seed, batch_size=8)
    assert verdict.decision is KINDS[seed % 2 == 0], verdict.message
    assert verdict.noise > 0


# One log, one run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"seed": 1}, "plan"), ({"decoys": 6}, "plan"), ({"repeats": 3}, "plan")],
)
def test_a_log_of_another_run_is_refused(tmp_path, changes, named):
    ask(FaultyService(COPY), log=tmp_path / "run.db")
    with pytest.raises(QueryLogError, match=rf"log of another run \(it differs in {named}\)"):
        ask(FaultyService(COPY), log=tmp_path / "run.db", **changes)


def test_a_log_of_another_model_of_the_same_class_is_refused(tmp_path):
    from torch import nn

    models = [nn.Linear(4, 3), nn.Linear(4, 3)]
    metav.verify(FP, models[0], log=tmp_path / "run.db")
    with pytest.raises(QueryLogError, match="identity"):
        metav.verify(FP, models[1], log=tmp_path / "run.db")


def test_credentials_never_reach_the_log(tmp_path):
    service = FaultyService(COPY, plan={0: "500"})
    service.description = "model at https://user:hunter2@host/path?key=hunter2"
    service.configuration = {"headers": {"authorization": "Bearer hunter2"}, "url": "https://host"}
    ask(service, log=tmp_path / "run.db")

    def failing(queries):
        raise ConnectionError("401 for https://host?key=hunter2")

    metav.verify(FP, failing, accepts="numpy", log=tmp_path / "other.db")
    for name in ("run.db", "other.db"):
        assert b"hunter2" not in (tmp_path / name).read_bytes()


def test_queries_are_stored_only_where_that_is_asked_for(tmp_path):
    for keep in (True, False):
        path = tmp_path / f"{keep}.db"
        metav.verify(FP, function(), accepts="numpy", log=path, keep_queries=keep)
        content = path.read_bytes()
        assert all((row.tobytes() in content) is keep for row in FP.queries[:5])
        assert path.stat().st_mode & 0o077 == 0
