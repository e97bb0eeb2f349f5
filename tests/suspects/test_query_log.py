"""The query log: nothing in it can be changed without being seen, and a killed run leaves a whole one."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from faulty_services import FaultyService
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linear_fingerprints import answers, linear_fingerprint, weights

import metav
from metav.errors import InputError, QueryLogError
from metav.suspects.asking import Pace
from metav.suspects.log_reports import check_queries, export_log, summarise
from metav.suspects.log_rows import COLUMNS, check_head, hash_of, read_log
from metav.suspects.query_log import QueryLog
from metav.suspects.transports import TransportSuspect

FP = linear_fingerprint()
COPY = weights(derived=True, seed=700)
HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """The bytes of a log with failures, and its verdict."""
    path = tmp_path_factory.mktemp("log") / "run.db"
    service = FaultyService(COPY, plan={3: "500", 5: "429"}, limit=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pace, "sleep", staticmethod(lambda seconds: None))
        verdict = metav.verify(FP, TransportSuspect(service), log=path, decoys=4, repeats=4, progress=False)
    return path.read_bytes(), verdict


@pytest.fixture
def log(logged, tmp_path) -> Path:
    path = tmp_path / "run.db"
    path.write_bytes(logged[0])
    return path


def change(path: Path, *statements: str, values: tuple = ()) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement, values)


def test_an_untouched_log_is_whole_and_ends_with_the_head_of_the_verdict(log, logged):
    rows = read_log(log)
    check_head(rows, logged[1].asking.head, "run.db")
    check_queries(rows, FP, "run.db")
    assert len(rows) == logged[1].asking.rows
    assert {row.event for row in rows} == {"run", "session", "sent", "answered", "failed", "batch_size"}
    before = log.read_bytes()
    read_log(log)
    assert log.read_bytes() == before, "looking changes nothing"
    assert os.listdir(log.parent) == ["run.db"]


OTHERS = {"INTEGER": 9999, "TEXT": "other", "BLOB": b"other"}
KINDS = {"number": "INTEGER", "item": "INTEGER", "attempt": "INTEGER", "answer": "BLOB", "input": "BLOB"}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_altered_cell_is_found(logged, tmp_path, data):
    path = tmp_path / "run.db"
    path.write_bytes(logged[0])
    number = data.draw(st.integers(0, logged[1].asking.rows - 1))
    column = data.draw(st.sampled_from(COLUMNS))
    change(
        path, f"UPDATE entries SET {column} = ? WHERE number = {number}", values=(OTHERS[KINDS.get(column, "TEXT")],)
    )
    with pytest.raises(QueryLogError, match="was altered: row"):
        read_log(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_of_an_answer_is_found_and_told_by_its_row(logged, tmp_path, data):
    path = tmp_path / "run.db"
    path.write_bytes(logged[0])
    row = data.draw(st.sampled_from([row for row in read_log(path) if row.answer]))
    place = data.draw(st.integers(0, len(row.answer) - 1))
    flipped = row.answer[:place] + bytes([row.answer[place] ^ 1]) + row.answer[place + 1 :]
    change(path, f"UPDATE entries SET answer = ? WHERE number = {row.number}", values=(flipped,))
    with pytest.raises(QueryLogError, match=f"row {row.number} does not have the hash that it states"):
        read_log(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_removed_moved_and_inserted_rows_are_found(logged, tmp_path, data):
    path, last = tmp_path / "run.db", logged[1].asking.rows - 1
    number, other = data.draw(st.integers(0, last - 1)), data.draw(st.integers(1, last))
    how = data.draw(st.sampled_from(["removed", "removed and closed up", "swapped", "copied"]))
    path.write_bytes(logged[0])
    if how.startswith("removed"):
        change(path, f"DELETE FROM entries WHERE number = {number}")
        if "closed" in how:
            change(path, f"UPDATE entries SET number = -number WHERE number > {number}")
            change(path, "UPDATE entries SET number = -number - 1 WHERE number < 0")
    elif how == "swapped":
        if number == other:
            return
        change(
            path,
            f"UPDATE entries SET number = -1 WHERE number = {number}",
            f"UPDATE entries SET number = {number} WHERE number = {other}",
            f"UPDATE entries SET number = {other} WHERE number = -1",
        )
    else:
        columns = ", ".join(COLUMNS[1:])
        change(path, f"INSERT INTO entries SELECT {last + 1}, {columns} FROM entries WHERE number = {number}")
    with pytest.raises(QueryLogError, match="was altered: row"):
        read_log(path)


def test_rows_cut_off_at_the_end_are_found_by_the_head(log, logged):
    change(log, f"DELETE FROM entries WHERE number > {logged[1].asking.rows - 4}")
    rows = read_log(log)
    with pytest.raises(QueryLogError, match=r"not with the stated head .*: rows at its end were removed"):
        check_head(rows, logged[1].asking.head, "run.db")


def test_rows_added_with_right_hashes_are_found_by_the_head(log, logged):
    values = {name: getattr(read_log(log)[-1], name) for name in COLUMNS}
    values |= {"number": values["number"] + 1, "previous": values["hash"], "event": "session", "item": None}
    values["hash"] = hash_of(values)
    marks = ", ".join("?" * len(COLUMNS))
    change(log, f"INSERT INTO entries VALUES ({marks})", values=tuple(values.values()))
    with pytest.raises(QueryLogError, match=r"1 rows after row .* were added"):
        check_head(read_log(log), logged[1].asking.head, "run.db")


def test_one_answer_more_for_a_query_is_found_even_with_right_hashes(log):
    rows = read_log(log)
    values = {name: getattr(next(row for row in rows if row.answer), name) for name in COLUMNS}
    values |= {"number": len(rows), "previous": rows[-1].hash}
    values["hash"] = hash_of(values)
    marks = ", ".join("?" * len(COLUMNS))
    change(log, f"INSERT INTO entries VALUES ({marks})", values=tuple(values.values()))
    with pytest.raises(QueryLogError, match="answers a query that was answered before"):
        read_log(log)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more (a)",
        "ALTER TABLE entries ADD COLUMN more TEXT",
        "CREATE TRIGGER hidden AFTER INSERT ON entries BEGIN SELECT 1; END",
    ],
)
def test_whatever_else_is_put_into_the_file_is_found(log, statement):
    change(log, statement)
    with pytest.raises(QueryLogError, match="holds other tables"):
        read_log(log)


@pytest.mark.parametrize("content", [b"", b"no log", b"SQLite format 3\0" + b"x" * 5000])
def test_files_that_are_no_log_are_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "other.db"
    path.write_bytes(content)
    with pytest.raises(QueryLogError):
        read_log(path)
    if content:
        with pytest.raises(QueryLogError):
            QueryLog(path)
    assert path.read_bytes() == content


def test_an_altered_log_is_not_gone_on_with(log):
    change(log, "UPDATE entries SET answer = ? WHERE event = 'answered'", values=(np.ones(3, "<f4").tobytes(),))
    with pytest.raises(QueryLogError, match="was altered"):
        metav.verify(FP, TransportSuspect(FaultyService(COPY)), log=log, decoys=4, repeats=4)


def test_a_log_of_another_fingerprint_s_queries_is_found(log):
    from dataclasses import replace

    other = replace(FP, queries=FP.queries[::-1])
    with pytest.raises(InputError, match="is the log of the fingerprint"):
        check_queries(read_log(log), other, "run.db")


def test_a_log_on_a_medium_that_cannot_be_written_is_read(log, monkeypatch):
    log.chmod(0o400)
    log.parent.chmod(0o500)
    try:
        assert read_log(log)
    finally:
        log.parent.chmod(0o700)


def test_two_processes_cannot_write_one_log(tmp_path):
    with QueryLog(tmp_path / "run.db") as first:
        code = f"from metav.suspects.query_log import QueryLog; QueryLog({str(tmp_path / 'run.db')!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert "in use by another process" in done.stderr
        first.append([{"event": "run", "detail": {"format": "metav query log", "version": 1, "plan": {}}}])
    assert os.listdir(tmp_path) == ["run.db"]


# Reports -------------------------------------------------------------------------------------------------------------


def test_a_summary_counts_what_happened(log, logged):
    summary = summarise(read_log(log))
    record = logged[1].asking
    assert (summary.answered, summary.planned, summary.sent, summary.failed) == (56, 56, record.sent, record.failed)
    assert summary.statuses["200"] == 56
    assert summary.statuses["500"] > 0
    assert summary.head in str(summary)


def test_exports_hold_every_row_and_every_answer_to_the_bit(log, tmp_path):
    rows = read_log(log)
    for name in ("log.csv", "log.jsonl"):
        export_log(rows, tmp_path / name)
    with (tmp_path / "log.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(table) == len(lines) == len(rows)
    for row, cells, line in zip(rows, table, lines, strict=True):
        assert row.hash == cells["hash"] == line["hash"]
        if row.answer is not None:
            for found in (json.loads(cells["answer"]), line["answer"]):
                assert np.array(found, np.float32).tobytes() == row.answer
    with pytest.raises(InputError, match=r"unknown ending for|unknown ending"):
        export_log(rows, tmp_path / "log.txt")


# Killed --------------------------------------------------------------------------------------------------------------

CLIENT = """
import sys, time
import numpy as np
import metav
from linear_fingerprints import answers, linear_fingerprint, weights

