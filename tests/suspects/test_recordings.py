"""Recorded answers as people and programs write them: every number is the one that is meant, or the file is refused."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_fingerprints import handmade

import metav
from metav.errors import InputError, SuspectError
from metav.suspects import open_suspect

COUNT, OUTPUTS = 6, 4
ANSWERS = (np.random.default_rng(0).integers(-8000, 8000, (COUNT, OUTPUTS)) / 64).astype(np.float32)
SHARES = np.round(np.random.default_rng(1).dirichlet(np.ones(OUTPUTS), COUNT), 3).astype(np.float32)
QUERIES = np.zeros((COUNT, 2, 2), np.float32)


def read(path, content: str | bytes, *, outputs: int = OUTPUTS, labels: bool = False, count: int = COUNT) -> np.ndarray:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_suspect(path).answer(QUERIES[:count], outputs=outputs, labels=labels).responses


def text(rows, delimiter=",", *, decimal=".", index=None, tail="", percent=False) -> list[str]:
    """Lines of a file."""
    lines = []
    for number, row in enumerate(rows):
        cells = [f"{100 * float(cell):.1f}%" if percent else repr(float(cell)) for cell in row]
        cells = [cell.replace(".", decimal) for cell in cells]
        lines.append(delimiter.join(([] if index is None else [str(index + number)]) + cells) + tail)
    return lines


HEADINGS = {
    "none": [],
    "names": ["cat{0}dog{0}ship{0}car"],
    "numbers from 0": ["0{0}1{0}2{0}3"],
    "numbers from 1": ["1{0}2{0}3{0}4"],
    "comment": ["# written by a program, 2 lines", "#0.5{0}0.5{0}0.5{0}0.5"],
    "quoted": ['"class 0"{0}"class 1"{0}"class 2"{0}"class 3"'],
}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " ", ", ", " ; "], ids=repr)
@pytest.mark.parametrize("heading", HEADINGS)
@pytest.mark.parametrize("tail", ["", "end"])
def test_headings_and_delimiters_are_no_answers(delimiter, heading, tail, tmp_path):
    mark = delimiter.strip(" ") or delimiter
    tail = mark if tail and mark != " " else ""
    first = [line.format(mark) + (tail if not line.startswith("#") else "") for line in HEADINGS[heading]]
    if mark == " " and heading == "quoted":
        pytest.skip("blanks part names, too")
    found = read(tmp_path / "a.csv", "\n".join([*first, *text(ANSWERS, delimiter, tail=tail)]) + "\n")
    assert np.array_equal(found, ANSWERS)


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize(
    "heading", [None, ",0,1,2,3", "id,0,1,2,3", "query,a,b,c,d", "0,1,2,3", ",a,b,c,d", '"","0","1","2","3"']
)
def test_an_index_column_is_no_answer(start, heading, tmp_path):
    lines = [*([] if heading is None else [heading]), *text(ANSWERS, index=start)]
    assert np.array_equal(read(tmp_path / "a.csv", "\n".join(lines)), ANSWERS)
    tabs = "\n".join(lines).replace(",", "\t")
    assert np.array_equal(read(tmp_path / "a.tsv", tabs), ANSWERS)


def test_an_index_beside_labels_is_no_answer(tmp_path):
    labels = [1, 0, 1, 1, 0, 1]
    for heading in ([], ["query,label"], [",0"]):
        lines = [*heading, *(f"{number},{label}" for number, label in enumerate(labels))]
        for outputs in (2, 4):
            found = read(tmp_path / "a.csv", "\n".join(lines), outputs=outputs, labels=True)
            assert np.array_equal(found, np.eye(outputs)[labels])


def test_answers_that_look_like_a_heading_or_an_index_stay_answers(tmp_path):
    rows = [[0, 1], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1]]
    plain = "\n".join(",".join(map(str, row)) for row in rows)
    assert np.array_equal(read(tmp_path / "a.csv", plain, outputs=2), rows)
    # a regressor of two outputs may answer 0, 1, 2, ...: one column alone is no answer of its
    counting = [[number, 0.5] for number in range(COUNT)]
    found = read(tmp_path / "a.csv", "\n".join(f"{a},{b}" for a, b in counting), outputs=2)
    assert np.array_equal(found, counting)
    labels = [0, 1, 2, 3, 3, 0]
    found = read(tmp_path / "a.csv", "\n".join(map(str, labels)), labels=True)
    assert np.array_equal(found, np.eye(OUTPUTS)[labels])


@pytest.mark.parametrize("rows", [COUNT - 1, COUNT])
def test_a_heading_of_numbers_does_not_stand_for_a_missing_answer(rows, tmp_path):
    lines = ["0,1,2,3", *text(ANSWERS[:rows])]
    if rows == COUNT:
        assert np.array_equal(read(tmp_path / "a.csv", "\n".join(lines)), ANSWERS)
    else:
        with pytest.raises(SuspectError, match=r"6 queries with shape \(5, 4\)"):
            read(tmp_path / "a.csv", "\n".join(lines))


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("index", [None, 0])
def test_a_comma_is_decimal_where_another_sign_parts_the_cells(delimiter, index, tmp_path):
    lines = text(ANSWERS, delimiter, decimal=",", index=index)
    assert np.array_equal(read(tmp_path / "a.csv", "\n".join(lines)), ANSWERS)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("heading", [[], ["0{0}1{0}2{0}3"]])
def test_percent_signs_mean_hundredths(delimiter, heading, tmp_path):
    decimal = "." if delimiter == "," else ","
    lines = [*(line.format(delimiter) for line in heading), *text(SHARES, delimiter, decimal=decimal, percent=True)]
    found = read(tmp_path / "a.csv", "\n".join(lines))
    assert found == pytest.approx(SHARES, abs=1e-7)


def test_numbers_are_read_to_the_last_digit_in_every_notation(tmp_path):
    cells = ["1e-3", "-2.5E+02", "+.5", "7.", "1234567", "0.1000000000000000055511151231257827"]
    found = read(tmp_path / "a.csv", "\n".join(cells), outputs=1)
    assert found.ravel().tolist() == [np.float32(float(cell)) for cell in cells]


LINES = ["0.1,0.2,0.3,0.4"] * (COUNT - 1)


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("0.1,1_875,0.3,0.4", 2, "'1_875', expected a number such as 0.125"),
        ("0.1,0.2,x,0.4", 3, "'x', expected a number"),
        ("0.1,0.2,,0.4", 3, "'', expected a number"),
        (",,,", 1, "'', expected a number"),
        ('"1,875",0.2,0.3,0.4', 1, "'1,875', expected a number"),
        ("0.1,0.2,0.3,٣", 4, "expected a number"),
        ("0.1,0.2,0.3,\u22120.4", 4, "expected a number"),
        ("0x1,0.2,0.3,0.4", 1, "expected a number"),
        ("1 2,0.2,0.3,0.4", 1, "expected a number"),
        ("True,0.2,0.3,0.4", 1, "expected a number"),
        ("0.1,5%,0.3,0.4", 1, "expected a percent sign as in other cells"),
    ],
)
def test_a_cell_that_is_no_number_is_named(line, column, message, tmp_path):
    for place in (0, 2):
        content = "\n".join([*LINES[:place], line, *LINES[place:]])
        row = 1 if "percent" in message else place + 1
        with pytest.raises(
            InputError, match=rf"row {row}, column {column} of .*a\.csv holds .*; record it again"
        ) as caught:
            read(tmp_path / "a.csv", content)
        assert message in str(caught.value)
        with pytest.raises(InputError, match=rf"row {row}, column {column}"):
            metav.verify(handmade(), tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0,1;0.2\n0.1;0.2\n", r"row 1, column 2 .* holds '0\.2', expected a decimal comma as in other cells"),
        ("0,1;1.234,5\n", r"row 1, column 2 .* holds '1\.234,5', expected a decimal comma|expected a number"),
        ("0.1,0.2\n0.1\n", r"row 2 of .* has 1 columns, expected 2 as in row 1"),
        ("a,b\n\n0.1,0.2\n0.1,0.2,0.3\n", r"row 4 of .* has 3 columns, expected 2 as in row 3"),
        ("", "holds no answers; expected one line of numbers per query"),
        ("\n\n# nothing\n,,\n", "holds no answers"),
        ("cat,dog\n", r"row 1, column 1 of .* holds 'cat'"),
        ("\xff\xfe", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.csv", content.encode("latin-1") if "\xff" in content else content, count=2, outputs=2)


@settings(max_examples=150, deadline=None)
@given(
    answers=st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
        min_size=3,
        max_size=6,
    ),
    delimiter=st.sampled_from([",", ";", "\t", " "]),
    decimal=st.sampled_from([".", ","]),
    heading=st.sampled_from([None, "a{0}b", "0{0}1"]),
    index=st.sampled_from([None, 0, 1]),
    tail=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_what_is_written_in_any_way_is_read_as_it_is(
    tmp_path_factory, answers, delimiter, decimal, heading, index, tail, ending
):
    decimal = decimal if delimiter in (";", "\t") else "."
    after = delimiter if tail and delimiter != " " else ""
    first = (
        []
        if heading is None
        else [("" if index is None or delimiter == " " else delimiter) + heading.format(delimiter) + after]
    )
    lines = [*first, *text(answers, delimiter, decimal=decimal, index=index, tail=after)]
    path = tmp_path_factory.getbasetemp() / "any.csv"
    found = read(path, ending.join(lines) + ending, outputs=2, count=len(answers))
    assert np.array_equal(found, np.array(answers, np.float32))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.,;%-+eE_ax\t\n\"'# ", max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(content, encoding="utf-8")
    with contextlib.suppress(InputError, SuspectError):
        open_suspect(path).answer(QUERIES[:2], outputs=2, labels=True)


# Other files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[0.1, 0.2], [0.1, None]], "row 2, column 2 of .* holds null, expected a number"),
        ([[0.1, "0.2"], [0.1, 0.2]], 'row 1, column 2 of .* holds "0.2"'),
        ([[0.1, 0.2], [[0.1], [{}]]], "row 2, column 2 of .* holds {}"),
        ([[0.1, 0.2], [0.1]], "row 2 of .* has 1 numbers, expected 2 as in row 1"),
        ([[0.1, 10**400], [0.1, 0.2]], "row 1, column 2"),
        (3, "holds a int, expected a list of answers"),
        ("text", "holds a str"),
    ],
)
def test_an_entry_of_json_that_is_no_number_is_named(content, message, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        open_suspect(tmp_path / "a.json")


def test_json_lines_are_answers(tmp_path):
    rows = ANSWERS.tolist()
    for lines in (map(json.dumps, rows), (json.dumps({"answers": row, "id": 3}) for row in rows)):
        assert np.array_equal(read(tmp_path / "a.jsonl", "\n".join(lines) + "\n\n"), ANSWERS)
    with pytest.raises(InputError, match=r"row 2 of .*a\.jsonl is no JSON"):
        read(tmp_path / "a.jsonl", "[1, 2]\n[1, \n")
    with pytest.raises(InputError, match="row 2, column 1"):
        read(tmp_path / "a.jsonl", '[1, 2]\n{"predictions": [1, 2]}\n')


@pytest.mark.parametrize("array", [np.array(["0.5", "1"]), np.array([1j]), np.array([(1, 2.0)], dtype="i4,f8")])
def test_arrays_of_no_numbers_are_refused(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", answers=array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=rf"{name} holds .*, expected real numbers; record the answers again"):
            open_suspect(tmp_path / name)
