"""Regimes of the experiments: each changes what it says, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import digits
from torch import Tensor, nn

import metav
from metav.errors import InputError, ZooError
from metav.experiments.runs.regime_groups import REGIME_GROUPS
from metav.experiments.runs.regimes import (
    CLASS_FORMS,
    FEW_FAMILIES,
    LACKS,
    NUMBER_FORMS,
    Regime,
    all_regimes,
    select_regimes,
)
from metav.experiments.scenarios.registry import EXPERIMENT_TASKS
from metav.experiments.scenarios.scales import SCALES
from metav.experiments.suspects.degradations import InputChange, OutputAccess, through_channel
from metav.obfuscations.registry import OBFUSCATIONS
from metav.optimization.options import OptimizationOptions
from metav.zoo.plan import HOMOLOGOUS, SHARES, plan_zoo
from metav.zoo.zoo import Zoo, ZooModel

LOWER, UPPER = torch.full((3, 9, 9), -1.0), torch.full((3, 9, 9), 3.0)


@pytest.fixture(scope="module")
def task() -> metav.Classification:
    images, labels = digits()
    return metav.Classification(images[:200], labels[:200], bounds=(0.0, 1.0))


@pytest.fixture(scope="module")
def zoo(task: metav.Classification) -> Zoo:
    """A planned zoo of untrained models: regimes look at their origin alone."""
    plan = plan_zoo(
        task,
        positives=56,
        negatives=40,
        architectures=3,
        seed=0,
        snapshots=2,
        families=None,
        shares=None,
        suspects=False,
    )
    models = []
    for planned in plan:
        for fraction in (*planned.snapshots, 1.0):
            models.append(
                ZooModel(
                    model=nn.Identity(),
                    is_positive=planned.is_positive,
                    family=planned.family,
                    strength=planned.strength,
                    seed=planned.seed,
                    run=planned.run,
                    fraction=fraction,
                    share=planned.share,
                    architecture=planned.architecture,
                    metric=0.9,
                )
            )
    return Zoo(models=tuple(models), owner_digest="owner", task_digest="task", seed=0)


def runs_of(zoo: Zoo) -> Counter[tuple[bool, str]]:
    """Training runs per class and share."""
    return Counter((positive, share) for _, positive, share in {(e.run, e.is_positive, e.share) for e in zoo})


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def regime(task: metav.Classification, name: str, scale: str = "small") -> Regime:
    return select_regimes(all_regimes(task, EXPERIMENT_TASKS["digits"].sizes[scale]), [name])[0]


def test_the_full_regime_changes_nothing(task, zoo):
    full, options, model = regime(task, "full"), OptimizationOptions(), nn.Identity()
    assert full.choose_zoo(zoo, 0).models == zoo.models
    assert full.choose_options(options) == options
    assert full.choose_suspect(model, task, 0) is model


def test_every_family_is_left_out_in_turn_and_nothing_else_with_it(task, zoo):
    left_out = [
        entry for entry in all_regimes(task, EXPERIMENT_TASKS["digits"].sizes["small"]) if entry.group == "without"
    ]
    singles = {entry.detail for entry in left_out if entry.detail != "students"}
    assert singles == {entry.family for entry in zoo} - {"independent_same_data"}
    students = {name for name, entry in OBFUSCATIONS.items() if entry.makes_student and entry.supports(task)}
    for entry in left_out:
        kept = entry.choose_zoo(zoo, 0).models
        assert kept == tuple(model for model in zoo if model.family not in entry.without)
        assert set(entry.without) == (students if entry.detail == "students" else {entry.detail})


def test_few_keeps_one_run_of_each_class_in_each_share_with_its_snapshots(task, zoo):
    chosen = regime(task, "few").choose_zoo(zoo, 3)
    assert set(runs_of(chosen).values()) == {1}
    assert len(runs_of(chosen)) == 6
    kept = {entry.run for entry in chosen}
    assert chosen.models == tuple(entry for entry in zoo if entry.run in kept)
    assert any(entry.fraction < 1 for entry in chosen)
    families = {(entry.share, entry.is_positive): entry.family for entry in chosen}
    for share, preferred in zip(SHARES, FEW_FAMILIES, strict=True):
        there = {entry.family for entry in zoo if entry.is_positive and entry.share == share}
        assert families[share, True] in ({preferred} if preferred in there else FEW_FAMILIES)
    assert {families[share, False] for share in SHARES} == {HOMOLOGOUS}
    assert {e.run for e in regime(task, "few").choose_zoo(zoo, 3)} == kept
    assert {e.run for e in regime(task, "few").choose_zoo(zoo, 4)} != kept


def test_few_takes_other_trained_models_where_the_zoo_lacks_those_it_prefers(task, zoo):
    absent = (*FEW_FAMILIES, HOMOLOGOUS, "finetune_last")
    poorer = replace(zoo, models=tuple(entry for entry in zoo if entry.family not in absent))
    chosen = regime(task, "few").choose_zoo(poorer, 3)
    assert set(runs_of(chosen).values()) == {1}
    assert all(OBFUSCATIONS[entry.family].needs_training for entry in chosen if entry.is_positive)


@pytest.mark.parametrize("count", [3, 6, 12, 24])
def test_a_number_of_surrogates_is_that_of_each_class_over_all_shares(zoo, count):
    chosen = Regime(name=f"surrogates:{count}", surrogates=count).choose_zoo(zoo, 0)
    runs = runs_of(chosen)
    assert sum(n for (positive, _), n in runs.items() if positive) == count
    assert sum(n for (positive, _), n in runs.items() if not positive) == count
    assert len(runs) == 6
    derived = Counter(family for family, _ in {(e.family, e.run) for e in chosen if e.is_positive and e.share != "x"})
    assert max(derived.values()) <= 1 + count // 5  # families take turns


def test_more_surrogates_than_there_are_is_refused(zoo):
    with pytest.raises(ZooError, match="28 positives, expected 45; build a larger zoo"):
        Regime(name="surrogates:90", surrogates=90).choose_zoo(zoo, 0)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("queries:5", {"queries": 5}),
        ("output:round2", {"view": "round(2)"}),
        ("output:top3", {"view": "topk(3)"}),
        ("output:label", {"view": "label"}),
        ("transport:jpeg", {"levels": 256}),
        ("front:blur", {}),
    ],
)
def test_options_change_only_where_a_regime_says_so(task, name, changed):
    before = OptimizationOptions().to_dict()
    after = regime(task, name).choose_options(OptimizationOptions()).to_dict()
    assert {key: value for key, value in after.items() if value != before[key]} == changed


def test_regimes_that_differ_only_behind_the_fingerprint_share_it(task):
    shared = [regime(task, name).fingerprint_settings() for name in ("full", "front:blur", "front:noise")]
    assert shared[0] == shared[1] == shared[2]
    others = [
        regime(task, name).fingerprint_settings() for name in ("few", "queries:5", "output:label", "transport:8bit")
    ]
    assert all(entry != shared[0] for entry in others)


@pytest.mark.parametrize("scale", SCALES)
def test_names_are_unique_groups_are_known_and_selection_keeps_the_order(task, scale):
    regimes = all_regimes(task, EXPERIMENT_TASKS["digits"].sizes[scale])
    names = [entry.name for entry in regimes]
    assert len(set(names)) == len(names)
    absent = {"smoke": {"recipe", "base", "ablation"}}.get(scale, set())
    assert {entry.group for entry in regimes} == set(REGIME_GROUPS) - absent
    chosen = [entry.name for entry in select_regimes(regimes, ["output:label", "full", "queries"])]
    assert chosen == [name for name in names if name in ("full", "output:label") or name.startswith("queries")]
    with pytest.raises(InputError, match="no regime quaries"):
        select_regimes(regimes, ["quaries"])


def test_tasks_without_classes_or_images_get_only_what_they_can():
    table = metav.Regression(np.random.default_rng(0).normal(size=(60, 4)), np.arange(60.0), epochs=1)
    names = {entry.name for entry in all_regimes(table, EXPERIMENT_TASKS["warfarin"].sizes["small"])}
    assert not names & {"output:top3", "output:label", "transport:jpeg", "front:blur", "without:extract_labels"}
    assert {"output:round2", "output:noisy", "front:noise"} <= names


class Fixed(nn.Module):
    """Answers the first numbers of its input."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)[:, :10]


