"""Obfuscations that train a student on the answers of the model."""

from __future__ import annotations

import pytest
from small_models import HeadFirst, owner_of, task_of

from metav.models.running import predict
from metav.obfuscations.students import distill, extract_labels, extract_scores


@pytest.mark.parametrize("function", [distill, extract_scores, extract_labels])
def test_students_may_have_another_architecture(function):
    task, owner = task_of("classification"), owner_of("classification")
    model = function(owner, task, strength=0.3, seed=1, architecture=lambda: HeadFirst(64, 10))
    assert isinstance(model, HeadFirst)
    inputs = task.examples[task.validation_indices]
    agreement = (predict(model, inputs).argmax(1) == predict(owner, inputs).argmax(1)).float().mean()
    assert agreement > 0.7
