"""Which inputs are informative, and which of them queries start as."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_fingerprints import small_owner, small_task, small_zoo
from torch import nn

from metav.optimization.informative_queries import Candidates, dispute, informative_queries, informativeness
from metav.tasks.classification import Classification
from metav.zoo.zoo import Zoo, ZooModel


class Table(nn.Module):
    """Answers numbers (n, 2) that are given, to inputs that are their row numbers."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows, dtype=torch.float32))

    def forward(self, inputs):
        return self.rows[inputs[:, 0].long()]


def entry(model, is_positive, family):
    return ZooModel(
        model=model,
        is_positive=is_positive,
        family=family,
        strength=None,
        seed=0,
        run=f"{family}/{id(model)}",
        fraction=1.0,
        share="optimize",
        architecture=0,
        metric=0.0,
    )


def zoo_of_tables(student):
    """Four independent models that scatter by 1 around 0, and one student."""
    scatter = [(-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0), (1.0, 1.0)]
    independent = [entry(Table([pair] * 3), False, "independent_same_data") for pair in scatter]
    return [*independent, entry(Table(student), True, "distill_same")]


def test_an_input_tells_the_more_the_farther_students_follow_the_owner():
    owner = Table([(0.0, 0.0), (4.0, 0.0), (4.0, 4.0)])
    models = zoo_of_tables([(3.0, 0.0), (3.0, 0.0), (-1.0, 0.0)])
    inputs = torch.arange(3.0)[:, None]
    found = informativeness(Candidates.asked(owner, models, inputs), "identity")
    # 3 * 4 / 1.3: the variance is 1, and 0.3 of the mean variance is added
    np.testing.assert_allclose(found, [0.0, 12 / 1.3, -4 / 1.3], rtol=1e-6)


def test_without_students_all_derived_models_count():
    owner = Table([(4.0, 0.0)] * 3)
    models = [
        replace(model, family="finetune_all") if model.is_positive else model for model in zoo_of_tables([(3, 0)] * 3)
    ]
    inputs = torch.arange(3.0)[:, None]
    found = informativeness(Candidates.asked(owner, models, inputs), "identity")
    np.testing.assert_allclose(found, 12 / 1.3, rtol=1e-6)


def test_a_label_is_disputed_where_copies_give_it_and_independent_models_do_not():
    """Four independent models, one copy; the owner names class 0 everywhere."""
    owner = Table([(1.0, 0.0)] * 4)
    copy = Table([(1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
    others = [Table([(1.0, 0.0), (1.0, 0.0) if k < 2 else (0.0, 1.0), (0.0, 1.0), (1.0, 0.0)]) for k in range(4)]
    models = [*(entry(model, False, "kin") for model in others), entry(copy, True, "distill_same")]
    found = dispute(Candidates.asked(owner, models, torch.arange(4.0)[:, None]))

    def nats(copies, independent):
        return max(copies - independent, 0) * (np.log(copies / (1 - copies)) - np.log(independent / (1 - independent)))

    # of one copy that agrees (1 + 0.5) / 2; of 4, 2 and 0 out of four independent ones (4 + 0.5) / 5 and so on
    np.testing.assert_allclose(found, [0.0, nats(0.75, 0.5), nats(0.75, 0.1), 0.0], rtol=1e-9)


def test_disputed_queries_come_last_and_take_turns_too():
    owner, task, zoo = small_owner(), small_task(), small_zoo()
    made = informative_queries(owner, task, zoo, "tempered", 12, disputed=5, seed=3)
    assert made.shape == (12, *task.input_shape)
    assert torch.equal(made[:7], informative_queries(owner, task, zoo, "tempered", 12, disputed=5, seed=3)[:7])
    models = [item for name in ("optimize", "select") for item in zoo.share(name) if item.fraction == 1.0]
    first, last = (dispute(Candidates.asked(owner, models, part)) for part in (made[:7], made[7:]))
    assert last.mean() > first.mean()
    with torch.no_grad():
        classes = owner(made[7:]).argmax(dim=1).tolist()
    assert len(set(classes)) == min(len(classes), task.outputs)


@pytest.fixture(scope="module")
def found():
    return informative_queries(small_owner(), small_task(), small_zoo(), "tempered", 12, seed=3)


def test_a_third_is_natural_and_the_rest_lies_between_natural_inputs(found):
    task = small_task()
    examples = {row.numpy().tobytes() for row in task.examples.float()}
    assert found.shape == (12, *task.input_shape)
    assert [row.numpy().tobytes() in examples for row in found] == [False] * 8 + [True] * 4
    assert ((found >= task.lower) & (found <= task.upper)).all()


def test_the_owners_classes_take_turns(found):
    with torch.no_grad():
        classes = small_owner()(found).argmax(dim=1)
    assert all(len(set(part.tolist())) == len(part) for part in (classes[:8], classes[8:]))


def test_they_depend_on_the_seed_alone(found):
    again, other = (
        informative_queries(small_owner(), small_task(), small_zoo(), "tempered", 12, seed=seed) for seed in (3, 4)
    )
    assert torch.equal(again, found)
    assert not torch.equal(other, found)


def test_the_calibration_share_is_not_asked(found):
    zoo = small_zoo()

    class Asked(nn.Module):
        def forward(self, inputs):
            raise AssertionError("a calibration model was asked")

    models = [replace(item, model=Asked()) if item.share == "calibrate" else item for item in zoo.models]
    guarded = Zoo(models=tuple(models), owner_digest=zoo.owner_digest, task_digest=zoo.task_digest, seed=zoo.seed)
    assert torch.equal(informative_queries(small_owner(), small_task(), guarded, "tempered", 12, seed=3), found)


def test_all_of_few_inputs_come_back_and_mixtures_fill_up():
    task = small_task().subset(torch.arange(6))
    made = informative_queries(small_owner(), task, small_zoo(), "tempered", 30, seed=0)
    assert len({row.numpy().tobytes() for row in made}) == 30
    assert {row.numpy().tobytes() for row in made} >= {row.numpy().tobytes() for row in task.examples.float()}


def test_features_that_never_vary_stay_within_their_bounds():
    numbers = np.random.default_rng(0)
    inputs = numbers.normal(size=(60, 5)).astype(np.float32)
    inputs[:, 2], inputs[:, 3] = 0.1, -7.3
    task = Classification(inputs, (inputs[:, 0] > 0).astype(np.int64))
    networks = [nn.Linear(5, 2) for _ in range(4)]
    kinds = ((True, "distill_same"), (False, "kin"), (False, "kin"))
    models = [entry(model, *kind) for model, kind in zip(networks[1:], kinds, strict=True)]
    zoo = Zoo(models=tuple(models), owner_digest="", task_digest="", seed=0)
    made = informative_queries(networks[0], task, zoo, "tempered", 200, seed=0)
    assert ((made >= task.lower) & (made <= task.upper)).all()