@pytest.fixture(scope="module")
def logits() -> Tensor:
    return 3 * torch.randn(50, 10, generator=generator())


def test_rounded_answers_are_multiples_of_a_hundredth_close_to_the_probabilities(logits):
    answers = OutputAccess(kind="round", parameter=2).changed(logits, classes=True, generator=generator())
    np.testing.assert_allclose(100 * answers, torch.round(100 * answers), atol=1e-4)
    assert (answers - logits.softmax(1)).abs().max() <= 0.005 + 1e-6


def test_top_three_keep_their_probabilities_and_the_rest_is_even(logits):
    answers = OutputAccess(kind="topk", parameter=3).changed(logits, classes=True, generator=generator())
    probabilities = logits.softmax(1)
    for given, true in zip(answers, probabilities, strict=True):
        best = true.argsort(descending=True)[:3]
        torch.testing.assert_close(given[best], true[best])
        rest = [float(given[place]) for place in range(10) if place not in best]
        np.testing.assert_allclose(rest, float(1 - true[best].sum()) / 7, atol=1e-6)


def test_labels_are_one_hot_at_the_most_probable_class(logits):
    answers = OutputAccess(kind="label").changed(logits, classes=True, generator=generator())
    assert torch.equal(answers.argmax(1), logits.argmax(1))
    assert set(answers.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(answers.sum(1), torch.ones(50))


def test_noisy_answers_are_probabilities_and_new_each_time(logits):
    random = generator()
    first, second = (
        OutputAccess(kind="noise", parameter=0.02).changed(logits, classes=True, generator=random) for _ in range(2)
    )
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.sum(1), torch.ones(50))
    assert first.min() >= 0
    assert 0 < (first - logits.softmax(1)).abs().mean() < 0.04


