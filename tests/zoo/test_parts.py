"""A zoo trained in parts is the zoo that is trained in one go."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from small_trainings import TINY, by_hand, task

import metav
from metav.zoo.folder_format import PLAN_FILE, zoo_state
from metav.zoo.parts import Part, check_complete, train_part
from metav.zoo.plan import KINDRED

SIZES = {name: TINY[name] for name in ("positives", "negatives", "families", "jobs", "progress")}
TOLD = {**SIZES, "recipe": by_hand}


@pytest.fixture(scope="module")
def owner():
    return by_hand(3).eval()


def test_parts_together_are_the_whole_zoo(tmp_path, owner):
    folders = [tmp_path / name for name in ("one", "two")]
    states = [train_part(owner, task(), Part(number, 2), folder=folders[number - 1], **TOLD) for number in (2, 1)]
    assert [state.trained for state in states] == [5, 5]
    assert {state.planned for state in states} == {10}
    assert json.loads(states[0].to_json()) == {"planned": 10, "trained": 5, "missing": [*states[0].missing]}
    assert not set(states[0].missing) & set(states[1].missing)
    with pytest.raises(metav.ZooError, match=r"holds 5 of 10 models, .* is missing; train the other parts"):
        check_complete(owner, task(), folder=folders[0], **TOLD)
    for path in folders[1].iterdir():
        shutil.copy(path, folders[0])
    assert zoo_state(folders[0]).missing == ()
    check_complete(owner, task(), folder=folders[0], **TOLD)
    before = {path.name: path.stat().st_mtime_ns for path in folders[0].iterdir()}
    whole = metav.build_zoo(owner, task(), **TOLD)
    collected = metav.build_zoo(owner, task(), cache=folders[0], **TOLD)
    assert {path.name: path.stat().st_mtime_ns for path in folders[0].iterdir()} == before, "nothing is trained again"
    for one, other in zip(whole, collected, strict=True):
        assert (one.run, one.share, one.metric) == (other.run, other.share, other.metric)
        for name, value in one.model.state_dict().items():
            assert torch.equal(value, other.model.state_dict()[name])
    assert collected.standing.to_dict() == whole.standing.to_dict()


def test_a_part_that_was_stopped_goes_on_where_it_was(tmp_path, owner):
    calls = []

    class Recipe:
        not_in_identity = ("fails_after",)
        fails_after = 2

        def __call__(self, seed):
            if len(calls) == self.fails_after:
                raise KeyboardInterrupt
            calls.append(seed)
            return by_hand(seed)

    Recipe.identity_name = "stopped recipe"
    with pytest.raises(KeyboardInterrupt):
        train_part(owner, task(), Part(1, 1), folder=tmp_path, **SIZES, recipe=Recipe())
    assert zoo_state(tmp_path).trained == 2
    Recipe.fails_after = None
    assert train_part(owner, task(), Part(1, 1), folder=tmp_path, **SIZES, recipe=Recipe()).missing == ()
    assert len(set(calls)) == len(calls)


@pytest.mark.parametrize("trains_in", [torch.float32, torch.float64])
def test_the_default_dtype_of_whoever_asks_does_not_matter(tmp_path, owner, default_dtype, trains_in):
    default_dtype(trains_in)
    train_part(owner, task(), Part(1, 1), folder=tmp_path, **TOLD)
    default_dtype(torch.float64 if trains_in == torch.float32 else torch.float32)
    check_complete(owner, task(), folder=tmp_path, **TOLD)


@pytest.fixture
def default_dtype():
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def test_warnings_name_the_line_of_whoever_asks(tmp_path):
    def fails(seed):
        raise ZeroDivisionError

    constant = by_hand(3, 1)
    for entry in constant.parameters():
        torch.nn.init.zeros_(entry)
    calls = [
        lambda: train_part(constant, task(), Part(11, 11), folder=tmp_path, **TOLD),
        lambda: check_complete(constant, task(), folder=tmp_path, **TOLD),
        lambda: metav.fingerprint(constant, task(), recipe=fails, jobs=1, progress=False),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match="no better than a constant answer") as caught, suppress(metav.MetavError):
            call()
        (warning,) = [entry for entry in caught if "no better than" in str(entry.message)]
        assert warning.filename == __file__


def one_layer():
    return torch.nn.Linear(6, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negatives": 8}, "10 models of other families, numbers or seed instead of 12"),
        ({"seed": 1}, "10 models of other families, numbers or seed instead of 10"),
        ({"architectures": [one_layer]}, "models made from another owner, data, recipe or architectures"),
        ({"recipe": lambda seed: by_hand(seed, 2)}, "4 of 10 models made from another owner, data, recipe"),
    ],
)
def test_parts_of_different_zoos_are_not_mixed(tmp_path, owner, changes, message):
    (tmp_path / PLAN_FILE).write_text(json.dumps({"models": planned(tmp_path / "first", owner)}))
    for call in (
        lambda options: train_part(owner, task(), Part(1, 2), folder=tmp_path, **options),
        lambda options: check_complete(owner, task(), folder=tmp_path, **options),
    ):
        with pytest.raises(metav.ZooError, match=message):
            call({**TOLD, **changes})
    assert not list(tmp_path.glob("*.safetensors"))


def planned(folder, owner):
    """What a folder is to hold, by a part that has nothing to train."""
    train_part(owner, task(), Part(11, 11), folder=folder, **TOLD)
    return json.loads((folder / PLAN_FILE).read_text())["models"]


def test_recipes_that_follow_from_trained_models_have_no_parts(tmp_path, owner):
    with pytest.raises(metav.ZooError, match="tell the recipe"):
        train_part(owner, task(), Part(1, 2), folder=tmp_path, **{**SIZES, "negatives": 40})
    assert train_part(owner, task(), Part(1, 10), folder=tmp_path, **SIZES).trained == 1


def test_what_cannot_be_kept_is_refused(tmp_path, owner):
    import threading

    lock = threading.Lock()

    def locked(seed):
        with lock:
            return by_hand(seed)

    with (
        pytest.warns(UserWarning, match="cannot be seen") as caught,
        pytest.raises(metav.ZooError, match="cannot be kept"),
    ):
        train_part(owner, task(), Part(1, 1), folder=tmp_path, **SIZES, recipe=locked)
    assert {entry.filename for entry in caught} == {__file__}


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1 /2"])
def test_other_texts_are_no_parts(text):
    with pytest.raises(metav.InputError, match="a part must be i/n"):
        Part.read(text)


def test_parts_share_a_plan_among_them():
    plan = [SimpleNamespace(number=number, family=KINDRED if number % 3 else "other") for number in range(23)]
    for of in (1, 2, 5, 23, 30):
        parts = [Part.read(f"{number}/{of}").of_plan(plan) for number in range(1, of + 1)]
        assert sorted(entry.number for part in parts for entry in part) == list(range(23))
        for sizes in ([len(part) for part in parts], [sum(e.family == KINDRED for e in part) for part in parts]):
            assert max(sizes) - min(sizes) <= 1


def test_a_folder_without_a_plan_or_with_a_broken_one_is_named(tmp_path):
    with pytest.raises(metav.ZooError, match="run metav zoo train"):
        zoo_state(tmp_path)
    (tmp_path / PLAN_FILE).write_text('{"models": 3}')
    with pytest.raises(metav.ZooError, match=r"cannot be read .* delete it"):
        zoo_state(tmp_path)
