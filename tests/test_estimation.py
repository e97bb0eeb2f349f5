"""What a fingerprint is said to cost: the numbers of the real one, a time of its order, and nothing that changes."""

from __future__ import annotations

import json
import time
import warnings

import numpy as np
import pytest
from small_fingerprints import small_owner, small_task, state_of
from small_models import HeadFirst

import metav
from metav.estimation import estimate
from metav.support.randomness import isolated_rng
from metav.zoo import timing
from metav.zoo.cache_folder import read_cache_folder
from metav.zoo.workers import STARTING_SECONDS

SIZES = {"positives": 14, "negatives": 14}


def recipe_of(calls: list[int]):
    def recipe(seed: int):
        calls.append(seed)
        with isolated_rng(seed):
            model = HeadFirst(64, 10)
        return small_task().train(model, seed=seed)

    return recipe


@pytest.fixture(scope="module")
def told() -> metav.Estimate:
    return estimate(small_owner(), small_task(), queries=20, jobs=1, **SIZES)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The zoo and the fingerprint that were told of, with the seconds that they took."""
    folder = tmp_path_factory.mktemp("made")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        begun = time.perf_counter()
        zoo = metav.build_zoo(small_owner(), small_task(), cache=folder / "zoo", jobs=1, **SIZES)
        middle = time.perf_counter()
        fp = metav.fingerprint(small_owner(), small_task(), zoo=zoo, queries=20)
    fp.save(folder / "owner.metav")
    return folder, zoo, fp, (middle - begun, time.perf_counter() - middle)


def test_the_numbers_of_models_are_those_of_the_real_zoo(told, made):
    _, zoo, fp, _ = made
    assert (told.positives, told.negatives) == (fp.zoo["positives"], fp.zoo["negatives"]) == (14, 14)
    assert 0 < len(zoo) - 28 <= told.snapshots, "short trainings have fewer"
    assert (told.queries, told.jobs, told.cached, told.recipe) == (20, 1, 0, "drawn")


def test_sizes_on_disk_are_those_of_the_real_files(told, made):
    folder, *_ = made
    least, most = told.artefact_bytes
    assert least <= (folder / "owner.metav").stat().st_size <= most
    cache = read_cache_folder(folder / "zoo")
    heads = 1024 * len(cache.runs)
    assert 0.4 * told.cache_bytes < cache.size < told.cache_bytes + heads


def test_every_family_is_measured_or_named_as_assumed(told, made):
    _, zoo, *_ = made
    assert {*told.measured} | {*told.assumed} == {entry.family for entry in zoo}
    assert not {*told.measured} & {*told.assumed}
    assert all(seconds > 0 for seconds in told.measured.values())


def test_without_a_budget_only_one_family_is_measured():
    told = estimate(small_owner(), small_task(), queries=20, jobs=1, budget=0.0, **SIZES)
    assert len(told.measured) == 1
    assert len(told.assumed) > 10
    assert told.zoo > 0
    assert "are taken to need as long per epoch" in str(told)


def test_nothing_is_written_and_nothing_changes(tmp_path, monkeypatch, untouched_rng):
    monkeypatch.chdir(tmp_path)
    before = state_of(small_owner())
    estimate(small_owner(), small_task(), queries=20, jobs=1, cache=tmp_path / "zoo", budget=0.0, **SIZES)
    assert state_of(small_owner()) == before
    assert list(tmp_path.iterdir()) == []


def test_what_is_cached_is_not_trained_again(made):
    folder, *_ = made
    told = estimate(small_owner(), small_task(), queries=20, jobs=1, cache=folder / "zoo", **SIZES)
    assert told.cached == 28
    assert told.measured == {}
    more = estimate(
        small_owner(), small_task(), queries=20, jobs=1, cache=folder / "zoo", positives=28, negatives=14, budget=0.0
    )
    assert (more.cached, more.positives) == (28, 28)
    other = metav.obfuscations.weight_noise(small_owner(), small_task(), strength=0.5, seed=0)
    assert estimate(other, small_task(), queries=20, jobs=1, cache=folder / "zoo", budget=0.0, **SIZES).cached == 0


def test_where_all_is_cached_no_process_is_started_however_many_may_be(made):
    folder, *_ = made
    told = estimate(small_owner(), small_task(), queries=20, jobs=4, cache=folder / "zoo", **SIZES)
    assert (told.cached, told.jobs) == (28, 1)
    assert told.zoo < STARTING_SECONDS
    assert "in 1 process" in str(told)


def test_a_told_recipe_is_run_once_and_first():
    calls: list[int] = []
    said: list[str] = []
    found = estimate(small_owner(), small_task(), recipe=recipe_of(calls), jobs=1, budget=0.0, say=said.append, **SIZES)
    assert found.recipe == "told"
    assert [*found.measured] == ["independent_same_recipe"]
    assert said[0] == "independent_same_recipe"
    assert len({*calls}) == 1


def test_several_processes_share_the_training(told, monkeypatch):
    monkeypatch.setattr("metav.estimation.STARTING_SECONDS", 0.0)
    monkeypatch.setattr(
        "metav.estimation.measure_zoo", lambda *_, **__: timing.ZooSeconds(total=40.0, measured={}, assumed=())
    )
    one, four = (estimate(small_owner(), small_task(), queries=20, jobs=jobs, **SIZES) for jobs in (1, 4))
    assert four.jobs == 4
    assert one.zoo - four.zoo == pytest.approx(30.0, abs=5.0)


def test_the_result_is_plain_and_says_where_it_comes_from(told):
    found = json.loads(told.to_json())
    assert found["seconds"] == pytest.approx(found["zoo"] + found["optimise"] + found["verifiers"] + found["calibrate"])
    assert found["measured"] == pytest.approx(dict(told.measured))
    text = str(told)
    assert "14 derived and 14 independent surrogates" in text
    assert "of measuring here" in text
    assert "drawn recipes may turn out longer or shorter" in text


def test_wrong_arguments_are_refused_as_by_fingerprint():
    with pytest.raises(metav.ZooError, match="positives"):
        estimate(small_owner(), small_task(), positives=0)
    with pytest.raises(metav.ModelError, match=r"torch\.nn\.Module"):
        estimate("owner", small_task())
    with pytest.raises(metav.InputError, match="different natural inputs"):
        estimate(small_owner(), small_task(), queries=5000)


# How a training is timed -----------------------------------------------------------------------------------------


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return clock


def test_a_long_training_is_stopped_and_extrapolated_without_its_first_epoch(clock):
    watch = timing._Stopwatch(limit=3.0)
    clock.now = 50.0  # PyTorch makes itself ready
    watch(0.1, None)
    clock.now = 52.0
    with pytest.raises(timing.EnoughError) as stopped:
        watch(0.2, None)
    assert stopped.value.seconds == pytest.approx(20.0)


def test_a_short_training_runs_to_its_end(clock):
    watch = timing._Stopwatch(limit=3.0)
    for share in np.linspace(0.1, 1.0, 10):
        clock.now += 0.2
        watch(share, None)


def test_no_code_that_catches_errors_swallows_the_stop():
    assert not issubclass(timing.EnoughError, Exception)