FORM_CASES = {
    "percent": lambda p: 100 * p,
    "percent rounded": lambda p: np.round(100 * p),
    "one-hot": lambda p: np.eye(p.shape[1])[p.argmax(1)],
    "3 decimals": lambda p: np.round(p, 3),
    "top 3": lambda p: np.where(p >= np.sort(p, axis=1)[:, [-3]], p, 0.0),
    "top 1": lambda p: np.where(p == p.max(1, keepdims=True), p, 0.0),
    "clipped": lambda p: np.clip(p, 0.02, 0.98),
    "logits x 1.7": lambda p: p**1.7 / (p**1.7).sum(1, keepdims=True),
    "logits x 0.4": lambda p: p**0.4 / (p**0.4).sum(1, keepdims=True),
    "rows reversed": lambda p: p[::-1],
}


@pytest.mark.parametrize("name", FORM_CASES)
def test_forms_of_answers_are_what_they_are_called(logits, name):
    answers = CLASS_FORMS[name].changed(logits, classes=True, generator=generator())
    expected = FORM_CASES[name](logits.double().softmax(1).numpy())
    np.testing.assert_allclose(answers, expected, atol=2e-5 if "percent" in name else 2e-6)


def test_other_columns_hold_the_same_probabilities_and_one_entry_lies_below_zero(logits):
    p = logits.softmax(1)
    moved = CLASS_FORMS["other columns"].changed(logits, classes=True, generator=generator())
    torch.testing.assert_close(moved.sort(dim=1).values, p.sort(dim=1).values)
    assert (moved.argmax(1) != p.argmax(1)).float().mean() > 0.5
    below = CLASS_FORMS["one entry below 0"].changed(logits, classes=True, generator=generator())
    assert float(below[0, 0]) == pytest.approx(-1e-9)
    assert int((below < 0).sum()) == 1


@pytest.mark.parametrize("name", NUMBER_FORMS)
def test_numbers_in_another_unit_are_the_same_numbers(name):
    values = torch.linspace(-2.0, 2.0, 30)[:, None]
    answers = NUMBER_FORMS[name].changed(values, classes=False, generator=generator())
    assert abs(float(torch.corrcoef(torch.cat([values, answers], 1).T)[0, 1])) > 0.99


def test_the_parts_that_are_left_out_are_no_more_than_those_that_there_are(task):
    entries = {
        entry.detail: entry
        for entry in all_regimes(task, EXPERIMENT_TASKS["digits"].sizes["small"])
        if entry.group == "ablation"
    }
    assert set(entries) == {"nothing", "told recipe", "all recipes", "division by spread", *LACKS}
    whole = entries.pop("nothing")
    assert (whole.lacks, whole.view, whole.recipe) == ((), None, "told")
    for entry in entries.values():
        changed = [entry.lacks != (), entry.view is not None, entry.recipe != "told"]
        assert sum(changed) == 1


