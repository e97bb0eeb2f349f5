"""The zoo as a value: what it contains and what it tells of itself."""

from __future__ import annotations

import json

import pytest
from small_models import HeadFirst
from small_zoos import INDEPENDENT

from metav.errors import ZooError
from metav.zoo.building import build_zoo


@pytest.fixture(scope="module")
def zoo(owner, task):
    return build_zoo(owner, task, positives=16, negatives=7, progress=False)


def test_a_zoo_has_labels_snapshots_and_useful_models(zoo, owner, task):
    full = [entry for entry in zoo if entry.fraction == 1.0]
    assert sum(entry.is_positive for entry in full) == 16
    assert sum(entry.family == INDEPENDENT for entry in full) == 4
    partial = [entry for entry in zoo if entry.fraction < 1.0]
    assert partial
    assert all(0.35 <= entry.fraction <= 0.9 and entry.share == "optimize" for entry in partial)
    assert {entry.run for entry in partial} <= {entry.run for entry in full}
    runs = {name: {entry.run for entry in zoo.share(name)} for name in ("optimize", "select", "calibrate")}
    assert sum(map(len, runs.values())) == len(set().union(*runs.values())) == 23
    for entry in zoo:
        model, is_positive, family = entry
        assert (model, is_positive, family) == (entry.model, entry.is_positive, entry.family)
        assert not any(module.training for module in model.modules())
        assert entry.metric == pytest.approx(task.metric(model))
        if entry.fraction == 1.0:
            assert entry.metric > 0.5 * (task.metric(owner) + task.baseline)
    assert zoo.positives + zoo.negatives == zoo.models


def test_homologous_models_are_the_owners_class_with_other_weights(zoo, owner):
    for entry in zoo:
        if entry.family == INDEPENDENT:
            assert isinstance(entry.model, HeadFirst)
            assert float((entry.model.body.weight == owner.body.weight).float().mean()) < 0.01


def test_a_summary_is_json_and_a_notebook_shows_a_table(zoo):
    summary = json.loads(json.dumps(zoo.summary()))
    assert (summary["positives"], summary["negatives"]) == (16, 7)
    assert sum(row["runs"] for row in summary["families"].values()) == 23
    assert all(family in zoo._repr_html_() for family in summary["families"])
    assert "16 derived + 7 independent" in repr(zoo)
    with pytest.raises(ZooError, match="share must be"):
        zoo.share("training")