matrix = weights(derived=True, seed=700)

def slow(queries):
    with open(sys.argv[2], "ab") as file:
        file.write(np.asarray(queries, np.float32).tobytes())
    time.sleep(0.01)
    return answers(matrix, queries)

fp = linear_fingerprint()
print("ready", flush=True)
verdict = metav.verify(fp, slow, accepts="numpy", log=sys.argv[1], batch_size=2, repeats=0, shuffle=True)
print(verdict.to_json())
"""

KILLS = (3, 8, 8)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("run", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_run_ends_with_the_same_verdict_and_asks_nothing_twice(tmp_path, run):
    random = np.random.default_rng(run)
    log, asked = tmp_path / "run.db", tmp_path / "asked"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(HELPERS)])}
    kills, known = 0, set()
    while True:
        start = asked.stat().st_size if asked.exists() else 0
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, log, asked], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert client.stdout.readline() == "ready\n"
        if kills < KILLS[run]:
            time.sleep(random.uniform(0.0, 0.25))
            client.send_signal(signal.SIGKILL)
        output = client.communicate(timeout=60)[0]
        sent = np.frombuffer(asked.read_bytes()[start:] if asked.exists() else b"", np.float32).reshape(-1, 4)
        assert not known & {row.tobytes() for row in sent}, "a query whose answer was in the log"
        if client.returncode == 0:
            break
        kills += 1
        rows = _rows_or_none(log)
        plan_digests = {_digest(row): row.tobytes() for row in FP.queries}
        known = {plan_digests[row.query] for row in rows if row.event == "answered"}
    verdict = json.loads(output)
    whole = metav.verify(
        FP, lambda queries: answers(COPY, queries), accepts="numpy", batch_size=2, repeats=0, shuffle=True
    ).to_dict()
    ignored = {"asking", "suspect"}
    assert {k: v for k, v in verdict.items() if k not in ignored} == {
        k: v for k, v in whole.items() if k not in ignored
    }
    rows = read_log(log)
    assert rows[-1].hash == verdict["asking"]["head"]
    assert sum(row.event == "answered" for row in rows) == 48
    assert sorted(os.listdir(tmp_path)) == ["asked", "run.db"]


def _rows_or_none(log: Path) -> list:
    if not log.exists():
        return []
    try:
        return read_log(log)
    except QueryLogError as error:
        if "holds no rows" in str(error):  # killed before the first row
            return []
        raise


def _digest(query: np.ndarray) -> str:
    from metav.suspects.asking_plan import _digest as digest

    return digest(bytes.fromhex(FP.salt), query)
