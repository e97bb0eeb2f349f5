"""What suspects answer: one number for two classes, names of classes, structures, several labels, pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metav.errors import InputError, SuspectError
from metav.suspects import open_suspect
from metav.suspects.answer_reading import AnswerReader
from metav.verifiers.places import grid_places

TWO = AnswerReader(outputs=2, labels=True)
CHANCES = np.random.default_rng(0).uniform(size=(30, 1)).astype(np.float32)
QUERIES = np.arange(30, dtype=np.float32)[:, None]


def read(reader, answer):
    found = reader.batch(answer, rows=len(answer))
    return reader.columns(found).responses(found)


# One number for two classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [lambda rows: rows, lambda rows: rows[:, 0], lambda rows: rows.tolist()])
def test_one_number_is_a_chance_a_percentage_or_a_logit(shape):
    assert read(TWO, shape(CHANCES)) == pytest.approx(np.hstack([1 - CHANCES, CHANCES]))
    assert read(TWO, shape(100 * CHANCES)) == pytest.approx(np.hstack([100 - 100 * CHANCES, 100 * CHANCES]), abs=1e-4)
    logits = np.log(CHANCES / (1 - CHANCES))
    assert read(TWO, shape(logits)) == pytest.approx(np.hstack([0 * logits, logits]))


@pytest.mark.parametrize("labels", [[0, 1, 1, 0], [0.0, 1.0, 1.0, 0.0], [[False], [True], [True], [False]]])
def test_labels_of_two_classes_stay_labels(labels):
    assert read(TWO, labels).tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]]


@given(batch=st.integers(1, 30))
def test_which_it_is_is_told_of_all_batches_together(batch):
    logits = np.linspace(0.2, 3.0, 30)[:, None].astype(np.float32)  # the first lie between 0 and 1
    logits[-1] = -0.5
    suspect = open_suspect(lambda queries: logits[queries[:, 0].astype(int)], accepts="numpy")
    answers = suspect.answer(QUERIES, outputs=2, labels=True, batch_size=batch)
    assert np.array_equal(answers.responses, np.hstack([0 * logits, logits]))
    assert not answers.differences.any()


def test_noise_of_one_number_is_that_of_both_columns():
    calls = iter(range(100))

    def suspect(queries):
        return 0.5 + 0.0 * queries + (0.1 if next(calls) else 0.0)

    answers = open_suspect(suspect, accepts="numpy").answer(QUERIES, outputs=2, labels=True)
    assert answers.differences == pytest.approx(np.tile([-0.1, 0.1], (8, 1)), abs=1e-6)


@pytest.mark.parametrize("labels", [[1.0, 2.0, 1.0], [-1.0, 1.0, 1.0]])
def test_two_numbers_that_are_no_labels_are_refused(labels):
    with pytest.raises(SuspectError, match=r"expected class numbers in 0\.\.1, or scores"):
        read(TWO, labels)


def test_batches_that_differ_in_kind_are_refused():
    def suspect(queries):
        return queries if queries[0, 0] else np.hstack([queries, queries])

    with pytest.raises(SuspectError, match="some batches are answered with labels, others with scores"):
        open_suspect(suspect, accepts="numpy").answer(QUERIES, outputs=2, labels=True, batch_size=10)


# Names and structures ------------------------------------------------------------------------------------------------


def test_names_of_classes_are_labels():
    reader = AnswerReader(outputs=3, labels=True, class_names=("owl", "cat", "dog"))
    for form in (["cat", "owl", "dog"], np.array(["cat", "owl", "dog"]), np.array([["cat"], ["owl"], ["dog"]], object)):
        assert np.array_equal(read(reader, form), np.eye(3)[[1, 0, 2]])
    with pytest.raises(SuspectError, match="answers 'cow', expected one of the classes owl, cat, dog"):
        read(reader, ["cat", "cow", "dog"])


SCORES, OTHER = (np.random.default_rng(seed).normal(size=(30, 3)).astype(np.float32) for seed in (1, 2))


@pytest.mark.parametrize(
    "answer",
    [
        {"logits": SCORES},
        {"logits": torch.from_numpy(SCORES), "loss": torch.tensor(0.5), "states": (torch.zeros(30, 7),)},
        (SCORES, np.zeros((30, 7))),
        {"labels": SCORES.argmax(axis=1), "logits": SCORES},  # scores tell more than labels
        {"outer": {"inner": [SCORES]}},
        {"twice": SCORES, "again": SCORES.copy()},
        [torch.from_numpy(row) for row in SCORES],  # one tensor per query
    ],
)
def test_the_part_that_fits_is_taken(answer):
    found = AnswerReader(outputs=3, labels=True).batch(answer, rows=30)
    assert np.array_equal(found, SCORES)


def test_labels_are_taken_where_there_are_no_scores():
    found = AnswerReader(outputs=3, labels=True).batch(
        {"label": SCORES.argmax(axis=1), "f": np.zeros((30, 9))}, rows=30
    )
    assert np.array_equal(found, np.eye(3)[SCORES.argmax(axis=1)])


@pytest.mark.parametrize("output", ["second", 1, -1, lambda answer: answer["second"]])
def test_of_several_the_one_that_is_named_is_taken(output):
    answer = {"first": OTHER, "second": SCORES}
    assert np.array_equal(AnswerReader(outputs=3, output=output).batch(answer, rows=30), SCORES)
    suspect = open_suspect(lambda queries: answer, accepts="numpy", output=output)
    with pytest.raises(SuspectError, match="answered 8 queries"):
        suspect.answer(QUERIES, outputs=3)


def test_of_several_the_one_with_the_owners_name_is_taken():
    answer = {"first": OTHER, "logits": SCORES}
    assert np.array_equal(AnswerReader(outputs=3, usual_output="logits").batch(answer, rows=30), SCORES)
    with pytest.raises(SuspectError, match="several parts of the answer fit"):
        AnswerReader(outputs=3, usual_output="scores").batch(answer, rows=30)
    with pytest.raises(SuspectError, match=r"output='scores' does not fit: the answer has no part 'scores', but first"):
        AnswerReader(outputs=3, output="scores").batch(answer, rows=30)


def test_a_function_gets_what_its_inputs_are_called():
    def model(scale, *, values, names=None):
        assert names == "all"
        return values * scale[0]

    how = {"input": "values", "constants": {"scale": torch.tensor([2.0]), "names": "all"}}
    for accepts in ("numpy", "torch"):
        suspect = open_suspect(model, accepts=accepts, **how)
        assert np.array_equal(suspect.answer(QUERIES, outputs=1).responses, 2 * QUERIES)


def test_a_module_of_several_inputs_says_what_to_name():
    class Two(torch.nn.Module):
        def forward(self, mask, values):
            return mask * values

    with pytest.raises(SuspectError, match=r'input="mask", constants=\{"values": \.\.\.\}') as caught:
        open_suspect(Two()).answer(QUERIES, outputs=1)
    assert caught.value.reason == "failed"
    with pytest.raises(InputError, match="Two has no input 'x'; expected one of mask, values"):
        open_suspect(Two(), input="x")
    suspect = open_suspect(Two(), input="values", constants={"mask": np.ones(1, np.float32)})
    assert np.array_equal(suspect.answer(QUERIES, outputs=1).responses, QUERIES)


# Several places ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 7), (30, 3, 4, 5), (30, 2, 4, 5, 6), (30,), (30, 19)])
def test_answers_of_other_places_are_refused(shape):
    reader = AnswerReader(outputs=40, places=grid_places(2, (4, 5)))
    with pytest.raises(
        SuspectError, match=r"with shape .*, expected \(n, 2, 4, 5\) scores, or \(n, 4, 5\) labels"
    ) as caught:
        reader.batch(np.zeros(shape), rows=30)
    assert caught.value.reason == "wrong_outputs"


def test_a_mask_of_classes_is_read_at_its_places_at_any_resolution():
    places = grid_places(4, (20, 30), 12)
    labels = np.random.default_rng(0).integers(0, 4, (6, 20, 30))
    reader = AnswerReader(outputs=places.outputs, places=places)
    wanted = np.eye(4)[labels.reshape(6, -1)[:, list(places.chosen)]].reshape(6, -1)
    for form in (labels, labels[:, None], labels.astype(np.uint8), labels.astype(np.float32)):
        assert np.array_equal(reader.batch(form, rows=6), wanted)
    assert np.array_equal(reader.batch(labels.repeat(3, axis=1).repeat(3, axis=2), rows=6), wanted)
