"""Data sets and loaders: drawn once, the same each time, with no trace on the user's generators, up to a limit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from output_cases import Items, Stream, classes, loader, vectors
from torch.utils.data import DataLoader, Subset, TensorDataset

import metav
from metav.errors import InputError
from metav.support import stored_arrays
from metav.tasks.drawn_data import draw_data


def drawn(source):
    inputs, targets = draw_data("images", source)
    return np.asarray(inputs), None if targets is None else np.asarray(targets)


@pytest.mark.parametrize(
    "source",
    [
        Items,
        Stream,
        loader,
        lambda: TensorDataset(torch.from_numpy(vectors()), torch.from_numpy(classes())),
        lambda: Items(lambda x, y: [x.numpy(), np.int64(y), "a third part"]),
        lambda: DataLoader(Items(lambda x, y: {"image": x, "label": y}), batch_size=7),
        lambda: DataLoader(Stream(), batch_size=None),
    ],
)
def test_whatever_holds_the_pairs_gives_the_same_data(source, untouched_rng):
    inputs, targets = drawn(source())
    assert np.array_equal(inputs, vectors())
    assert np.array_equal(targets, classes())


def test_a_shuffled_loader_keeps_pairs_together_and_its_generator_untouched(untouched_rng):
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    own, other = loader(shuffle=True, generator=generator), loader(shuffle=True)
    for source in (own, other):
        (inputs, targets), again = drawn(source), drawn(source)
        assert np.array_equal(inputs, again[0])
        assert not np.array_equal(inputs, vectors())
        order = [int(np.flatnonzero((vectors() == row).all(axis=1))[0]) for row in inputs]
        assert sorted(order) == list(range(80))
        assert np.array_equal(targets, classes()[order])
    assert torch.equal(generator.get_state(), state)


def test_random_transforms_are_drawn_once_and_the_same_each_time(untouched_rng):
    source = Items(lambda x, y: (x + torch.rand(6), y))
    assert np.array_equal(drawn(source)[0], drawn(source)[0])
    assert not np.array_equal(drawn(source)[0], vectors())


def test_a_part_of_a_data_set_and_other_targets():
    part = metav.Classification(Subset(Items(), range(30)))
    assert len(part.examples) == 30
    other = metav.Regression(Items(), np.arange(80.0))
    assert other.targets.tolist() == list(range(80))
    samples = metav.Generation(Items(lambda x, y: (x, y)), latent=2)
    assert np.array_equal(samples.examples.numpy(), vectors())
    texts = metav.Classification(Items(lambda x, y: (x, "abc"[y])))
    assert texts.class_names == ("a", "b", "c")
    several = metav.MultiLabelClassification(Items(lambda x, y: (x, torch.eye(3)[y])))
    assert several.targets.sum(dim=1).tolist() == [1] * 80


class Table:
    """As a data set of Hugging Face's: items by number, named columns, no class of PyTorch's."""

    column_names = ("img", "label")

    def __len__(self):
        return 80

    def __getitem__(self, index):
        return {"img": vectors()[index], "label": int(classes()[index])}


def test_a_data_set_with_named_columns_is_drawn():
    inputs, targets = drawn(Table())
    assert np.array_equal(inputs, vectors())
    assert np.array_equal(targets, classes())


def test_bytes_stay_bytes():
    inputs, _ = draw_data("images", Items(lambda x, y: (torch.zeros(1, 4, 4, dtype=torch.uint8), y)))
    assert inputs.dtype == torch.uint8


def test_what_has_no_room_is_refused_before_it_is_read_where_its_length_is_known(monkeypatch):
    asked = []

    def item(x, y):
        asked.append(y)
        return x, y

    monkeypatch.setenv("METAV_MEMORY_LIMIT", "240")
    monkeypatch.setattr(stored_arrays.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    message = r"images take 1.9 KiB, more than the 240 B that are kept in memory.*1000 B left.*set TMPDIR"
    with pytest.raises(InputError, match=message):
        draw_data("images", Items(item))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: Items(length=0), "images is empty"),
        (lambda: Items(lambda x, y: ()), "empty items"),
        (lambda: Items(lambda x, y: (x, y) if y else x), "items with and without a target"),
        (lambda: Items(lambda x, y: {"left": x, "label": y}), "hold left, label; expected one of inputs, input, x"),
        (lambda: Items(lambda x, y: {"image": x, "x": x, "label": y}), "rename or remove the others"),
        (lambda: Items(lambda x, y: ("a text", y)), "hold a str as input, expected a tensor"),
        (lambda: Items(lambda x, y: (np.array(["a"]), y)), "hold an input of <U1, expected numbers"),
        (lambda: Items(lambda x, y: (x, torch.zeros(1 + y))), "targets that do not fit each other"),
        (lambda: Items(lambda x, y: (x, [0] * (1 + y))), "targets of different shapes"),
    ],
)
def test_items_that_cannot_be_used_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        metav.Classification(source())


def test_two_data_sets_are_refused():
    with pytest.raises(InputError, match="labels must be an array; a data set with both goes into images, alone"):
        metav.Classification(vectors(), Items())
