"""Data above the limit lie in a file: the same tasks, models and fingerprints to the bit, and no copy in memory."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from output_cases import Dense, Items, Net, classes, classification, fingerprint_of, images, masks, random, vectors
from torch import nn

import metav
from metav.models.content_identity import content_identity
from metav.models.stored_tensors import StoredTensor, pickled
from metav.obfuscations.students import perturbed
from metav.support.randomness import isolated_rng
from metav.tasks.data_variations import varied
from metav.zoo.training import identity_of

LIMIT = "METAV_MEMORY_LIMIT"


@pytest.fixture
def low_limit(monkeypatch):
    """Whether arrays of more than 256 bytes lie in files, switched on and off."""

    def switch(on):
        if on:
            monkeypatch.setenv(LIMIT, "256")
        else:
            monkeypatch.delenv(LIMIT, raising=False)

    return switch


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 64)

    def forward(self, latents):
        return self.body(latents).reshape(-1, 1, 8, 8)


def depths():
    return images()[:, 0] * 2.0


FEW = {"epochs": 1, "batch_size": 16}
TASKS = {
    "vectors": (lambda: metav.Classification(vectors(), classes(), **FEW), Net),
    "data set": (lambda: metav.Classification(Items(), **FEW), Net),
    "images": (
        lambda: metav.Classification(images(), classes()[:48], bounds=(-9.0, 9.0), **FEW),
        lambda: Net(inputs=64),
    ),
    "bytes": (
        lambda: metav.Classification((images() * 30 + 128).clip(0, 255).astype(np.uint8), classes()[:48], **FEW),
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3)),
    ),
    "labels": (lambda: metav.MultiLabelClassification(vectors(), np.eye(3, dtype=int)[classes()], **FEW), Net),
    "pixels": (lambda: metav.Segmentation(images(), masks(), **FEW), lambda: Dense(3)),
    "pixels of a data set": (
        lambda: metav.Segmentation(
            torch.utils.data.TensorDataset(torch.from_numpy(images()), torch.from_numpy(masks())), **FEW
        ),
        lambda: Dense(3),
    ),
    "numbers": (lambda: metav.Regression(vectors(), random(80, seed=4), **FEW), lambda: Net(outputs=1)),
    "depths": (lambda: metav.Regression(images(), depths(), **FEW), lambda: Dense(1)),
    "samples": (lambda: metav.Generation(images(), latent=2, **FEW), Decoder),
    "samples, opposed": (lambda: metav.Generation(images(), latent=2, objective="adversarial", **FEW), Decoder),
}


def built(build):
    with isolated_rng(0):
        return build()


def trained(task, model):
    return task.train(model, seed=3).state_dict()


def facts(make, build):
    """All that a zoo and a fingerprint take from a task, as digests and numbers."""
    task, model = make(), built(build)
    teacher = built(build)
    part = task.subset(torch.arange(len(task.examples) - 3))
    found = {
        "digest": task.digest(),
        "identity": identity_of(task),
        "bounds": (task.lower.tolist(), task.upper.tolist()),
        "baseline": task.baseline,
        "queries": task.natural_queries(9, seed=1).tolist(),
        "part": (part.digest(), part.bootstrap(2, 0.7).digest()),
        "others": (varied(task, 5).digest(), perturbed(task, 0.5, 5).digest()),
        "trained": content_identity(trained(task, model), "model"),
        "metric": task.metric(model),
        "taught": content_identity(task.train(teacher, seed=4, teacher=model, truth=0.5).state_dict(), "model"),
    }
    truth = task.true_answers(task.natural_queries(9, seed=1))
    found["truth"] = None if truth is None else truth.tolist()
    if hasattr(task, "lack_of_fit"):
        found["fit"] = task.lack_of_fit(model)
        noisy = task._with_options(task.options.__class__(**{**vars_of(task.options), "augmentation": "noise"}))
        found["noisy"] = content_identity(trained(noisy, built(build)), "model")
    return found, task


def vars_of(options):
    return {name: getattr(options, name) for name in type(options).__dataclass_fields__}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_the_same_to_the_bit_whether_its_data_lie_in_memory_or_in_a_file(name, low_limit, untouched_rng):
    expected, plain = facts(*TASKS[name])
    low_limit(True)
    found, task = facts(*TASKS[name])
    assert isinstance(task.examples, StoredTensor)
    assert not isinstance(plain.examples, StoredTensor)
    assert found == expected


def test_a_fingerprint_is_the_same_to_the_bit_in_one_process_and_in_two(low_limit):
    made = []
    for on, jobs in ((False, 1), (True, 1), (True, 2)):
        low_limit(on)
        owner = built(Net)
        task = classification(epochs=1)
        task.train(owner, seed=0)
        made.append(fingerprint_of(owner, task, jobs=jobs).commitment)
    assert len(set(made)) == 1


@pytest.mark.parametrize("form", ["float32", ">f4", "float64", "uint8", "uint16", "rows", "turned"])
def test_a_memory_map_is_read_where_it_lies_or_brought_to_a_file_as_float32(form, tmp_path, low_limit):
    values = (images() * 30 + 128).clip(0, 255).round()
    dtype = {"rows": "float32", "turned": "float32"}.get(form, form)
    kept = np.ascontiguousarray(values.T if form == "turned" else values)
    np.save(tmp_path / "images.npy", kept.astype(dtype))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    mapped = {"rows": mapped[4:40], "turned": mapped.T}.get(form, mapped)
    expected = metav.Classification(np.array(mapped), classes()[: len(mapped)])
    low_limit(True)
    task = metav.Classification(mapped, classes()[: len(mapped)])
    assert task.digest() == expected.digest()
    assert task.levels == (256 if form == "uint8" else None)
    is_in_place = os.path.samestat(os.fstat(task.examples.stored.file.fileno()), os.stat(tmp_path / "images.npy"))
    assert is_in_place is (form in ("float32", "rows"))


def test_a_map_whose_changes_are_not_in_the_file_is_copied_as_it_is_seen(tmp_path, low_limit):
    np.save(tmp_path / "inputs.npy", vectors())
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="c")
    mapped[0] = 7.0
    low_limit(True)
    task = metav.Classification(mapped, classes())
    assert task.examples[0].tolist() == [7.0] * vectors().shape[1]
    assert np.array_equal(task.examples[1:].numpy(), vectors()[1:])


def test_nothing_that_is_done_to_the_tensors_of_a_task_reaches_the_users_file(tmp_path, low_limit):
    np.save(tmp_path / "inputs.npy", vectors())
    low_limit(True)
    task = metav.Classification(np.load(tmp_path / "inputs.npy", mmap_mode="r+"), classes())
    task.examples[:] = 0.0
    assert np.array_equal(np.load(tmp_path / "inputs.npy"), vectors())


def test_workers_get_places_of_files_and_no_data(low_limit):
    task = metav.Classification(random(4000, 6), np.arange(4000) % 3)
    low_limit(True)
    stored = metav.Classification(random(4000, 6), np.arange(4000) % 3)
    assert len(pickled(stored.examples)) < 1000 < 4000 * 6 * 4 < len(pickled(task.examples))


def test_files_of_data_are_private_and_end_with_the_task(tmp_path, monkeypatch, low_limit):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    low_limit(True)

    def open_files():
        links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
        return [link for link in links if link.is_symlink() and os.readlink(link).startswith(str(tmp_path))]

    task = metav.Classification(vectors(), classes())
    part = task.bootstrap(1)
    descriptor = task.examples.stored.file.fileno()
    assert os.fstat(descriptor).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == []
    assert len(open_files()) >= 4
    rows = task.examples[:2]
    del task, part
    gc.collect()
    assert np.array_equal(rows.numpy(), vectors()[:2])
    del rows
    gc.collect()
    assert open_files() == []


MEASURED = """
import json, sys, threading, time
import numpy as np, torch
import metav
from metav.models.stored_tensors import pickled
from metav.obfuscations.students import perturbed
from metav.tasks.data_variations import varied
from metav.zoo.training import identity_of

