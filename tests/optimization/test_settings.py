"""What options stand for with one task and one zoo."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from small_fingerprints import small_options, small_owner, small_task, small_zoo
from torch import nn

import metav
import metav.fingerprinting
from metav.errors import InputError
from metav.optimization.options import OptimizationOptions
from metav.optimization.settings import check_options, natural_needed, resolve_settings
from metav.zoo.standing import OwnerStanding
from metav.zoo.zoo import Zoo, ZooModel


def untrained_zoo(surrogates, recipe="drawn"):
    """A zoo of so many models of each class that are nothing: settings follow from their number alone."""
    models = tuple(
        ZooModel(
            model=nn.Identity(),
            is_positive=is_positive,
            family="finetune_all" if is_positive else "independent_same_data",
            strength=None,
            seed=number,
            run=f"{is_positive}/{number}",
            fraction=1.0,
            share="optimize",
            architecture=0,
            metric=0.9,
        )
        for is_positive in (True, False)
        for number in range(surrogates)
    )
    standing = OwnerStanding(rows=(), models=surrogates, recipe=recipe, stretches=0)
    return Zoo(models=models, owner_digest="", task_digest="", seed=0, standing=standing)


@pytest.mark.parametrize(
    ("given", "view", "surrogates", "expected"),
    [
        ({}, "label", 3, (20, 20, 0, True, 0.5)),
        ({"adaptive": 0.5, "radius": 1.0}, "label", 3, (10, 10, 10, True, 1.0)),
        ({}, "logprob", 127, (15, 15, 5, False, 0.1)),
        ({"radius": 1.0}, "round(2)", 3, (15, 15, 5, False, 1.0)),
        ({}, "identity", 3, (15, 15, 5, False, None)),
        ({}, "logprob", 128, (15, 15, 5, True, 0.5)),
        ({"radius": 1.0}, "round(2)", 128, (15, 15, 5, True, 1.0)),
        ({}, "identity", 128, (15, 15, 5, False, None)),
        ({}, "logprob", 191, (15, 15, 5, True, 0.5)),
        ({}, "logprob", 192, (40, 20, 40, True, 0.5)),
        ({"pool": 7}, "logprob", 192, (15, 15, 5, True, 0.5)),
        ({}, "label", 191, (20, 20, 0, True, 0.5)),
        ({}, "label", 192, (100, 20, 0, True, 0.5)),
        ({"pool": 1}, "label", 192, (20, 20, 0, True, 0.5)),
    ],
)
def test_what_none_stands_for_depends_on_view_and_zoo(given, view, surrogates, expected):
    options = OptimizationOptions(queries=20, view=view, **given)
    found = resolve_settings(options, small_task(), untrained_zoo(surrogates))
    assert (found.optimized, found.adaptive, found.natural, found.starts_on_boundary, found.radius) == expected
    assert (found.view, found.keeps_natural) == (view, "adaptive" in given or view == "label")
    assert found.starts_informative == (view not in ("label", "identity") and not found.starts_on_boundary)


@pytest.mark.parametrize(
    ("given", "surrogates", "disputed"),
    [
        ({"queries": 100}, 48, 35),
        ({"queries": 200}, 48, 70),
        ({"queries": 100, "adaptive": 0.5}, 48, 10),
        ({"queries": 50}, 48, 0),
        ({"queries": 100, "adaptive": 0.0}, 48, 0),
        ({"queries": 100, "view": "label"}, 48, 0),
        ({"queries": 100, "view": "identity"}, 48, 0),
        ({"queries": 100}, 128, 0),
    ],
)
def test_beyond_forty_made_queries_some_stay_where_labels_are_disputed(given, surrogates, disputed):
    for recipe, wanted in (("told", disputed), ("loop", disputed), ("drawn", 0)):
        found = resolve_settings(OptimizationOptions(**given), small_task(), untrained_zoo(surrogates, recipe))
        assert (found.disputed, found.reads_labels_too) == (wanted, wanted > 0)


def test_what_the_task_says_stands_where_no_option_does():
    task = small_task()
    found = resolve_settings(OptimizationOptions(), task, small_zoo())
    assert (found.view, found.levels) == (task.view, task.levels)
    found = resolve_settings(OptimizationOptions(view="label", levels=16), task, small_zoo())
    assert (found.view, found.levels) == ("label", 16)


# Whether a task can be asked so much ----------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["tempered", "label", "identity"])
@pytest.mark.parametrize("surrogates", [12, 130, 200])
@pytest.mark.parametrize("adaptive", [None, 0.0, 0.5, 1.0])
def test_the_number_that_is_named_fits_and_one_more_does_not(view, surrogates, adaptive):
    task = small_task()
    wanted = OptimizationOptions(queries=30_000, view=view, adaptive=adaptive)
    if natural_needed(wanted, task, surrogates) <= len(task.examples):
        check_options(wanted, task, surrogates)
        return
    with pytest.raises(
        InputError, match=r"30000 queries need .* different natural inputs, and the task has 400"
    ) as caught:
        check_options(wanted, task, surrogates)
    named = int(re.search(r"ask for queries=(\d+) at most", str(caught.value)).group(1))
    check_options(replace(wanted, queries=named), task, surrogates)
    with pytest.raises(InputError, match=f"ask for queries={named} at most"):
        check_options(replace(wanted, queries=named + 1), task, surrogates)


def test_queries_that_fit_are_found_and_others_refused_before_anything_is_trained(monkeypatch):
    task = small_task().subset(range(30))
    zoo = replace(small_zoo(), task_digest=task.digest())
    fp = metav.fingerprint(small_owner(), task, zoo=zoo, options=small_options(queries=122, steps=1))
    assert (len(fp.queries), fp.adaptive) == (122, 92)
    monkeypatch.setattr(metav.fingerprinting, "build_zoo", lambda *_, **__: pytest.fail("a zoo was built"))
    with pytest.raises(
        InputError, match="10000 queries need 2500 different natural inputs, and the task has 30; ask for"
    ):
        metav.fingerprint(small_owner(), task, queries=10_000)
    with pytest.raises(InputError, match="view must be one of"):
        metav.fingerprint(small_owner(), task, options=OptimizationOptions(view="topk"))
