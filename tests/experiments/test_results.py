"""Tables and figures from recorded runs: every figure in them by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metav.errors import InputError
from metav.experiments.attacks.registry import ATTACKS
from metav.experiments.results.accusations import accusations_lines, accusations_table, publish_accusations
from metav.experiments.results.cost_tables import cost_table, costs_of, growth_table
from metav.experiments.results.family_tables import (
    ablation_table,
    apart_table,
    family_table,
    rivals_table,
    without_table,
)
from metav.experiments.results.publishing import commands_of, publish
from metav.experiments.results.rate_tables import LATENT_ATTACKS, forms_table, regime_table
from metav.experiments.results.report import write_report
from metav.experiments.results.run_records import evaluation_of, matches, summary_line, sweep, true_positives_at
from metav.experiments.results.tables import all_tables, failed_table
from metav.experiments.runs.records import read_record, settings_key, write_record
from metav.experiments.scenarios.registry import EXPERIMENT_TASKS
from metav.reports.experiment_plots import (
    plot_misses,
    plot_parts,
    plot_queries,
    plot_rates,
    plot_robustness,
    plot_roc,
    plot_sweep,
)
from metav.statistics.intervals import exact_interval

SCORES = {"finetune_all": [0.9, 0.8], "distill_same": [0.6, 0.3]}
INDEPENDENT = {"independent_same_data": [0.1, 0.2, 0.4, 0.55]}


def recorded(regime: str = "full", seed: int = 1, owner: int = 0, **changes: Any) -> dict[str, Any]:
    """A run's record with known scores: TPR 3/4, TNR 3/4, AUC 14/16, ARUC 0.4."""
    suspects = [
        {
            "family": family,
            "is_positive": positive,
            "decision": "MATCH" if score >= 0.5 else "NO_MATCH",
            "score": score,
            "p_value": 0.1,
            "logit": 10 * score,
            "reason": None,
        }
        for positive, families in ((True, SCORES), (False, INDEPENDENT))
        for family, scores in families.items()
        for score in scores
    ]
    record: dict[str, Any] = {
        "task": "digits",
        "scale": "smoke",
        "regime": regime,
        "group": regime.partition(":")[0],
        "seed": seed,
        "owner_seed": owner,
        "owner_recipe": "adam",
        "recipe": "told",
        "device": "cpu",
        "versions": {"metav": "0"},
        "settings": {"regime": {"without": ["distill_same"] if regime.startswith("without") else []}},
        "fingerprint": {"file": "gone.metav"},
        "seconds": {"fingerprint": 2.0, "evaluation": 0.8},
        "baselines": {},
        "evaluation": {"suspects": suspects, "queries": 10, "commitment": "c"},
    }
    record["evaluation"] = evaluation_of(record).to_dict()
    return record | changes


def with_decisions(record: dict[str, Any], decisions: dict[str, str]) -> dict[str, Any]:
    """A record whose families in `decisions` were all judged so."""
    for entry in record["evaluation"]["suspects"]:
        entry["decision"] = decisions.get(entry["family"], entry["decision"])
    return record


def baseline(scores: list[float | None]) -> dict[str, Any]:
    origin = [(e["family"], e["is_positive"]) for e in recorded()["evaluation"]["suspects"]]
    return {
        "suspects": [
            {"family": family, "is_positive": positive, "score": score}
            for (family, positive), score in zip(origin, scores, strict=True)
        ],
        "seconds": {"fit": 3.0, "score": 0.1},
    }


def cells(table: str, row: int) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[2 + row].strip("|").split("|")]


def test_a_record_gives_back_its_evaluation():
    record = recorded()
    evaluation = evaluation_of(json.loads(json.dumps(record)))
    assert evaluation.to_dict() == record["evaluation"]
    assert (evaluation.tpr.count, evaluation.tpr.total) == (3, 4)
    assert (evaluation.tnr.count, evaluation.tnr.total) == (3, 4)
    assert evaluation.auc == 14 / 16
    assert summary_line(record) == (
        "digits smoke full, owner 0, seed 1: found 3/4, accused 1/4, undecided 0 and 0, AUC 0.875, ARUC 0.400"
    )


