"""`metav cache`: what is listed, what is asked before anything goes, and what stays."""

from __future__ import annotations

import json
import os
import time

import pytest
import torch
from click.testing import CliRunner, Result
from small_fingerprints import small_owner, small_task

import metav
from metav.cli.commands import main
from metav.zoo.cache import TrainedModel, ZooCache, cache_key, pack
from metav.zoo.cache_folder import read_cache_folder
from metav.zoo.folder_format import write_plan


def call(*arguments: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["cache", *map(str, arguments)], input=answer)


@pytest.fixture
def zoo(tmp_path):
    """The cache of a real zoo, half of it a day old, beside somebody's notes."""
    folder = tmp_path / "zoo"
    families = ["weight_noise", "quantize"]
    metav.build_zoo(small_owner(), small_task(), positives=4, negatives=2, families=families, cache=folder)
    for path in sorted(folder.iterdir())[:3]:
        os.utime(path, (time.time() - 90_000,) * 2)
    (folder / "notes.txt").write_text("mine")
    return folder


def test_it_lists_what_each_model_belongs_to(zoo):
    done = call("list", zoo, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert len(found["models"]) == 6
    assert {entry["model"] for entry in found["models"]} == {"HeadFirst"}
    assert sum(entry["family"] == "quantize" for entry in found["models"]) == 2
    assert found["bytes"] == sum(path.stat().st_size for path in zoo.glob("*.safetensors"))
    assert "zoo-0/quantize/1" in done.stderr
    assert "1 d 1 h" in done.stderr
    assert "6 training runs" in done.stderr
    assert "left alone, as metav did not write them or they are links: notes.txt" in done.stderr
    assert call("list", zoo).stdout == ""


def test_the_plan_of_a_zoo_is_told_of_and_stays(zoo):
    names = [path.stem for path in sorted(zoo.glob("*.safetensors"))]
    write_plan(zoo, {f"zoo-0/quantize/{number}": key for number, key in enumerate([*names, "f" * 64])})
    done = call("list", zoo, "--json")
    assert "zoo.json is the plan of a zoo, of which 6 of 7 models are there" in done.stderr
    assert "links: notes.txt\n" in done.stderr
    (plan,) = json.loads(done.stdout)["zoos"]
    assert (plan["planned"], plan["trained"], plan["missing"]) == (7, 6, ["zoo-0/quantize/6"])
    assert call("clear", zoo, "--yes").exit_code == 0
    assert sorted(path.name for path in zoo.iterdir()) == ["notes.txt", "zoo.json"]


def test_clearing_asks_first_and_no_or_silence_keeps_everything(zoo):
    before = sorted(zoo.iterdir())
    for answer in ("n\n", ""):
        done = call("clear", zoo, answer=answer)
        assert done.exit_code == 130
        assert "Delete 6 training runs" in done.stderr
    assert sorted(zoo.iterdir()) == before
    assert call("clear", zoo, answer="y\n").exit_code == 0
    assert [path.name for path in zoo.iterdir()] == ["notes.txt"]


def test_a_dry_run_deletes_nothing_and_says_what_would_go(zoo):
    done = call("clear", zoo, "--older-than", "1d", "--dry-run", "--json")
    found = json.loads(done.stdout)
    assert (len(found["models"]), found["deleted"]) == (3, False)
    assert "would delete 3 training runs" in done.stderr
    assert len(read_cache_folder(zoo).runs) == 6


def test_only_what_is_old_enough_goes(zoo):
    assert call("clear", zoo, "--older-than", "2d", "--yes").stderr.endswith("nothing to delete\n")
    done = call("clear", zoo, "--older-than", "24h", "--yes", "--json")
    assert json.loads(done.stdout)["deleted"] is True
    assert len(read_cache_folder(zoo).runs) == 3


def test_what_was_cleared_is_trained_again_and_is_the_same(zoo):
    arguments = {"positives": 4, "negatives": 2, "families": ["weight_noise", "quantize"]}
    before = metav.build_zoo(small_owner(), small_task(), cache=zoo, **arguments)
    call("clear", zoo, "--yes")
    after = metav.build_zoo(small_owner(), small_task(), cache=zoo, **arguments)
    for one, other in zip(before, after, strict=True):
        for name, value in one.model.state_dict().items():
            assert torch.equal(value, other.model.state_dict()[name])


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y", "1 d"])
def test_an_age_that_is_none_is_wrong_usage(tmp_path, age):
    done = call("clear", tmp_path, "--older-than", age)
    assert done.exit_code == 4
    assert "expected a number and m, h, d or w" in done.stderr


def test_a_folder_that_is_not_there_ends_with_2(tmp_path):
    done = call("list", tmp_path / "none")
    assert done.exit_code == 2
    assert "name a folder of trained models" in done.stderr


def test_what_files_state_cannot_write_to_the_terminal(tmp_path):
    key = cache_key({})
    trained = TrainedModel(states=({"w": torch.ones(1)},), fractions=(1.0,), metrics=(0.5,), strength=None)
    about = dict.fromkeys(("run", "family", "owner", "model", "task"), "\x1b[31m\nall is well")
    ZooCache(tmp_path).store(key, pack(trained, key, about))
    done = call("list", tmp_path)
    assert done.exit_code == 0
    assert "\x1b" not in done.stderr
    assert "all is well" in done.stderr
    assert "\nall is well" not in done.stderr
