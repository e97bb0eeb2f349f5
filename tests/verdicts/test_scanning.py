"""Many suspects: each judged as alone, results kept as they come, p-values corrected together."""

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
from linear_fingerprints import answers, linear_fingerprint, weights

import metav
from metav.errors import InputError
from metav.statistics.corrections import holm
from metav.suspects.asking_options import AskingOptions
from metav.suspects.callables import CallableSuspect
from metav.suspects.log_rows import read_log
from metav.verdicts.scan_store import write_table
from metav.verdicts.suspect_lists import SuspectEntry, SuspectList, read_suspects

FP = linear_fingerprint()
HELPERS = Path(__file__).parents[1] / "helpers"


def matrix(number: int) -> np.ndarray:
    return weights(derived=number % 5 == 0, seed=700 + number)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Recorded answers of 12 suspects, a file of another kind, one that is broken, and one of another task."""
    (tmp_path / "answers/more").mkdir(parents=True)
    for number in range(12):
        place = tmp_path / "answers" / ("more" if number > 8 else "")
        np.save(place / f"s{number:02}.npy", answers(matrix(number), FP.queries))
    (tmp_path / "answers/readme.txt").write_text("not a suspect")
    (tmp_path / "answers/broken.npy").write_text("broken")
    np.save(tmp_path / "answers/other.npy", np.ones((48, 7)))
    return tmp_path / "answers"


def test_each_suspect_is_judged_as_alone(folder, tmp_path):
    found = metav.scan(FP, str(folder), store=tmp_path / "scan.db")
    assert len(found.rows) == 14
    assert [Path(name).name for name in found.skipped] == ["readme.txt"]
    for row in found.rows:
        if row["name"] == "broken.npy":
            assert (row["decision"], row["reason"]) == ("INCONCLUSIVE", "unusable")
            continue
        alone = metav.verify(FP, row["source"])
        assert json.loads(row["verdict"]) == json.loads(alone.to_json())
        assert (row["decision"], row["score"]) == (alone.decision.value, alone.score)
    scored = [row for row in found.rows if row["p_value"] is not None]
    assert [row["p_holm"] for row in scored] == holm([row["p_value"] for row in scored])
    assert found.decisions["MATCH"] == 3
    assert found.decisions["INCONCLUSIVE"] == 2
    assert "14 suspects: 3 MATCH" in str(found)
    lines = str(found).splitlines()
    assert sum(line.startswith("broken.npy: ") and "cannot be read" in line for line in lines) == 1
    assert sum(line.startswith("other.npy: the suspect answer") for line in lines) == 1
    assert not any(line.startswith("s0") and ": " in line for line in lines)


def test_the_file_and_the_table_hold_the_same_rows(folder, tmp_path):
    found = metav.scan(FP, [str(folder)], store=tmp_path / "scan.db")
    with closing(sqlite3.connect(tmp_path / "scan.db")) as connection:
        stored = connection.execute("SELECT name, decision, p_holm FROM results ORDER BY name").fetchall()
    assert stored == sorted((row["name"], row["decision"], row["p_holm"]) for row in found.rows)
    write_table(found.rows, tmp_path / "scan.csv")
    with (tmp_path / "scan.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == [row["name"] for row in found.rows]
    assert not (tmp_path / "scan.db-wal").exists()


def test_workers_change_nothing(folder, tmp_path):
    alone = metav.scan(FP, [str(folder)], store=tmp_path / "one.db")
    together = metav.scan(FP, [str(folder)], store=tmp_path / "two.db", workers=2)
    assert alone.to_dict()["decisions"] == together.to_dict()["decisions"]
    for one, two in zip(alone.rows, together.rows, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in two.items() if k != "seconds"}


def test_relative_names_are_of_the_folder_of_the_scan_though_workers_outlive_it(tmp_path, monkeypatch):
    for place, derived in (("first", True), ("second", False)):
        (tmp_path / place / "answers").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        for number in range(2):
            np.save(f"answers/s{number}.npy", answers(weights(derived=derived, seed=720 + number), FP.queries))
        found = metav.scan(FP, ["answers"], store="scan.db", workers=2)
        assert [row["decision"] for row in found.rows] == ["MATCH" if derived else "NO_MATCH"] * 2


def test_a_scan_goes_on_and_asks_anew_whose_file_has_changed(folder, tmp_path):
    opened = []

    def opener(entry: SuspectEntry):
        opened.append(entry.name)
        return entry.source

    metav.scan(FP, [str(folder)], store=tmp_path / "scan.db", opener=opener)
    assert len(opened) == 14
    opened.clear()
    np.save(folder / "s03.npy", answers(matrix(0), FP.queries))
    np.save(folder / "s99.npy", answers(matrix(1), FP.queries))
    found = metav.scan(FP, [str(folder)], store=tmp_path / "scan.db", opener=opener)
    assert opened == ["s03.npy", "s99.npy"]
    assert {row["name"]: row["decision"] for row in found.rows}["s03.npy"] == "MATCH"


def test_results_of_another_fingerprint_are_not_mixed_in(folder, tmp_path):
    from dataclasses import replace

    metav.scan(FP, [str(folder)], store=tmp_path / "scan.db")
    with pytest.raises(InputError, match="holds results of another fingerprint"):
        metav.scan(replace(FP, seed=6), [str(folder)], store=tmp_path / "scan.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE mine (a)")
    with pytest.raises(InputError, match="is no file of a scan"):
        metav.scan(FP, [str(folder)], store=tmp_path / "other.db")


def test_suspects_that_run_get_a_log_each(tmp_path):
    entries = SuspectList(entries=tuple(SuspectEntry(name=f"m{number}", source=str(number)) for number in range(3)))
    found = metav.scan(
        FP,
        entries,
        store=tmp_path / "scan.db",
        logs=tmp_path / "logs",
        asking=AskingOptions(decoys=4),
        opener=lambda entry: lambda queries: answers(matrix(int(entry.source)), queries),
    )
    heads = {json.loads(row["verdict"])["asking"]["head"] for row in found.rows}
    assert {read_log(path)[-1].hash for path in (tmp_path / "logs").iterdir()} == heads
    assert len(heads) == 3
    with pytest.raises(InputError, match="one log is of one suspect"):
        metav.scan(FP, entries, store=tmp_path / "scan.db", asking=AskingOptions(log=tmp_path / "run.db"))
    with pytest.raises(InputError, match="there is none; pass logs, a folder"):
        metav.scan(FP, entries, store=tmp_path / "scan.db", asking=AskingOptions(keep_queries=True))


@pytest.mark.parametrize("keep", [True, False])
def test_the_logs_of_a_scan_hold_queries_only_where_that_is_asked_for(tmp_path, keep):
    entries = SuspectList(entries=tuple(SuspectEntry(name=f"m{number}", source=str(number)) for number in range(2)))
    asking = AskingOptions(keep_queries=keep)
    opened = []

    def opener(entry):
        opened.append(entry.name)
        return CallableSuspect(lambda queries: answers(matrix(int(entry.source)), queries), accepts="numpy")

    if keep:
        with pytest.raises(InputError, match=r"pass logs, a folder .*, as well"):
            metav.scan(FP, entries, store=tmp_path / "none.db", asking=asking, opener=opener)
        assert opened == []
    metav.scan(FP, entries, store=tmp_path / "scan.db", logs=tmp_path / "logs", asking=asking, opener=opener)
    contents = [path.read_bytes() for path in (tmp_path / "logs").iterdir()]
    assert len(contents) == 2
    assert all((row.tobytes() in content) is keep for content in contents for row in FP.queries[:5])


# Lists ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_list_names_suspects_from_its_own_folder(folder, ending):
    path = folder.parent / f"list.{ending}"
    content = {
        "suspects": [
            "answers/s00.npy",
            {
                "name": "second",
                "suspect": "models:build",
                "weights": "answers/s01.npy",
                "options": {"output": "logits"},
            },
            "https://host/v2/models/m/infer",
        ]
    }
    if ending == "yaml":
        yaml = pytest.importorskip("yaml")
        path.write_text(yaml.safe_dump(content))
    else:
        path.write_text(json.dumps(content))
    first, second, third = read_suspects([str(path)]).entries
    assert (first.name, first.source) == ("answers/s00.npy", str(folder / "s00.npy"))
    assert (second.name, second.source, second.options) == ("second", "models:build", {"output": "logits"})
    assert second.weights == str(folder / "s01.npy")
    assert third.source == "https://host/v2/models/m/infer"


def test_patterns_and_files_are_suspects_and_a_json_of_answers_is_no_list(folder):
    answers_file = folder / "a.json"
    answers_file.write_text("[[1, 2, 3]]")
    found = read_suspects([str(folder / "s0[12].npy"), str(answers_file)])
    assert [Path(entry.source).name for entry in found.entries] == ["s01.npy", "s02.npy", "a.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"suspects": []}, "must be a list of at least one suspect"),
        ({"suspects": [{"name": "a"}]}, 'is no suspect; expected a path, or an object with "suspect"'),
        ({"suspects": [{"suspect": "a", "wieghts": "b"}]}, "is no suspect"),
        ({"suspects": ["a.npy", "a.npy"]}, "two suspects are called 'a.npy'"),
        ({"suspects": [{"suspect": "a", "options": 3}]}, '"options" in .* must be an object'),
    ],
)
def test_lists_that_cannot_be_used_are_refused(tmp_path, content, message):
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_suspects([str(tmp_path / "list.json")])


def test_nothing_found_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there are no suspects in"):
        read_suspects([str(tmp_path / "empty")])
    with pytest.raises(InputError, match="no file matches"):
        read_suspects([str(tmp_path / "*.onnx")])


# Killed --------------------------------------------------------------------------------------------------------------

SCANNER = """
import sys
import metav
from linear_fingerprints import linear_fingerprint