def test_rates_count_each_suspect_once_whatever_the_number_of_seeds():
    runs = [recorded(seed=seed, owner=owner) for owner in (0, 1) for seed in (1, 2, 3)]
    row = cells(regime_table(runs), 0)
    assert row[:3] == ["full", "told", "metav"]
    assert row[3].startswith("6/8 (")
    assert row[4].startswith("2/8 (")
    assert row[5:7] == ["0/24", "0/24"]
    assert row[7] == "0.875 ± 0.000"


def test_a_rate_of_several_seeds_is_rounded_against_metav():
    # one of two seeds misses a derived suspect more, and accuses an honest one more
    runs = [
        recorded(seed=1),
        with_decisions(recorded(seed=2), {"finetune_all": "NO_MATCH", "independent_same_data": "MATCH"}),
    ]
    found, accused = (matches(runs, "metav", derived=derived) for derived in (True, False))
    assert (found.count, found.total) == (2, 4)  # 3 of 4 and 1 of 4
    assert (accused.count, accused.total) == (3, 4)  # 1 of 4 and 4 of 4: two and a half


def test_who_got_no_verdict_is_neither_found_nor_accused_and_ranks_lowest():
    run = with_decisions(recorded(), {"finetune_all": "INCONCLUSIVE"})
    row = cells(regime_table([run]), 0)
    assert row[3].startswith("1/4 (")
    assert row[5:7] == ["2/4", "0/4"]
    # two derived suspects below all four honest ones; of the others 0.6 is above all, 0.3 above two
    assert row[7] == f"{6 / 16:.3f}"


def test_baselines_stand_beside_and_aruc_only_where_scores_are_shares():
    scheme = baseline([5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0])
    table = regime_table([recorded(baselines={"other": scheme})])
    assert cells(table, 1) == ["full", "told", "other", "-", "-", "-", "-", "1.000", "-", "1.000", "1.000"]


def test_a_scheme_with_a_threshold_has_rates_and_who_has_no_score_counts_as_undecided():
    scheme = baseline([5.0, 6.0, 7.0, None, 1.0, 7.0, None, 4.0]) | {"threshold": 6.0}
    run = recorded(baselines={"other": scheme})
    row = cells(regime_table([run]), 1)
    assert row[3].startswith("2/4 (")
    assert row[4].startswith("1/4 (")
    assert row[5:7] == ["1/4", "1/4"]
    assert cells(rivals_table([run]), 0) == ["finetune_all", "derived", "2/2", "1/2"]
    assert cells(forms_table([run]), 0) == ["full", "2/4; 1/4"]


def test_each_part_of_the_method_has_a_row_the_whole_first_and_kinds_of_suspects_apart():
    runs = [recorded(f"ablation:{name}") for name in ("novelty", "nothing")]
    for entry in runs[0]["evaluation"]["suspects"][-2:]:
        entry["family"] = "noise_new"
    table = ablation_table(runs)
    assert [cells(table, row)[0] for row in range(2)] == ["nothing", "novelty"]
    assert cells(table, 0)[2].startswith("3/4")
    assert cells(table, 0)[3].startswith("1/4")
    assert cells(table, 1)[3].startswith("0/2")
    assert cells(table, 1)[4].startswith("1/2")


def test_accusations_are_counted_by_kind_and_by_what_metav_was_told():
    def record(recipe: str, decisions: list[str]) -> dict[str, Any]:
        honest = [{"run": str(n), "family": "ab"[n % 2], "decision": name} for n, name in enumerate(decisions)]
        return {"task": "digits", "owner_seed": 1, "owner_recipe": "sgd", "recipe": recipe, "honest": honest}

    records = [record("told", ["MATCH", "NO_MATCH", "INCONCLUSIVE"]), record("untold", ["MATCH"] * 3)]
    table = accusations_table(records, "kind", lambda _, entry: entry["family"])
    assert cells(table, 0)[1:3] == ["1/2 (1.3% to 98.7%)", "1"]
    assert cells(table, 1)[1].startswith("0/1")
    assert cells(table, 2)[3].startswith("3/3")
    assert "recipe not told, all honest models: accused 100.0% (3/3" in accusations_lines(records)[-1]
    with pytest.raises(InputError, match="run `metav reproduce accusations` first"):
        publish_accusations([], Path())


def test_families_have_their_own_auc():
    table = family_table([recorded()])
    assert cells(table, 0) == ["finetune_all", "derived", "2/2 (15.8% to 100.0%)", "0/2", "0.850", "1.000"]
    assert cells(table, 1) == ["distill_same", "derived", "1/2 (1.3% to 98.7%)", "0/2", "0.450", "0.750"]
    assert cells(table, 2)[:3] == ["independent_same_data", "independent", "1/4 (0.6% to 80.6%)"]


