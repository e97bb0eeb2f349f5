"""Segmentation: loss, teacher's loss and metric by their definitions, at any resolution; pixels stay where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from output_cases import Dense, images, masks, segmentation, steps, two_regions
from sklearn.metrics import jaccard_score
from torch.nn import functional

import metav
from metav.models.running import predict
from metav.tasks.augmentations import augmentation_for
from metav.tasks.data_variations import varied
from metav.tasks.recipes import draw_recipe

SCORES = torch.from_numpy(np.random.default_rng(0).normal(size=(48, 3, 8, 8)).astype(np.float32))


def test_the_loss_is_the_mean_cross_entropy_of_logits_and_of_probabilities():
    task = segmentation()
    wanted = float(functional.cross_entropy(SCORES, task.targets))
    assert float(task.loss(SCORES, task.targets)) == pytest.approx(wanted, rel=1e-5)
    assert float(task.loss(SCORES.softmax(dim=1), task.targets)) == pytest.approx(wanted, rel=1e-4)


def test_answers_of_another_resolution_are_enlarged_as_pytorch_does():
    task = segmentation()
    small = SCORES[:, :, ::2, ::4]
    enlarged = functional.interpolate(small, size=(8, 8), mode="bilinear", align_corners=False)
    wanted = float(functional.cross_entropy(enlarged, task.targets))
    assert float(task.loss(small, task.targets)) == pytest.approx(wanted, rel=1e-5)


def test_the_teachers_loss_is_the_divergence_at_each_pixel():
    task = segmentation()
    assert float(task.teacher_loss(SCORES, SCORES)) == pytest.approx(0.0, abs=1e-6)
    other = SCORES.roll(1, dims=0)
    rows, taught = ((scores / 2).movedim(1, -1).reshape(-1, 3).log_softmax(dim=1) for scores in (SCORES, other))
    wanted = 4 * functional.kl_div(rows, taught, log_target=True, reduction="batchmean")
    assert float(task.teacher_loss(SCORES, other)) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize(("make", "model"), [(segmentation, lambda: Dense(3)), (steps, lambda: Dense(3, axes=1))])
def test_the_metric_is_the_mean_intersection_over_union_and_training_raises_it(make, model):
    task, trained = make().with_epochs(25), model()
    task.train(trained, seed=0)
    held = task.validation_indices
    found = predict(trained, task.examples[held]).argmax(dim=1).numpy().ravel()
    truth = task.targets[held].numpy().ravel()
    wanted = jaccard_score(truth, found, average="macro", labels=np.unique(truth))
    assert task.metric(trained) == pytest.approx(wanted, rel=1e-5)
    assert task.metric(trained) > task.baseline


def test_one_number_per_pixel_is_trained_by_the_binary_cross_entropy():
    task, model = two_regions(), Dense(1)
    answers = task.adapted(model)(task.examples[:4])
    assert answers.shape == (4, 2, 8, 8)
    own = model(task.examples[:4])[:, 0]
    wanted = functional.binary_cross_entropy_with_logits(own, task.targets[:4].float())
    assert task.loss(answers, task.targets[:4]).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_labels_alone_keep_the_best_class_of_every_pixel():
    alone = segmentation().labels_alone(SCORES)
    assert torch.equal(alone.argmax(dim=1), SCORES.argmax(dim=1))
    assert alone.shape == SCORES.shape


# Pixels stay where their labels are -----------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_other_data_never_move_pixels(seed):
    spots = np.zeros((30, 1, 8, 8), dtype=np.float32)
    places = np.random.default_rng(0).integers(0, 64, 30)
    spots.reshape(30, 64)[np.arange(30), places] = 20.0
    labels = (spots[:, 0] > 0).astype(int)
    for task in (metav.Segmentation(spots, labels), metav.Regression(spots, spots)):
        other = varied(task, seed)
        brightest = other.examples.flatten(1).argmax(dim=1)
        assert torch.equal(brightest, other.targets.flatten(1).argmax(dim=1))
        assert draw_recipe(task, seed).augmentation in (None, "noise")


def test_images_with_one_answer_are_moved():
    assert augmentation_for(torch.from_numpy(images())) == "shift"
    assert not metav.Regression(images(), images().mean(axis=(1, 2, 3))).is_aligned


def test_parts_and_other_data_keep_names_and_options():
    task = metav.Segmentation(images(), masks(), classes=["sea", "land", "ice", "never"], epochs=3)
    for part in (task.bootstrap(1, 0.5), task.subset(range(20)), task.with_data(task.examples + 1, task.targets)):
        assert (part.class_names, part.epochs, part.classes) == (task.class_names, 3, 4)
        assert part.places == task.places
