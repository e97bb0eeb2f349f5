"""Places of an answer: which are chosen, where they lie at another resolution, and that both readings agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from metav.errors import InputError
from metav.models.read_models import ReadModel
from metav.suspects.answer_reading import AnswerReader
from metav.verdicts.access import Access
from metav.verdicts.reading import readable
from metav.verifiers.places import MOST_PLACES, Places, grid_places

SHAPES = st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple)


@given(shape=SHAPES, classes=st.integers(2, 5))
def test_a_grid_is_even_and_all_places_are_read_where_they_are_few(shape, classes):
    places = grid_places(classes, shape)
    assert len(places.chosen) <= MOST_PLACES
    assert places.outputs == classes * len(places.chosen)
    if math.prod(shape) <= MOST_PLACES:
        assert places.chosen == tuple(range(math.prod(shape)))
    for axis, numbers in enumerate(np.unravel_index(np.array(places.chosen), shape)):
        lines = np.unique(numbers)
        if len(lines) > 1:
            assert np.ptp(np.diff(lines)) <= 1
            assert abs(lines[0] - (shape[axis] - 1 - lines[-1])) <= np.diff(lines).max()


@settings(deadline=None)
@given(
    own=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    other=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_other_resolutions_are_interpolated_as_by_pytorch(own, other, seed):
    places = Places(classes=2, shape=own, chosen=tuple(range(own[0] * own[1])))
    given_ = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 1, *other)).astype(np.float32))
    wanted = functional.interpolate(given_, size=own, mode="bilinear", align_corners=False).flatten()
    corners, weights = places.points(other)
    assert weights.sum(axis=0) == pytest.approx(np.ones(len(places.chosen)), abs=1e-6)
    found = (given_.flatten().numpy()[corners] * weights).sum(axis=0)
    assert found == pytest.approx(wanted.numpy(), abs=1e-5)


def test_rows_and_joined_are_inverse():
    places = grid_places(3, (5, 4))
    values = np.random.default_rng(0).normal(size=(2, 7, places.outputs))
    assert places.rows(values).shape == (2, 7 * 20, 3)
    assert np.array_equal(places.joined(places.rows(values)), values)


class Fixed(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, queries):
        return self.answer


@pytest.mark.parametrize("shape", [(5, 7), (20, 31), (9,), (3, 4, 2)])
@pytest.mark.parametrize("resized", [False, True])
def test_a_suspect_is_read_as_the_owners_models_are(shape, resized):
    places = grid_places(3, shape)
    size = tuple(2 * side for side in shape) if resized else shape
    scores = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 3, *size)).astype(np.float32))
    owner = ReadModel(Fixed(scores), places)(torch.zeros(6, 1)).numpy()
    reader = AnswerReader(outputs=places.outputs, places=places)
    others = [] if resized else [scores.movedim(1, -1), scores.flatten(1), {"out": scores, "aux": scores[0]}]
    for form in [scores, *others]:
        raw = reader.batch(form, rows=6)
        read = readable(raw.astype(np.float64), Access(reads="logits"), places)
        assert read == pytest.approx(np.maximum(owner, np.log(1e-5)), abs=1e-4)


def test_labels_of_several_are_read_as_the_owners_models_are():
    places = grid_places(2, (5,))
    scores = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32))
    owner = ReadModel(Fixed(scores), places)(torch.zeros(40, 1)).numpy()
    reader = AnswerReader(outputs=places.outputs, places=places)
    for form, access in ((scores, "logits"), (scores.sigmoid(), "probabilities"), (100 * scores.sigmoid(), "percent")):
        raw = reader.batch(form, rows=40)
        raw = reader.columns(raw).responses(raw).astype(np.float64) / (100 if access == "percent" else 1)
        read = readable(raw, Access(reads="logits" if access == "logits" else "probabilities"), places)
        assert read == pytest.approx(owner, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 1}, "2 classes"),
        ({"chosen": ()}, "different ones of 6"),
        ({"chosen": (0, 6)}, "different ones of 6"),
        ({"chosen": (1, 1)}, "in order"),
        ({"chosen": (1.5,)}, "whole numbers"),
        ({"shape": (-2, 3)}, "whole numbers"),
        ({"shape": (2**20, 2**20)}, "an answer may have 2147483648 places"),
    ],
)
def test_places_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Places(**{"classes": 2, "shape": (2, 3), "chosen": (0, 4), **changes})
