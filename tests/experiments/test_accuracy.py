"""The experiments' accuracy tables, at a small size, from data to table."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from metav.errors import InputError
from metav.experiments.accuracy import Protocol, run_accuracy, scenario_of, table, write_runs


def test_a_small_run_gives_a_table_and_a_file(tmp_path):
    sizes = Protocol(surrogates=14, suspects=4, queries=10)
    run = run_accuracy("digits", 9, protocol=sizes, cache=tmp_path / "zoo", progress=False)
    text = table([run])
    assert "| 9 |" in text
    assert "| all |" in text
    assert (run.evaluation.tpr.total, run.evaluation.tnr.total) == (4, 4)
    write_runs([run], tmp_path / "results")
    record = json.loads((tmp_path / "results" / "digits-9.json").read_text())
    assert (record["task"], record["seed"]) == ("digits", 9)
    assert record["evaluation"]["auc"] == pytest.approx(run.evaluation.auc)
    assert set(record["seconds"]) == {"owner", "zoo", "fingerprint", "suspects", "evaluation"}


def test_real_data_need_a_folder():
    with pytest.raises(InputError, match="warfarin needs the folder of the real data sets; pass --data"):
        scenario_of("warfarin", None, 0)


def test_the_command_tells_its_options_and_refuses_unknown_tasks():
    command = [sys.executable, "-m", "metav.experiments"]
    assert "--data" in subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    refused = subprocess.run([*command, "skies"], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "skies" in refused.stderr