def anonymous():
    text = open("/proc/self/status").read()
    return int(text.partition("RssAnon:")[2].split()[0]) * 1024

most, ends = [0], threading.Event()
def watch():
    while not ends.is_set():
        most[0] = max(most[0], anonymous())
        time.sleep(0.001)

class Items(torch.utils.data.Dataset):
    def __len__(self):
        return COUNT
    def __getitem__(self, index):
        return torch.full((1, 32, 32), float(index % 7)), index % 3

def model():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 3))

def use(task):
    identity_of(task), task.natural_queries(50, seed=0), task.true_answers(task.natural_queries(2, seed=0))
    part = task.bootstrap(1, 0.9)
    part.train(model(), seed=0, epochs=0.1)
    task.metric(task.train(model(), seed=0, epochs=0.1, teacher=model()))
    pickled(task), repr(task)
    del part
    varied(task, 3)

path, COUNT = sys.argv[1], int(sys.argv[2])
labels = np.arange(COUNT) % 3
small = metav.Classification(np.zeros((64, 1, 32, 32), np.float32) + np.arange(64)[:, None, None, None], labels[:64])
use(small)
begin = anonymous()
threading.Thread(target=watch, daemon=True).start()
sizes = {}
for name, make in (
    ("map", lambda: metav.Classification(np.load(path, mmap_mode="r"), labels, bounds=(0.0, 6.0))),
    ("data set", lambda: metav.Classification(Items(), bounds=(0.0, 6.0))),
):
    most[0] = 0
    task = make()
    use(task)
    sizes[name] = most[0] - begin
    del task
ends.set()
print(json.dumps(sizes))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_memory_does_not_grow_with_the_data(tmp_path):
    """Anonymous memory: pages of a mapped file are the system's, which takes them back when it needs them."""
    grown = {}
    for count in (12_000, 36_000):
        mapped = np.lib.format.open_memmap(
            tmp_path / "images.npy", mode="w+", dtype=np.float32, shape=(count, 1, 32, 32)
        )
        mapped[:] = (np.arange(count) % 7)[:, None, None, None]
        mapped.flush()
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(tmp_path / "images.npy"), str(count)],
            env={**os.environ, LIMIT: "8 MiB", "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, done.stderr
        grown[count] = json.loads(done.stdout)
    more = 24_000 * 4096
    for name in ("map", "data set"):
        assert grown[36_000][name] - grown[12_000][name] < 0.25 * more, grown
        assert grown[36_000][name] < 0.6 * 36_000 * 4096, grown
