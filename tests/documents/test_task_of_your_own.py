"""The example of a task of one's own runs as it stands, and the table names the contract."""

from __future__ import annotations

import re

import pytest
import torch
from page_code import ROOT, run_page

import metav
from metav.tasks.base import Task
from metav.tasks.user_tasks import OPTIONAL_VALUES, REQUIRED_METHODS, REQUIRED_VALUES, UserTask, as_task

PAGE = ROOT / "docs" / "task_of_your_own.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The names after the example ran."""
    return run_page(PAGE, tmp_path_factory.mktemp("task_of_your_own")).names


def test_the_owner_is_recognised_and_learned_its_task(names):
    assert str(metav.verify(names["fp"], names["owner"])).splitlines()[0] in TEXT
    assert names["task"].metric(names["owner"]) < 20.0
    assert names["fp"].task.metric_name == "mean angle in degrees"


def test_the_zoo_was_trained_by_the_loop_of_the_example(names):
    assert all(entry.fraction == 1.0 for entry in names["zoo"]), "its train has no on_epoch: no snapshots"
    independent = [entry for entry in names["zoo"].negatives if entry.family == "independent_same_data"]
    assert all(entry.metric < 45.0 for entry in independent)


def test_an_object_with_the_same_methods_makes_the_same_fingerprint(names):
    """Duck typing: the class without its base class."""
    namespace = {key: value for key, value in vars(names["Direction"]).items() if not key.startswith("__")}
    duck_class = type("Direction", (), {**namespace, "__init__": names["Direction"].__init__, "epochs": 10.0})
    duck = duck_class(names["signals"], names["task"].targets)
    assert not isinstance(duck, Task)
    assert isinstance(as_task(duck), UserTask)
    derived = type("Direction", (names["Direction"],), {"epochs": 10.0})(names["signals"], names["task"].targets)
    options = {"positives": 3, "negatives": 3, "snapshots": 0, "families": ["finetune_all", "weight_noise"]}
    zoos = [metav.build_zoo(names["owner"], given, **options) for given in (derived, duck)]
    for one, other in zip(*zoos, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


def test_the_table_names_all_that_is_checked():
    table = TEXT.partition("|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines()]
    needed = " ".join(cell for cell, is_needed in rows if is_needed.strip() == "yes")
    optional = " ".join(cell for cell, is_needed in rows if is_needed.strip() == "no")
    for name in (*REQUIRED_METHODS, *REQUIRED_VALUES):
        assert re.search(rf"`{name}\b", needed), name
    for name in (*OPTIONAL_VALUES, "with_data", "epochs", "teacher_loss", "check_model", "on_epoch", "truth"):
        if name != "options":
            assert re.search(rf"`{name}\b", optional), name


def test_one_message_lists_all_that_is_missing(names):
    class Half:
        name = "direction"
        input_shape = (8,)

        def loss(self, outputs, targets):
            return 0.0

    expected = (
        r"task of class Half lacks train\(\), metric\(\), natural_queries\(\), digest\(\), bootstrap\(\), lower, "
    )
    expected += "upper; use metav.Classification"
    for call in (
        lambda: metav.build_zoo(names["owner"], Half()),
        lambda: metav.build_suspects(names["owner"], Half()),
        lambda: metav.fingerprint(names["owner"], Half()),
        lambda: metav.obfuscations.finetune_all(names["owner"], Half(), strength=0.5, seed=0),
    ):
        with pytest.raises(metav.InputError, match=expected):
            call()
    with pytest.raises(metav.InputError, match="thief_task of class Half lacks"):
        metav.build_zoo(names["owner"], names["task"], thief_task=Half())
