"""What a cache folder is said to hold, and that nothing but metav's own files is ever taken out of it."""

from __future__ import annotations

import json
import os

import pytest
import torch

from metav.errors import CacheError
from metav.zoo.cache import TrainedModel, ZooCache, cache_key, pack
from metav.zoo.cache_folder import read_cache_folder, remove_runs
from metav.zoo.folder_format import write_plan

ABOUT = {"run": "zoo-0/quantize/1", "family": "quantize", "owner": "0123456789ab", "model": "CNN", "task": "regression"}


def store(folder, number=0, about=ABOUT):
    key = cache_key({"number": number})
    states = ({"weight": torch.ones(3)}, {"weight": torch.zeros(3)})
    trained = TrainedModel(states=states, fractions=(0.5, 1.0), metrics=(0.25, 0.75), strength=0.5)
    ZooCache(folder).store(key, pack(trained, key, about))
    return folder / f"{key}.safetensors"


def test_it_tells_what_the_files_themselves_state(tmp_path):
    path = store(tmp_path)
    (run,) = read_cache_folder(tmp_path).runs
    assert (run.path, run.size, run.models, run.metric) == (path, path.stat().st_size, 2, 0.75)
    assert {name: getattr(run, name) for name in ABOUT} == ABOUT
    assert 0 <= run.age < 600
    assert json.loads(json.dumps(run.to_dict()))["path"] == str(path)


def test_files_of_earlier_versions_state_nothing_and_are_metavs_all_the_same(tmp_path):
    store(tmp_path, about=None)
    (run,) = read_cache_folder(tmp_path).runs
    assert (run.run, run.owner, run.metric) == (None, None, 0.75)


def test_what_it_states_changes_nothing_that_is_loaded(tmp_path):
    path = store(tmp_path)
    found = ZooCache(tmp_path).load(path.stem)
    assert torch.equal(found.states[1]["weight"], torch.zeros(3))


def test_the_oldest_come_first_and_folders_below_are_looked_into(tmp_path):
    paths = [store(tmp_path / name, number) for number, name in enumerate(("", "digits"))]
    os.utime(paths[1], (0, 0))
    assert [run.path for run in read_cache_folder(tmp_path).runs] == paths[::-1]


def strangers(folder, outside):
    """Files of other programs and links, under names that might be taken for metav's."""
    own = store(folder)
    key = cache_key({"number": 99})
    (folder / "model.safetensors").write_bytes(own.read_bytes())  # another name
    (folder / f"{key}.safetensors").write_bytes(own.read_bytes())  # of another key
    (folder / f"{'a' * 64}.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (folder / f"{'b' * 64}.safetensors").write_bytes(b"\xff" * 40)
    (folder / f"{'c' * 64}.safetensors").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    outside.mkdir()
    target = store(outside, 5)
    (folder / target.name).symlink_to(target)
    (folder / "linked").symlink_to(outside)
    os.mkfifo(folder / f"{'d' * 64}.safetensors")
    return own


def test_nothing_else_is_metavs_and_links_are_not_followed(tmp_path):
    own = strangers(tmp_path / "zoo", tmp_path / "outside")
    held = read_cache_folder(tmp_path / "zoo")
    assert [run.path for run in held.runs] == [own]
    assert len(held.foreign) == 9


def test_the_plan_of_a_zoo_is_metavs_and_what_only_has_its_name_is_not(tmp_path):
    plans = [tmp_path / name / "zoo.json" for name in ("", "digits")]
    others = {"list": "[]", "no keys": '{"models": 3}', "text": "not JSON", "animals": '{"lion": 2}'}
    (tmp_path / "digits").mkdir()
    for path in plans:
        write_plan(path.parent, {"zoo-0/prune/0": "a" * 64})
    for name, content in others.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "zoo.json").write_text(content)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "zoo.json").symlink_to(plans[0])
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "zoo.json")
    held = read_cache_folder(tmp_path)
    assert sorted(held.plans) == sorted(plans)
    assert {path.parent.name for path in held.foreign} == {*others, "link", "pipe"}


def test_what_was_replaced_after_the_look_stays(tmp_path):
    kept, replaced, gone, last = (store(tmp_path, number) for number in range(4))
    runs = {run.path: run for run in read_cache_folder(tmp_path).runs}
    replaced.unlink()
    replaced.symlink_to(kept)
    gone.unlink()
    removed = remove_runs([runs[replaced], runs[gone], runs[last]])
    assert [run.path for run in removed] == [last]
    assert sorted(tmp_path.iterdir()) == sorted([kept, replaced])


def test_a_folder_given_as_a_link_is_that_folder(tmp_path):
    own = store(tmp_path / "zoo")
    (tmp_path / "link").symlink_to(tmp_path / "zoo")
    assert [run.path for run in read_cache_folder(tmp_path / "link").runs] == [own]


def test_what_is_no_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("none", "file"):
        with pytest.raises(CacheError, match=r"cannot be read .*; name a folder of trained models"):
            read_cache_folder(tmp_path / name)
