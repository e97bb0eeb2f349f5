"""`metav reproduce`, for real at its smallest scale: files, tables, figures, and that nothing is made twice."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from reproduce_command import reproduce as shell
from torch import nn

from metav.cli.commands import main
from metav.errors import InputError
from metav.experiments.attacks.registry import LEAK_ATTACKS
from metav.experiments.results.report import write_report
from metav.experiments.runs.accusations import HONEST_COUNTS, owners_of
from metav.experiments.runs.prepared_models import Plan
from metav.experiments.runs.regimes import all_regimes
from metav.experiments.runs.reproduction import parse_seeds, reproduce
from metav.experiments.runs.rivals import divided, ranking, rival_threshold
from metav.experiments.scenarios.digits import digits_scenario
from metav.experiments.scenarios.registry import EXPERIMENT_TASKS
from metav.statistics.calibration import threshold_above
from metav.support.randomness import single_thread
from metav.zoo.untrained_copies import OWNER_COPIES
from metav.zoo.zoo import Zoo, ZooModel

OWNER_TRAININGS = 46
"""How long the smallest scale may take: a minute where the owner's model of the full size trains in 1.3 seconds."""


def seconds_of_training() -> float:
    """How long the processor takes to train the owner's model of the full size, in this thread."""
    with single_thread():
        start = time.thread_time()
        digits_scenario(0).train_owner(0)
        return time.thread_time() - start


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduce")


REGIMES = ("full", "form:percent", "nonsense", "few", "queries:2", "front:blur", "leaked")
"""One of each kind that the tests look into; all of them are run by the slow test alone."""


