"""Multi-label classification: loss, teacher's loss and metric by their definitions, and what training learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from output_cases import Net, multi_label, vectors
from sklearn.metrics import f1_score
from torch.nn import functional

import metav
from metav.models.running import predict

LOGITS = torch.from_numpy(np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32))


def test_the_loss_is_the_mean_binary_cross_entropy():
    task = multi_label()
    chances, labels = LOGITS.sigmoid(), task.targets.float()
    wanted = -(labels * chances.log() + (1 - labels) * (1 - chances).log()).mean()
    assert float(task.loss(LOGITS, task.targets)) == pytest.approx(float(wanted), rel=1e-5)


def test_the_teachers_loss_is_zero_for_equal_answers_alone_and_grows_with_the_difference():
    task = multi_label()
    assert float(task.teacher_loss(LOGITS, LOGITS)) == pytest.approx(0.0, abs=1e-6)
    losses = [float(task.teacher_loss(LOGITS + step, LOGITS)) for step in (0.1, 0.5, 2.0)]
    assert 0 < losses[0] < losses[1] < losses[2]
    student, taught = (torch.stack([-z / 2, z / 2], dim=2).div(2).log_softmax(dim=2) for z in (LOGITS + 0.5, LOGITS))
    wanted = 4 * functional.kl_div(student, taught, log_target=True, reduction="sum") / LOGITS.numel()
    assert losses[1] == pytest.approx(float(wanted), rel=1e-4)


def test_the_metric_is_the_macro_f1_score_and_training_raises_it():
    task, model = multi_label(epochs=20), Net(outputs=4)
    task.train(model, seed=0)
    held = task.validation_indices
    found = (predict(model, task.examples[held]) > 0).int().numpy()
    assert task.metric(model) == pytest.approx(f1_score(task.targets[held].numpy(), found, average="macro"))
    assert task.metric(model) > task.baseline
    student = task.train(Net(outputs=4), seed=1, teacher=model)
    assert task.metric(student) > task.baseline


def test_a_label_that_nobody_has_tells_nothing():
    labels = np.zeros((80, 3), dtype=int)
    labels[:, 0] = vectors()[:, 0] > 0
    labels[:, 1] = vectors()[:, 1] > 0
    task = metav.MultiLabelClassification(vectors(), labels, label_names=["a", "b", "never"])
    assert task.class_names == ("a", "b", "never")

    def oracle(inputs):
        return torch.stack([inputs[:, 0], inputs[:, 1], -torch.ones(len(inputs))], dim=1)

    model = Net(lambda m, f, z: z, 3)
    model.forward = oracle
    assert task.metric(model) == 1.0


def test_labels_alone_keep_the_side_of_every_label():
    alone = multi_label().labels_alone(LOGITS)
    assert torch.equal(alone > 0, LOGITS > 0)
    assert len(torch.unique(alone.abs())) == 1


def test_parts_and_other_data_keep_names_and_options():
    task = multi_label(label_names=["a", "b", "c", "d"], epochs=3)
    for part in (task.bootstrap(1, 0.5), task.subset(range(20)), task.with_data(task.examples + 1, task.targets)):
        assert (part.class_names, part.epochs, part.outputs) == (task.class_names, 3, 4)
        assert part.digest() != task.digest()
