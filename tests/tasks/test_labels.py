"""Labels in all forms that users have: numbers, names, categories, one-hot rows, tables of labels, maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metav.errors import InputError
from metav.tasks.labels import as_class_labels, as_label_map, as_multi_hot


@given(labels=st.lists(st.integers(0, 4), min_size=2, max_size=20), seed=st.integers(0, 99))
def test_every_form_of_the_same_labels_is_the_same(labels, seed):
    names = [f"class {number}" for number in np.random.default_rng(seed).permutation(5)]
    wanted = torch.tensor(labels)
    for form in (
        labels,
        np.array(labels, dtype=np.uint16),
        np.array(labels)[:, None],
        torch.tensor(labels, dtype=torch.int32),
        np.eye(5)[labels],
        torch.eye(5, dtype=torch.bool)[labels],
    ):
        tensor, count, found = as_class_labels("labels", form, 5)
        assert torch.equal(tensor, wanted)
        assert (tensor.dtype, count, found) == (torch.int64, 5, ())
    for form in ([names[label] for label in labels], np.array(names)[labels], np.array(names, dtype=object)[labels]):
        tensor, count, found = as_class_labels("labels", form, names)
        assert torch.equal(tensor, wanted)
        assert (count, found) == (5, tuple(names))


def test_texts_without_an_order_are_sorted():
    tensor, count, names = as_class_labels("labels", ["sun", "rain", "sun", "fog"], None)
    assert (tensor.tolist(), count, names) == ([2, 1, 2, 0], 3, ("fog", "rain", "sun"))


def test_tables_give_their_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"fog": [1, 0, 0], "rain": [0, 1, 1]})
    tensor, count, names = as_class_labels("labels", frame, None)
    assert (tensor.tolist(), count, names) == ([0, 1, 1], 2, ("fog", "rain"))
    assert as_multi_hot("labels", frame, None)[1] == ("fog", "rain")
    one = pandas.DataFrame({"weather": ["fog", "rain", "fog"]})
    assert as_class_labels("labels", one, None)[2] == ("fog", "rain")
    series = pandas.Series(["b", "a", "b"], dtype=pandas.CategoricalDtype(["b", "c", "a"]))
    tensor, count, names = as_class_labels("labels", series, None)
    assert (tensor.tolist(), count, names) == ([0, 2, 0], 3, ("b", "c", "a"))
    with pytest.raises(InputError, match="hold 1 missing categories; drop or fill"):
        as_class_labels("labels", series.where(series != "a"), None)


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        (["a", "b", "c"], ["a", "b"], "labels hold 'c', which is none of the classes a, b"),
        (["a", "a"], None, "at least 2 classes"),
        ([0, 1, 2], ["a", "b"], r"must lie in 0\.\.1, got 0\.\.2"),
        ([0, 1], ["a", "a"], "2 classes, got 2 names for them; name each once"),
        (np.eye(3), ["a", "b"], "3 classes, got 2 names"),
        (np.zeros((4, 3)), None, "several labels per example, or none; use metav.MultiLabelClassification"),
        (np.zeros((4, 3, 2), dtype=int), None, r"must have shape \(n,\), got \(4, 3, 2\)"),
        ([0.5, 1.0], None, "must be integers, got torch.float64"),
        ([], 3, "labels is empty"),
        (np.ma.masked_equal([0, 1, 2], 2), None, "is a masked array, 1 of 3 values masked"),
    ],
)
def test_labels_of_no_class_are_refused(values, classes, message):
    with pytest.raises(InputError, match=message):
        as_class_labels("labels", values, classes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 1], r"must have shape \(n, labels\) with at least 2 labels, got \(3,\); one label per example"),
        ([[1], [0]], "at least 2 labels"),
        ([[0, 2], [1, 0]], "must hold 0 and 1 alone"),
        ([[0.5, 1.0], [0.0, 0.0]], "must hold 0 and 1 alone"),
    ],
)
def test_tables_of_labels_hold_0_and_1_alone(values, message):
    with pytest.raises(InputError, match=message):
        as_multi_hot("labels", values, None)
    with pytest.raises(InputError, match="2 classes, got 1 names"):
        as_multi_hot("labels", [[0, 1], [1, 1]], ["only one"])


def test_maps_of_labels_may_have_a_channel_and_any_axes():
    masks = np.random.default_rng(0).integers(0, 3, (4, 5, 6))
    for form in (masks, masks[:, None], masks.astype(np.uint8), torch.from_numpy(masks)):
        tensor, count, names = as_label_map("labels", form, None)
        assert np.array_equal(tensor.numpy(), masks)
        assert (count, names) == (3, ())
    assert as_label_map("labels", masks, ["sea", "land", "ice"])[2] == ("sea", "land", "ice")
    assert as_label_map("labels", masks[:, 0] > 1, None)[1] == 2
    for form, message in (
        (masks[:, 0, 0], "one label per example is for Classification"),
        (masks / 2, "must be integers"),
        (masks - 1, r"must lie in 0\.\.1, got -1\.\.1"),
    ):
        with pytest.raises(InputError, match=message):
            as_label_map("labels", form, None)