def test_a_family_left_out_is_compared_with_the_full_zoo():
    table = without_table([recorded(), recorded("without:distill_same")])
    assert cells(table, 0) == ["distill_same", "1/2", "1/2", "0.750", "0.750", "-"]


def test_sweeps_are_ordered_by_number_not_by_text():
    runs = [recorded(f"queries:{count}") for count in (100, 2, 20)]
    assert [cells(regime_table(runs), row)[0] for row in range(3)] == ["queries:2", "queries:20", "queries:100"]
    assert sweep(runs, "queries") == {"metav": {100: [0.875], 2: [0.875], 20: [0.875]}}


def test_what_failed_is_listed_and_counts_nowhere():
    failed = recorded("few", baselines={"other": {"failed": "InputError: no"}}, failed="ZooError: too small")
    del failed["evaluation"]
    assert regime_table([failed]) == ""
    assert "too small" in failed_table([failed])
    assert cells(failed_table([failed]), 1) == ["few", "1", "other", "InputError: no"]
    assert "ZooError: too small" in summary_line(failed)
    assert "## Failed" in all_tables([recorded(), failed], [])


def test_costs_are_those_of_one_owner_and_one_verdict():
    materials = [{"seconds": {"owner": 1.0, "zoo": 10.0}}, {"seconds": {"owner": 3.0, "zoo": 30.0}}]
    costs = costs_of([recorded(baselines={"other": baseline([0.0] * 8)})], materials)
    assert costs == {
        "owner": 2.0,
        "zoo": 20.0,
        "fingerprint": 2.0,
        "one verdict": pytest.approx(0.1),
        "other, fit": 3.0,
    }


def test_costs_are_told_in_trainings_of_the_owner_and_what_more_surrogates_buy():
    materials = [{"seconds": {"owner": 2.0, "zoo": 40.0}, "settings": {"sizes": {"surrogates": 40}}}]
    runs = [recorded(), recorded("surrogates:10", seed=1), recorded("surrogates:10", seed=2)]
    assert cells(cost_table(runs, materials), 1) == ["zoo", "40", "20"]
    table = growth_table(runs, materials)
    # a quarter of the zoo's 40 s, and 2 s of the fingerprint, over the owner's 2 s
    assert cells(table, 0) == ["10", "6", "0.875 ± 0.000", "0.400 ± 0.000"]
    assert cells(table, 1)[:2] == ["40", "21"]
    assert growth_table(runs, []) == ""
    assert cells(cost_table(runs, []), 0)[2] == "-"


def test_suspects_that_are_of_no_use_are_listed_apart():
    families = {
        "weight_prune": {"is_positive": True, "count": 3, "useful": 1, "lost": [0.05, 0.4]},
        "quantize": {"is_positive": True, "count": 2, "useful": 2, "lost": [0.0, 0.1]},
        "independent_other_data": {"is_positive": False, "count": 2, "useful": 0, "lost": [0.3, 0.5]},
    }
    materials = [{"settings": {"owner_seed": 4}, "suspects": {"families": families}}]
    table = apart_table(materials)
    assert cells(table, 0) == ["4", "weight_prune", "2/3", "5% to 40%"]
    assert len(table.splitlines()) == 3
    assert apart_table([{"settings": {"owner_seed": 4}, "suspects": {"families": {}}}]) == ""


def test_a_changed_latent_space_is_a_limit_that_is_told_apart():
    run = recorded()
    for entry in run["evaluation"]["suspects"]:
        if entry["family"] == "distill_same":
            entry["family"] = "rotate_latent"
    table = regime_table([run])
    assert [cells(table, row)[2] for row in range(2)] == ["metav", "metav, latent space kept"]
    assert cells(table, 0)[3].startswith("3/4")
    assert cells(table, 1)[3].startswith("2/2")
    assert len(regime_table([recorded()]).splitlines()) == 3


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.5), (0.25, 1.0), (1.0, 1.0)])
def test_true_positives_at_a_rate(rate, share):
    assert true_positives_at([0.9, 0.5], [0.1, 0.2, 0.3, 0.6], rate) == share