def test_free_negatives_leave_the_zoo_where_the_method_lacks_them(zoo):
    richer = replace(zoo, free=zoo.models[:3])
    assert Regime(name="full").choose_zoo(richer, 0).free == zoo.models[:3]
    assert Regime(name="ablation:x", lacks=("free negatives",)).choose_zoo(richer, 0).free == ()


def test_noise_of_a_regressor_has_its_standard_deviation():
    answers = OutputAccess(kind="noise", parameter=0.5).changed(
        torch.zeros(4000, 1), classes=False, generator=generator()
    )
    assert float(answers.std()) == pytest.approx(0.5, rel=0.05)


def test_unknown_kinds_of_channels_are_refused_with_those_that_there_are():
    with pytest.raises(
        InputError, match=r"'whisper' is not a form of answers; expected one of round, topk, label, scaled, .*, noise"
    ):
        OutputAccess(kind="whisper")
    with pytest.raises(InputError, match="'fax' is not a change of queries; expected one of 8bit, jpeg, blur, noise"):
        InputChange(kind="fax")


@pytest.mark.parametrize(
    "kind", ["topk", "label", "whole_percent", "top_alone", "clipped", "sharpened", "other_columns"]
)
def test_only_classifiers_have_top_classes(kind):
    with pytest.raises(InputError, match="needs a classifier"):
        OutputAccess(kind=kind, parameter=3).changed(torch.zeros(2, 1), classes=False, generator=generator())


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Smooth images in [-1, 3] with a tint: JPEG keeps what is smooth, and little of the colours of single pixels."""
    rough = torch.rand(6, 1, 4, 4, generator=generator())
    smooth = nn.functional.interpolate(rough, size=(9, 9), mode="bilinear")
    tint = torch.rand(6, 3, 1, 1, generator=generator())
    return 4 * (0.8 * smooth + 0.2 * tint) - 1


@pytest.mark.parametrize(
    ("change", "largest"),
    [
        (InputChange(kind="8bit"), 0.5 / 255),
        (InputChange(kind="jpeg", parameter=90), 0.25),
        (InputChange(kind="blur", parameter=0.6), 0.3),
        (InputChange(kind="noise", parameter=0.03), 0.2),
        (InputChange(kind="resize", parameter=0.75), 0.3),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_queries_change_a_little_and_stay_in_their_bounds(images, change, largest):
    changed = change.changed(images, LOWER, UPPER, generator())
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert LOWER.min() <= changed.min()
    assert changed.max() <= UPPER.max()
    difference = (changed - images).abs() / 4
    assert 0 < float(difference.max()) <= largest + 1e-6


def test_eight_bits_are_levels_and_survive_a_second_time(images):
    once = InputChange(kind="8bit").changed(images, LOWER, UPPER, generator())
    levels = (once + 1) / 4 * 255
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
    torch.testing.assert_close(InputChange(kind="8bit").changed(once, LOWER, UPPER, generator()), once)


def test_jpeg_takes_grey_images_and_gets_better_with_its_quality(images):
    grey = images[:, :1]
    errors = [
        float(
            (InputChange(kind="jpeg", parameter=q).changed(grey, LOWER[:1], UPPER[:1], generator()) - grey).abs().mean()
        )
        for q in (20, 95)
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("kind", ["jpeg", "blur", "resize"])
def test_image_changes_refuse_other_inputs(kind):
    with pytest.raises(InputError, match="changes images"):
        InputChange(kind=kind, parameter=1).changed(torch.zeros(2, 5), torch.zeros(5), torch.ones(5), generator())


def test_a_channel_follows_its_seed_and_leaves_queries_alone(task):
    queries = task.examples[:20].clone()
    before = queries.clone()
    noise = InputChange(kind="noise", parameter=0.03)
    answers = []
    for seed in (1, 1, 2):
        suspect = through_channel(
            Fixed(), task, inputs=noise, output=OutputAccess(kind="round", parameter=2), seed=seed
        )
        answers.append(suspect(queries))
    assert torch.equal(queries, before)
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])