fp = linear_fingerprint()
print("ready", flush=True)
opened = []

def opener(entry):
    opened.append(entry.name)
    return entry.source

metav.scan(fp, [sys.argv[1]], store=sys.argv[2], opener=opener)
print(len(opened))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_scan_of_500_suspects_resumes_after_a_kill_and_judges_none_twice(tmp_path):
    (tmp_path / "answers").mkdir()
    for number in range(500):
        np.save(tmp_path / f"answers/{number:03}.npy", answers(matrix(number), FP.queries))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(HELPERS)])}
    store, judged = tmp_path / "scan.db", 0
    command = [sys.executable, "-c", SCANNER, tmp_path / "answers", store]
    for _ in range(3):
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        client.stdout.readline()
        deadline = time.monotonic() + 60
        while _count(store) < judged + 40 and time.monotonic() < deadline and client.poll() is None:
            time.sleep(0.01)
        client.send_signal(signal.SIGKILL)
        client.communicate(timeout=60)
        assert judged < _count(store) < 500
        judged = _count(store)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.stdout.splitlines()[-1] == str(500 - judged)
    whole = metav.scan(FP, [str(tmp_path / "answers")], store=tmp_path / "whole.db")
    with closing(sqlite3.connect(store)) as connection:
        rows = dict(connection.execute("SELECT name, verdict FROM results"))
    assert rows == {row["name"]: row["verdict"] for row in whole.rows}