def test_a_report_is_written_from_json_files_alone(tmp_path):
    for seed in (1, 2):
        write_record(tmp_path / "owner0" / f"full-seed{seed}.json", recorded(seed=seed))
        write_record(tmp_path / "owner0" / f"queries-5-seed{seed}.json", recorded("queries:5", seed=seed))
    write_record(tmp_path / "owner0" / "materials.json", {"seconds": {"owner": 1.0}})
    names = {path.name for path in write_report(tmp_path)}
    # the fingerprint's file did not travel with the results, and there is no sweep over surrogates
    pictures = {"scores", "roc", "misses", "rates", "aruc", "queries", "cost"}
    assert names == {"report.md", *(f"{name}.png" for name in pictures)}
    assert all((tmp_path / name).stat().st_size > 0 for name in names)
    text = (tmp_path / "report.md").read_text()
    assert "4 runs: 1 owners, 2 seeds" in text
    assert "![roc](roc.png)" in text
    assert {path.name for path in tmp_path.iterdir()} == names | {"owner0"}


def test_a_report_without_results_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="run `metav reproduce` first"):
        write_report(tmp_path)


def tables_of(text: str) -> list[str]:
    """The Markdown tables of a text."""
    return re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)


def assert_every_table_is_headed_and_has_a_command(text: str) -> None:
    """Each table stands right below a heading of its own, in a part that names commands and versions."""
    parts = text.split("\n## ")
    assert not tables_of(parts[0])
    for part in parts[1:]:
        intro, *sections = part.split("\n### ")
        assert re.search(r"^    metav reproduce \w+ ", intro, flags=re.MULTILINE)
        assert "- versions: " in intro
        assert "- seeds of the fingerprints: " in intro
        assert not tables_of(intro)
        for section in sections:
            title, empty, *lines = section.splitlines()
            assert title
            assert not empty
            assert len(tables_of(section + "\n")) == 1
            widths = {len(re.split(r"(?<!\\)\|", line)) for line in lines if line}
            assert len(widths) == 1


def test_a_published_page_has_every_table_of_the_report_below_a_heading_and_a_command(tmp_path):
    for seed in (1, 2):
        for regime in ("full", "queries:5", "without:distill_same"):
            path = tmp_path / "results" / "digits-smoke" / "owner0" / f"{regime.replace(':', '-')}-seed{seed}.json"
            write_record(path, recorded(regime, seed=seed))
    built = {"seconds": {"owner": 1.0}, "settings": {"owner_seed": 0}}
    write_record(tmp_path / "results" / "digits-smoke" / "owner0" / "materials.json", built)
    write_report(tmp_path / "results" / "digits-smoke")
    page = publish("digits", tmp_path / "results", tmp_path / "docs").read_text()
    report = tables_of((tmp_path / "results" / "digits-smoke" / "report.md").read_text())
    assert len(report) == 5
    assert tables_of(page) == report
    assert_every_table_is_headed_and_has_a_command(page)


def test_the_development_owner_other_scales_and_other_versions_stand_apart_on_a_page(tmp_path):
    records = [
        recorded(owner=0, scale="small"),
        recorded(owner=1, scale="small"),
        recorded(owner=2, scale="small"),
        recorded(owner=2, scale="small", seed=2, versions={"metav": "1"}),
        recorded(owner=0, scale="paper"),
    ]
    for number, record in enumerate(records):
        write_record(tmp_path / f"digits-{record['scale']}" / f"{number}.json", record)
    page = publish("digits", tmp_path, tmp_path / "docs").read_text()
    titles = re.findall(r"^## (.*)$", page, flags=re.MULTILINE)
    assert titles == [
        "Scale paper, development owner",
        "Scale small, owners 1, 2",
        "Scale small, owner 2",
        "Scale small, development owner",
    ]
    assert page.count("the development owner: not a blind test") == 2


def test_the_commands_of_a_page_name_what_the_runs_were_made_with():
    runs = [recorded(regime, seed=seed, owner=1) for seed in (1, 2) for regime in ("queries:10", "queries:5", "full")]
    runs += [recorded("few", owner=1), recorded(owner=3, device="cuda:0", baselines={"other": {"failed": "no"}})]
    assert commands_of(runs) == [
        "metav reproduce digits --scale smoke --owner 1 --seeds 1 --regimes few",
        "metav reproduce digits --scale smoke --owner 1 --seeds 1,2 --regimes full,queries:5,queries:10",
        "metav reproduce digits --scale smoke --owner 3 --device cuda:0 --seeds 1 --regimes full --baselines",
    ]
    full = [recorded(task="skin", scale="paper"), recorded("leaked", task="skin", scale="paper")]
    assert commands_of(full) == [
        "metav reproduce skin --data FOLDER --scale paper --owner 0 --seeds 1 --regimes full --no-baselines",
        "metav reproduce skin --data FOLDER --scale paper --owner 0 --seeds 1 --regimes leaked",
    ]


