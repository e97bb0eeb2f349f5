"""How far the owner's answers lie outside of the independent models', whatever their confidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metav.optimization.owner_outlyingness import owner_outlyingness
from metav.statistics.calibration_models import CalibrationModels
from metav.statistics.kin import FEWEST


def zoo_answers(seed=0, independent=24, apart=0.0, free=3, derived=5):
    """Answers (models, 20 queries, 4 classes): of the owner, independent models, free negatives and derived models."""
    random = np.random.default_rng(seed)
    task, trend, own = random.normal(size=(3, 20, 4))
    places = random.normal(size=(independent, 1, 1))
    others = 3.0 * task + places * trend + 0.3 * random.normal(size=(independent, 20, 4))
    owner = 3.0 * task + trend + 0.3 * random.normal(size=(20, 4)) + apart * own
    noise = 5.0 * random.normal(size=(free, 20, 4))
    copies = owner + 0.1 * random.normal(size=(derived, 20, 4))
    count = 1 + independent + free + derived
    shares = ("owner", *(("calibrate", "optimize", "select") * count)[: count - 1])
    return CalibrationModels(
        responses=np.concatenate([owner[None], others, noise, copies]),
        derived=np.arange(count) >= count - derived,
        free=(np.arange(count) > independent) & (np.arange(count) < count - derived),
        families=("any",) * count,
        parts=np.where(np.arange(count) == 0, -1, 0),
        shares=shares,
    )


@pytest.mark.parametrize("view", ["tempered", "logprob", "round(2)", "identity"])
def test_an_owner_like_the_independent_models_is_told_from_one_that_is_not(view):
    assert owner_outlyingness(zoo_answers(), view) < 1.6
    assert owner_outlyingness(zoo_answers(apart=1.0), view) > 2.5


def test_confidence_plays_no_part():
    models = zoo_answers(apart=0.5)
    cold = replace(models, responses=models.responses * np.linspace(0.5, 3.0, len(models.parts))[:, None, None])
    assert owner_outlyingness(cold, "tempered") == pytest.approx(owner_outlyingness(models, "tempered"), rel=1e-3)
    assert owner_outlyingness(cold, "identity") != pytest.approx(owner_outlyingness(models, "identity"), rel=0.1)


def test_only_finished_models_that_were_trained_independently_count():
    models = zoo_answers(apart=0.5, derived=5)
    wanted = owner_outlyingness(models, "tempered")
    assert owner_outlyingness(zoo_answers(apart=0.5, free=0, derived=0), "tempered") == wanted
    changed = models.responses.copy()
    changed[models.free] *= -7.0
    changed[models.derived] += 3.0
    assert owner_outlyingness(replace(models, responses=changed), "tempered") == wanted
    snapshots = np.ones(len(models.parts), dtype=bool)
    snapshots[5] = False
    changed = models.responses.copy()
    changed[5] = 9.0 * changed[6]
    both = [replace(models, responses=rows, finished=snapshots) for rows in (models.responses, changed)]
    without = [owner_outlyingness(entry, "tempered") for entry in both]
    assert without[0] == without[1] != wanted


def test_few_models_tell_nothing():
    assert owner_outlyingness(zoo_answers(independent=FEWEST), "tempered") is not None
    assert owner_outlyingness(zoo_answers(independent=FEWEST - 1), "tempered") is None


def test_labels_are_read_as_labels():
    models = zoo_answers(apart=2.0)
    assert owner_outlyingness(models, "label") > owner_outlyingness(zoo_answers(), "label")
