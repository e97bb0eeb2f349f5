"""Changed data: other than the owner's, of the same kind, and a pure function of the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import task_of

from metav.tasks.classification import Classification
from metav.tasks.data_variations import varied
from metav.tasks.regression import Regression


@pytest.mark.parametrize("name", ["classification", "regression", "generation"])
def test_varied_data_are_other_data_of_the_same_kind(name):
    task = task_of(name)
    changed = varied(task, 3)
    assert type(changed) is type(task)
    assert changed.digest() != task.digest()
    assert len(task.examples) / 2 <= len(changed.examples) + 5
    assert len(changed.examples) <= len(task.examples)
    assert changed.examples.min() >= task.examples.min()
    assert changed.examples.max() <= task.examples.max()
    assert changed.outputs == task.outputs


@pytest.mark.parametrize("name", ["classification", "regression", "generation"])
def test_the_seed_alone_decides(name):
    task = task_of(name)
    assert varied(task, 5).digest() == varied(task, 5).digest()
    assert varied(task, 5).digest() != varied(task, 6).digest()


def test_images_stay_recognisable():
    """Each changed image is closer to its own original than to those of nearly all others."""
    task = task_of("classification")
    changed = varied(task, 1).examples.flatten(1)
    distances = torch.cdist(changed, task.examples.flatten(1))
    nearest = distances.min(dim=1).values
    assert float((nearest < distances.median(dim=1).values).float().mean()) > 0.99
    assert not any(
        bool((task.examples == image).flatten(1).all(dim=1).any()) for image in varied(task, 1).examples[:20]
    )


def test_features_keep_their_values_and_mostly_their_places():
    inputs = np.arange(3000, dtype=np.float32).reshape(300, 10)
    changed = varied(Regression(inputs, inputs[:, 0]), 2).examples.numpy()
    for column in range(10):
        assert np.isin(changed[:, column], inputs[:, column]).all()
    whole = [np.isin(row, inputs[int(row[np.argmin(row)] // 10)]).mean() for row in changed]
    assert 0.7 < np.mean(whole) < 1.0


def test_labels_follow_their_images():
    images = np.repeat(np.linspace(0, 1, 200, dtype=np.float32), 64).reshape(200, 1, 8, 8)
    labels = (images[:, 0, 0, 0] > 0.5).astype(np.int64)
    changed = varied(Classification(images, labels), 4)
    bright = changed.examples.flatten(1).mean(dim=1)
    assert bright[changed.targets == 1].mean() > bright[changed.targets == 0].mean() + 0.2
