"""Answers that come back by mail: numbers of queries in any order, and those that are missing are told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linear_fingerprints import OUTPUTS, QUERIES, answers, linear_fingerprint, weights

import metav
from metav.errors import InputError
from metav.suspects.numbered_answers import NumberedRecording, spans

FP = linear_fingerprint()
ROWS = answers(weights(derived=True, seed=700), FP.queries)
PLAIN = metav.verify(FP, ROWS)


def written(path, order, *, mark=",", heading=True, blank=(), rows=ROWS):
    lines = [mark.join(["query", *(f"answer_{place}" for place in range(1, OUTPUTS + 1))])] if heading else []
    for place in order:
        cells = [] if place in blank else [repr(float(value)) for value in rows[place]]
        if mark == ";":
            cells = [cell.replace(".", ",") for cell in cells]
        lines.append(mark.join([str(place + 1), *(cells or [""] * OUTPUTS)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return NumberedRecording(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(QUERIES)), mark=st.sampled_from(",;\t"), heading=st.booleans())
def test_rows_in_any_order_give_the_verdict_of_rows_in_order(tmp_path, order, mark, heading):
    verdict = metav.verify(FP, written(tmp_path / "answers.csv", order, mark=mark, heading=heading))
    assert (verdict.decision, verdict.score) == (PLAIN.decision, PLAIN.score)


@pytest.mark.parametrize("ending", ["npz", "json"])
def test_arrays_and_lists_with_numbers_are_read(tmp_path, ending):
    order, path = np.random.default_rng(0).permutation(QUERIES), tmp_path / f"answers.{ending}"
    if ending == "npz":
        np.savez(path, query=order + 1, answers=ROWS[order])
    else:
        path.write_text(json.dumps({"query": (order + 1).tolist(), "answers": ROWS[order].tolist()}))
    assert metav.verify(FP, NumberedRecording(path)).score == PLAIN.score


@pytest.mark.parametrize("how", ["left out", "left blank"])
def test_missing_answers_are_told_by_their_numbers(tmp_path, how):
    missing = [2, 6, 7, 8, 47]
    if how == "left out":
        form = written(tmp_path / "answers.csv", [place for place in range(QUERIES) if place not in missing])
    else:
        form = written(tmp_path / "answers.csv", range(QUERIES), blank=missing)
    verdict = metav.verify(FP, form)
    assert (verdict.decision, verdict.reason) == (metav.Decision.INCONCLUSIVE, "missing_rows")
    assert "queries 3, 7-9, 48 have no answer (5 of 48)" in verdict.message


def test_answers_to_one_query_twice_or_to_none_are_told(tmp_path):
    twice = metav.verify(FP, written(tmp_path / "a.csv", [*range(QUERIES), 4]))
    assert (twice.reason, "queries 5 are answered more than once" in twice.message) == ("wrong_rows", True)
    rows = np.concatenate([ROWS, ROWS[:2]])
    unknown = metav.verify(FP, written(tmp_path / "b.csv", range(QUERIES + 2), rows=rows))
    assert "answers to queries 49-50, expected numbers from 1 to 48" in unknown.message


def test_labels_alone_are_written_in_the_first_column(tmp_path):
    fp = linear_fingerprint("regression")
    path = tmp_path / "answers.csv"
    path.write_text("query,answer_1,answer_2,answer_3\n2,1,,\n1,0,,\n")
    found = NumberedRecording(path)
    assert found.rows == [(2, [1.0]), (1, [0.0])]
    assert metav.verify(fp, found).reason == "missing_rows"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "expected one of .csv, .npz, .json"),
        ("a.csv", "query,answer_1\nfirst,2\n", "line 2 of .* starts with 'first', expected the number of a query"),
        ("a.csv", "query,answer_1\n1,cat\n", "row 2, column 2 of .* holds 'cat', expected a number"),
        ("a.json", "[1, 2]", 'lacks "query" or "answers"'),
        ("a.json", '{"query": [1.5], "answers": [[1]]}', "must hold one whole number per answer"),
        ("a.npz", "no archive", "cannot be read"),
    ],
)
def test_files_that_are_no_form_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        NumberedRecording(path)
    with pytest.raises(InputError, match="there is no file"):
        NumberedRecording(tmp_path / "nothing.csv")


@given(st.sets(st.integers(1, 60)))
def test_spans_name_the_same_numbers(numbers):
    named = set()
    for part in spans(sorted(numbers)).split(", ") if numbers else []:
        first, _, last = part.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == numbers