def test_a_page_without_results_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="run `metav reproduce` first"):
        publish("digits", tmp_path, tmp_path)


@pytest.mark.parametrize("name", EXPERIMENT_TASKS)
def test_the_published_results_are_pages_of_this_form(name):
    text = (Path(__file__).parents[2] / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# Results: {name}\n")
    assert tables_of(text)
    assert_every_table_is_headed_and_has_a_command(text)


def test_the_tables_know_every_attack_that_changes_a_latent_space():
    assert set(LATENT_ATTACKS) == {name for name, attack in ATTACKS.items() if attack.maps_latent}


def test_a_damaged_record_counts_as_none(tmp_path):
    path = tmp_path / "run.json"
    write_record(path, {"a": 1.5})
    assert read_record(path) == {"a": 1.5}
    path.write_text(path.read_text()[:4])
    assert read_record(path) == {}
    assert read_record(tmp_path / "absent.json") == {}


def test_keys_follow_every_setting():
    assert settings_key({"a": 1, "b": [2]}) == settings_key({"b": [2], "a": 1})
    assert settings_key({"a": 1}) != settings_key({"a": 2})


def test_roc_and_robustness_pass_through_the_points_of_the_scores():
    axes = plot_roc({"metav": ([0.9, 0.4], [0.1, 0.5])})
    assert "metav (0.750)" in [text.get_text() for text in axes.get_legend().get_texts()]
    np.testing.assert_allclose(axes.lines[1].get_xydata(), [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]])
    lines = plot_robustness([0.8], [0.2]).lines
    at_half = [line.get_ydata()[np.searchsorted(line.get_xdata(), 0.5)] for line in lines]
    assert at_half == [1.0, 1.0]


def test_misses_are_drawn_over_accusations_with_the_point_of_the_threshold():
    axes = plot_misses({"metav": ([0.9, 0.4], [0.1, 0.5])}, points={"metav": (0.5, 0.25)})
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 1], [0, 0.5], [0.5, 0.5], [0.5, 0], [1, 0]])
    np.testing.assert_allclose(axes.lines[1].get_xydata(), [[0.5, 0.25]])


def test_rates_are_drawn_with_their_exact_intervals_and_parts_with_a_marker_for_each_quantity():
    share = exact_interval(3, 4)
    lines = plot_rates([("finetune_all", "derived", share)]).lines
    np.testing.assert_allclose(lines[0].get_xdata(), [share.low, share.high])
    np.testing.assert_allclose(lines[1].get_xdata(), [0.75])
    axes = plot_parts({"nothing": {"found": share, "accused": exact_interval(0, 4)}, "novelty": {"found": share}})
    assert [text.get_text() for text in axes.get_yticklabels()] == ["nothing", "novelty"]
    assert [len(container.lines[0].get_xdata()) for container in axes.containers] == [2, 1]


def test_sweeps_show_means_and_extremes():
    axes = plot_sweep({"metav": {2: [0.5, 0.7], 10: [0.9, 0.9]}}, label="queries")
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[2, 0.6], [10, 0.9]])
    assert axes.get_xlabel() == "queries"


def test_queries_are_drawn_as_a_mosaic_of_both_kinds_or_as_a_heat_map():
    images = np.concatenate([np.zeros((60, 1, 3, 4)), np.ones((20, 1, 3, 4))])
    picture = plot_queries(images, adaptive=60, limit=8, columns=4).images[0].get_array()
    assert picture.shape == (2 * 4, 4 * 5)
    assert picture[0, 0] == 0.0  # the first of six optimised ones
    assert picture[4, 10] == 1.0  # the first of two natural ones
    heat = plot_queries(np.arange(12.0).reshape(3, 4), adaptive=1).images[0].get_array()
    np.testing.assert_array_equal(heat, np.arange(12.0).reshape(3, 4))
    with pytest.raises(InputError, match="queries must have shape"):
        plot_queries(np.zeros(3), adaptive=1)
