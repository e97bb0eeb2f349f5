"""The zoo's cache never lies: nothing is trained twice, and nothing wrong is taken for right."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_models import digits, owner_of, task_of
from small_zoos import contents, small_task

import metav.zoo.training
from metav.errors import CacheError
from metav.tasks.classification import Classification
from metav.zoo.building import build_zoo
from metav.zoo.cache import TrainedModel, pack, unpack


def test_a_cached_zoo_is_not_trained_again_and_a_larger_one_adds_to_it(owner, task, tmp_path, trainings):
    build_zoo(owner, task, positives=3, negatives=2, cache=tmp_path, snapshots=0)
    assert len(trainings) == 5
    build_zoo(owner, task, positives=3, negatives=2, cache=tmp_path, snapshots=0)
    assert len(trainings) == 5
    build_zoo(owner, task, positives=4, negatives=2, cache=tmp_path, snapshots=0)
    assert len(trainings) == 6
    assert not list(tmp_path.glob(".*"))


def test_a_changed_owner_or_task_never_reuses_models(owner, task, tmp_path, trainings):
    counts = {"positives": 2, "negatives": 2, "cache": tmp_path, "architectures": []}
    build_zoo(owner, task, **counts)
    changed = copy.deepcopy(owner)
    changed.body.bias.data[0] += 1e-3
    images, labels = digits()
    moved = images[:400].copy()
    moved[0, 0, 0, 0] += 0.001
    others = [
        (changed, task, {}),
        (owner, small_task(epochs=2), {}),
        (owner, Classification(moved, labels[:400], epochs=3, learning_rate=1e-2), {}),
        (owner, task, {"seed": 1}),
        (owner, task, {"thief_task": task.bootstrap(0)}),
        (owner, task, {"other_task": task.bootstrap(0)}),
    ]
    for number, (model, other, options) in enumerate(others, start=2):
        build_zoo(model, other, **counts, **options)
        assert len(trainings) == 4 * number


def test_an_interrupted_build_continues_where_it_stopped(owner, task, tmp_path, monkeypatch, trainings):
    train = metav.zoo.training.train_planned

    def interrupted(planned, context):
        if len(trainings) == 3:
            raise KeyboardInterrupt
        return train(planned, context)

    with monkeypatch.context() as patch:
        patch.setattr(metav.zoo.training, "train_planned", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_zoo(owner, task, positives=4, negatives=3, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    resumed = build_zoo(owner, task, positives=4, negatives=3, cache=tmp_path)
    assert len(trainings) == 7
    assert contents(resumed) == contents(build_zoo(owner, task, positives=4, negatives=3))


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from small_models import owner_of, task_of
from metav import build_zoo
build_zoo(owner_of("regression"), task_of("regression"), positives=8, negatives=8, cache=sys.argv[2], jobs=1)
"""


def test_a_killed_build_loses_at_most_the_model_being_trained(tmp_path, trainings):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[1] / "helpers"), str(tmp_path)]
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.safetensors"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(tmp_path.glob("*.safetensors")))
    assert 3 <= finished < 16
    owner, task = owner_of("regression"), task_of("regression")
    zoo = build_zoo(owner, task, positives=8, negatives=8, cache=tmp_path)
    assert len(trainings) == 16 - finished
    assert len({entry.run for entry in zoo}) == 16


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "swap"])
def test_a_damaged_cache_file_is_rebuilt_with_a_warning(damage, owner, task, tmp_path, trainings):
    options = {"positives": 2, "negatives": 1, "cache": tmp_path, "architectures": []}
    intact = contents(build_zoo(owner, task, **options))
    first, second, _ = sorted(tmp_path.iterdir())
    content = first.read_bytes()
    damaged = {
        "truncate": content[:-7],
        "flip": content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
        "empty": b"",
        "swap": second.read_bytes(),
    }
    first.write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match=r"is damaged .* rebuilt"):
        assert contents(build_zoo(owner, task, **options)) == intact
    assert len(trainings) == 4
    assert first.read_bytes() == content


@pytest.mark.parametrize("values", [b"0", b" ", b"I"])
def test_no_corrupted_byte_of_a_header_goes_unnoticed(values):
    """Metrics, names, types, places: the header says what the tensors' bytes mean, and has no checksum of its own."""
    states = tuple({"weight": torch.ones(2, 3) * number, "count": torch.tensor(number)} for number in (1, 2))
    trained = TrainedModel(states=states, fractions=(0.5, 1.0), metrics=(0.91, 0.95), strength=0.5)
    packed = pack(trained, "key")
    header = 8 + int.from_bytes(packed[:8], "little")
    changed = [
        packed[:place] + value + packed[place + 1 :]
        for place in range(header)
        for value in (values, bytes([packed[place] ^ 1]))
        if packed[place : place + 1] != value
    ]
    assert len(changed) > header > 400
    for content in changed:
        with pytest.raises(ValueError, match=r"digest|not a readable cache file"):
            unpack(content, "key")


def test_a_corrupted_header_is_said_and_the_model_made_again(owner, task, tmp_path, trainings):
    options = {"positives": 1, "negatives": 1, "cache": tmp_path, "architectures": []}
    intact = contents(build_zoo(owner, task, **options))
    (path, _) = sorted(tmp_path.iterdir())
    content = path.read_bytes()
    for old, new in (
        (b'"F32"', b'"I32"'),
        (rb"\"metrics\": [0", rb"\"metrics\": [1"),
        (b"000/body.bias", b"000/body.bios"),
    ):
        assert old in content
        path.write_bytes(content.replace(old, new, 1))
        before = len(trainings)
        with pytest.warns(UserWarning, match=r"is damaged .* rebuilt"):
            assert contents(build_zoo(owner, task, **options)) == intact
        assert len(trainings) == before + 1
        assert path.read_bytes() == content


def test_packed_models_are_deterministic_and_come_back_whole():
    state = {"b": torch.arange(3), "a": torch.tensor(2.5), "empty": torch.zeros(0, 2), "shared": torch.ones(2, 2).T}
    trained = TrainedModel(states=(state, state), fractions=(0.5, 1.0), metrics=(0.1, 1 / 3), strength=None)
    packed = pack(trained, "key")
    assert packed == pack(trained, "key")
    back = unpack(packed, "key")
    assert (back.fractions, back.metrics, back.strength) == ((0.5, 1.0), (0.1, 1 / 3), None)
    for found in back.states:
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype for name in state)
    with pytest.raises(ValueError, match="its key does not match its name"):
        unpack(packed, "another key")


def test_half_written_files_of_killed_runs_are_removed(owner, task, tmp_path):
    stale, fresh = tmp_path / ".old.1.tmp", tmp_path / ".new.2.tmp"
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    build_zoo(owner, task, positives=1, negatives=1, cache=tmp_path)
    assert not stale.exists()
    assert fresh.exists()


def test_an_unusable_cache_folder_is_refused(owner, task, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot be written"):
        build_zoo(owner, task, cache=tmp_path / "file" / "zoo")


def test_a_relative_cache_is_where_the_caller_is_now(owner, tmp_path, monkeypatch):
    """Worker processes outlive a call, and may stand in another folder than their caller."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        build_zoo(
            owner, small_task(epochs=0.05), positives=1, negatives=2, families=["weight_noise"], jobs=2, cache="zoo"
        )
        assert len(list((tmp_path / name / "zoo").glob("*.safetensors"))) == 3