@pytest.fixture(scope="module")
def made(workplace: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user runs it."""
    return shell("digits", "--scale", "smoke", "--json", "--regimes", ",".join(REGIMES), cwd=workplace)


@pytest.fixture
def results(made: subprocess.CompletedProcess[str], workplace: Path) -> Path:
    assert made.returncode == 0, made.stderr
    return workplace / "results" / "digits-smoke"


def test_the_regimes_asked_for_are_run_and_summarised(made, results):
    summaries = json.loads(made.stdout)
    assert [entry["regime"] for entry in summaries] == list(REGIMES)
    assert not [entry for entry in summaries if "failed" in entry]


@pytest.mark.slow
def test_the_smoke_scale_runs_every_regime_within_a_minute(tmp_path):
    seconds_of_training()  # the first imports much
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # of the processor, as other programs must not fail this; trainings beside it, which share what they slow down, tell
    # how fast the machine is meanwhile
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(shell, "digits", "--scale", "smoke", "--jobs", "1", "--json", cwd=tmp_path)
        trainings = [seconds_of_training()]
        while not running.done():
            trainings.append(seconds_of_training())
    done = running.result()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < OWNER_TRAININGS * statistics.mean(trainings)
    summaries = json.loads(done.stdout)
    wanted = [entry.name for entry in all_regimes(digits_scenario(0).task, EXPERIMENT_TASKS["digits"].sizes["smoke"])]
    assert [entry["regime"] for entry in summaries] == wanted
    assert not [entry for entry in summaries if "failed" in entry]
    results = tmp_path / "results" / "digits-smoke"
    text = (results / "report.md").read_text()
    for title in ("Full zoo", "Few surrogates", "Number of queries", "Output access", "Families that the zoo lacked"):
        assert f"## {title}" in text
    pictures = {path.stem for path in results.glob("*.png")}
    expected = {"scores", "roc", "misses", "rates", "aruc", "queries", "surrogates", "fingerprint", "cost"}
    assert pictures == expected


def test_each_run_is_a_file_with_all_that_it_was_made_with(results):
    record = json.loads((results / "owner0" / "full-seed1.json").read_text())
    assert (record["task"], record["regime"], record["seed"], record["device"]) == ("digits", "full", 1, "cpu")
    assert {"metav", "numpy", "python", "torch", "machine"} <= set(record["versions"])
    assert record["settings"]["options"]["queries"] == 10
    suspects = record["evaluation"]["suspects"]
    assert len(suspects) == 16
    assert {entry["is_positive"] for entry in suspects} == {True, False}
    assert record["seconds"]["fingerprint"] > 0
    materials = json.loads((results / "owner0" / "materials.json").read_text())
    assert materials["complete"]
    assert set(materials["seconds"]) == {"owner", "zoo", "suspects"}


def test_the_channels_change_what_the_same_fingerprint_sees(results):
    records = {
        name: json.loads((results / "owner0" / f"{name}-seed1.json").read_text())
        for name in ("full", "front-blur", "few")
    }
    logits = {name: [entry["logit"] for entry in record["evaluation"]["suspects"]] for name, record in records.items()}
    files = {name: record["fingerprint"]["file"] for name, record in records.items()}
    assert files["front-blur"] == files["full"] != files["few"]
    assert logits["front-blur"] != logits["full"]
    # one trained model in each share, and untrained copies of the owner's
    assert records["few"]["fingerprint"]["surrogates"]["positives"] == 3 + OWNER_COPIES
    assert records["full"]["fingerprint"]["surrogates"]["positives"] == 14


def test_what_metav_is_told_of_the_owners_recipe_stands_in_every_record(results):
    records = [json.loads(path.read_text()) for path in (results / "owner0").glob("*-seed1.json")]
    assert {record["recipe"] for record in records if "regime" in record} == {"told"}
    assert {record["owner_recipe"] for record in records} == {"adam"}
    full = json.loads((results / "owner0" / "full-seed1.json").read_text())
    assert "independent_same_recipe" in {entry["family"] for entry in full["evaluation"]["suspects"]}


def test_nonsense_and_forms_are_asked_of_the_fingerprint_of_the_full_regime(results):
    full, form, nonsense = (
        json.loads((results / "owner0" / f"{name}-seed1.json").read_text())
        for name in ("full", "form-percent", "nonsense")
    )
    assert form["fingerprint"]["file"] == nonsense["fingerprint"]["file"] == full["fingerprint"]["file"]
    assert len(form["evaluation"]["suspects"]) == 4
    honest = [entry for entry in nonsense["evaluation"]["suspects"] if not entry["is_positive"]]
    assert {entry["family"] for entry in honest} == {"noise_new", "noise_fixed", "untrained", "constant"}
    # percent are read as what they are
    assert not [entry for entry in form["evaluation"]["suspects"] if entry["decision"] == "INCONCLUSIVE"]


def test_a_leaked_fingerprint_is_unlearned_for_each_fingerprint(results):
    full, leaked = (json.loads((results / "owner0" / f"{name}-seed1.json").read_text()) for name in ("full", "leaked"))
    assert leaked["fingerprint"]["file"] == full["fingerprint"]["file"]
    assert set(leaked["suspects"]["families"]) == set(LEAK_ATTACKS)
    suspects = leaked["evaluation"]["suspects"]
    derived = [entry["family"] for entry in suspects if entry["is_positive"]]
    useful = [name for name, entry in leaked["suspects"]["families"].items() for _ in range(entry["useful"])]
    assert sorted(derived) == sorted(useful)
    independent = [entry["family"] for entry in full["evaluation"]["suspects"] if not entry["is_positive"]]
    assert [entry["family"] for entry in suspects if not entry["is_positive"]] == independent
    assert leaked["baselines"] == {}


def test_tables_and_figures_are_written(results):
    text = (results / "report.md").read_text()
    titles = ("Full zoo", "Few surrogates", "Number of queries", "A leaked fingerprint, unlearned by the thief")
    for title in (*titles, "Suspects that are no model of the task", "The form of the answers"):
        assert f"## {title}" in text
    expected = {"scores", "roc", "misses", "rates", "aruc", "queries", "fingerprint", "cost"}
    assert {path.stem for path in results.glob("*.png")} == expected


def test_what_is_there_is_not_made_again_and_what_is_lost_is_made_alike(results, workplace, monkeypatch):
    folder = results / "owner0"
    lost, damaged = folder / "front-blur-seed1.json", folder / "queries-2-seed1.json"
    before = {path: (path.stat().st_mtime_ns, json.loads(path.read_text())) for path in folder.glob("*-seed1.json")}
    materials = json.loads((folder / "materials.json").read_text())
    lost.unlink()
    damaged.write_text("{")
    shutil.rmtree(folder / "fingerprints")
    monkeypatch.chdir(workplace)
    with single_thread():
        done = CliRunner().invoke(main, ["reproduce", "digits", "--scale", "smoke", "--regimes", ",".join(REGIMES)])
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("(there already)") == len(before) - 2
    for path, (changed, record) in before.items():
        again = json.loads(path.read_text())
        assert again["evaluation"] == record["evaluation"]
        assert (path.stat().st_mtime_ns == changed) == (path not in (lost, damaged))
    # what the models cost is not what it took to find them again
    assert json.loads((folder / "materials.json").read_text())["seconds"] == materials["seconds"]


def test_a_baseline_is_fitted_on_the_regimes_zoo_and_scored_on_the_same_suspects(made, workplace, tmp_path):
    seen: list[Any] = []

    class Accuracy:
        @classmethod
        def supports(cls, task):
            return True

        def fit(self, owner, task, zoo, *, queries, seed):
            seen.append((zoo, queries, seed))
            self.task = task
            return self

        def score(self, suspect):
            return float(self.task.metric(suspect))

    class Refusing(Accuracy):
        def fit(self, owner, task, zoo, *, queries, seed):
            raise InputError("cannot do this")

    class Elsewhere(Accuracy):
        @classmethod
        def supports(cls, task):
            return False

    plan = Plan(
        task="digits",
        scale_name="smoke",
        data=None,
        owner_seed=0,
        cache=workplace / "zoo-reproduce",
        output=tmp_path,
        progress=False,
    )
    schemes = {"accuracy": Accuracy, "refusing": Refusing, "elsewhere": Elsewhere}
    (run,) = reproduce(plan, seeds=[5], regimes=["few"], baselines=schemes)
    assert set(run.record["baselines"]) == {"accuracy", "refusing"}
    assert run.record["baselines"]["refusing"] == {"failed": "InputError: cannot do this"}
    # regimes that differ only in suspects share one fit
    assert len(list(reproduce(plan, seeds=[5], regimes=["full", "nonsense"], baselines={"accuracy": Accuracy}))) == 2
    assert [seed for _, _, seed in seen] == [5, 5]
    zoo, queries, seed = seen[0]
    assert (zoo.summary()["positives"], queries, seed) == (3, 10, 5)
    scored = run.record["baselines"]["accuracy"]["suspects"]
    judged = run.record["evaluation"]["suspects"]
    assert [entry["family"] for entry in scored] == [entry["family"] for entry in judged]
    assert run.record["baselines"]["accuracy"]["threshold"] is None  # one model calibrates
    assert all(0 <= entry["score"] <= 1 for entry in scored)
    # with other schemes beside it, a run is another run
    (again,) = reproduce(plan, seeds=[5], regimes=["few"], baselines={"accuracy": Accuracy})
    assert not again.found


@pytest.mark.slow
def test_each_part_of_the_method_is_left_out_and_relatives_of_a_base_are_judged(workplace, tmp_path, monkeypatch):
    entry = EXPERIMENT_TASKS["digits"]
    sizes = {**entry.sizes, "smoke": replace(entry.sizes["smoke"], ablations=True, base=True)}
    changed = {**EXPERIMENT_TASKS, "digits": replace(entry, sizes=sizes)}
    for module in ("runs.prepared_models", "scenarios.registry"):
        monkeypatch.setattr(f"metav.experiments.{module}.EXPERIMENT_TASKS", changed)
    plan = Plan(
        task="digits",
        scale_name="smoke",
        data=None,
        owner_seed=0,
        cache=workplace / "zoo-reproduce",
        output=tmp_path,
        progress=False,
    )
    with single_thread():
        records = {
            run.record["regime"]: run.record
            for run in reproduce(plan, seeds=[1], regimes=["recipe", "ablation", "base"])
        }
    assert not [name for name, record in records.items() if "failed" in record]
    suspects = {name: record["evaluation"]["suspects"] for name, record in records.items()}
    whole = suspects["ablation:nothing"]
    families = {entry["family"] for entry in whole}
    assert {"noise_new", "constant", "honest_in_another_form", "independent_same_recipe"} <= families
    # what is no part of a verdict any more gives no reason for one
    for name, reason in (("competence", "not_competent"), ("novelty", "unlike_any")):
        assert reason not in {entry["reason"] for entry in suspects[f"ablation:{name}"]}
    files = {name: record["fingerprint"]["file"] for name, record in records.items()}
    shared = [files[f"ablation:{name}"] for name in ("competence", "novelty", "threshold by independents")]
    assert set(shared) == {files["ablation:nothing"]} == {files["recipe:told"]}
    assert files["recipe:untold"] == files["ablation:told recipe"]
    assert records["recipe:untold"]["recipe"] == "untold"
    others = ("told recipe", "all recipes", "division by spread", "free negatives")
    assert len({files["ablation:nothing"], *(files[f"ablation:{name}"] for name in others)}) == 5
    assert {records[name]["owner_recipe"] for name in ("base:told", "base:untold")} == {"adam, from a public base"}
    assert records["base:told"]["settings"]["from_base"]
    write_report(tmp_path / "digits-smoke")
    text = (tmp_path / "digits-smoke" / "report.md").read_text()
    assert "| without | told | derived found |" in text


@pytest.mark.slow
def test_a_background_run_leaves_the_terminal_and_tells_where_its_messages_are(made, workplace):
    done = shell("digits", "--scale", "smoke", "--regimes", "full", "--background", cwd=workplace)
    assert done.returncode == 0, done.stderr
    process = int(done.stderr.split()[1])
    assert "results/digits-smoke/owner0/log.txt" in done.stderr
    _wait_for(process)
    log = (workplace / "results" / "digits-smoke" / "owner0" / "log.txt").read_text()
    assert "digits smoke full, owner 0, seed 1" in log
    assert "report.md" in log


def _wait_for(process: int) -> None:
    """Until a process that is not ours to wait for has ended."""
    import time

    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        state = Path(f"/proc/{process}/stat")
        try:
            # a zombie has ended, too, where nobody reaps it
            if state.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.2)
    os.kill(process, 15)
    raise AssertionError("the background run did not end")


def planned_zoo() -> Zoo:
    models = tuple(
        ZooModel(
            model=nn.Identity(),
            is_positive=positive,
            family="any",
            strength=None,
            seed=0,
            run=f"{share}/{positive}/{number}",
            fraction=1.0,
            share=share,
            architecture=0,
            metric=0.9,
        )
        for share in ("optimize", "select", "calibrate")
        for positive in (True, False)
        for number in range(8)
    )
    return Zoo(models=models, owner_digest="owner", task_digest="task", seed=0)


def test_what_sets_a_schemes_threshold_is_nothing_that_it_learned_from():
    zoo = planned_zoo()
    learned, calibrating = divided(zoo)
    assert {entry.share for entry in learned.models} == {"optimize", "select"}
    assert calibrating
    assert all(entry.share == "calibrate" and not entry.is_positive for entry in calibrating)
    assert not set(learned.models) & set(calibrating)
    few = replace(zoo, models=(*learned.models, *calibrating[:2]))
    assert divided(few) == (few, [])


def test_a_schemes_threshold_lies_above_all_negatives_and_within_reach():
    scores = [0.001, 0.004, 0.02, 0.03, 0.2, 0.3, 0.45, 0.001, 0.002, 0.01]
    threshold = rival_threshold(scores, 0.01)
    assert max(scores) < threshold < 1.0
    assert rival_threshold([-3.0, 2.0, 4.0], 0.01) == threshold_above(np.array([-3.0, 2.0, 4.0]), 0.01)


def test_honest_models_are_counted_resumed_and_published(workplace, monkeypatch, tmp_path):
    monkeypatch.chdir(workplace)
    command = ["reproduce", "accusations", "--scale", "smoke", "--no-progress", "--json", "--publish", str(tmp_path)]
    with single_thread():
        done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.stderr
    records = json.loads(done.stdout)
    assert [record["recipe"] for record in records] == ["told", "untold"]
    assert {record["owner_recipe"] for record in records} == {"sgd"}
    first, second = ([entry["run"] for entry in record["honest"]] for record in records)
    assert first == second
    assert len(set(first)) == 9
    assert done.stderr.count("all honest models: accused") == 2
    page = (tmp_path / "accusations.md").read_text()
    assert "- honest models, all different: 9" in page
    assert "| all |" in page
    before = {path: path.stat().st_mtime_ns for path in (workplace / "results" / "accusations").glob("*.json")}
    assert CliRunner().invoke(main, command).exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_more_than_a_thousand_honest_models_are_judged_at_the_small_scale():
    assert len(owners_of("small")) * sum(HONEST_COUNTS["small"].values()) >= 1000
    assert len({owner % 3 for _, owner in owners_of("small")}) == 3


def test_seeds_and_rankings():
    assert ranking([True, True, False], [3.0, None, 2.0]) == {"auc": 0.5, "aruc": None}
    assert parse_seeds("1, 2,3") == [1, 2, 3]
    assert ranking([True, True, False], [3.0, 1.0, 2.0]) == {"auc": 0.5, "aruc": None}
    assert ranking([True, False], [1.0, 0.0]) == {"auc": 1.0, "aruc": 1.0}