def _count(store: Path) -> int:
    """Rows in a file of results, as far as a reader can see them while it is written."""
    wal = Path(f"{store}-wal")
    if not store.exists():
        return 0
    # a copy: a reader must not get in the way of the one that writes
    copy = store.with_name("copy.db")
    copy.write_bytes(store.read_bytes())
    Path(f"{copy}-wal").write_bytes(wal.read_bytes() if wal.exists() else b"")
    try:
        with closing(sqlite3.connect(copy)) as connection:
            return connection.execute("SELECT count(*) FROM results").fetchone()[0]
    except sqlite3.Error:
        return 0
    finally:
        for ending in ("", "-wal", "-shm"):
            Path(f"{copy}{ending}").unlink(missing_ok=True)


def test_a_mistyped_folder_is_an_error_and_no_suspect(folder, tmp_path):
    with pytest.raises(metav.InputError, match=r"there is no folder and no file .*answrs; check the path"):
        metav.scan(FP, str(folder.parent / "answrs"), store=tmp_path / "scan.db")
    assert not (tmp_path / "scan.db").exists()


def test_one_suspect_is_counted_as_one(folder, tmp_path):
    assert "\n1 suspect: " in str(metav.scan(FP, str(folder / "s00.npy"), store=tmp_path / "scan.db"))
