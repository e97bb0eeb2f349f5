"""The experiments' data: what is loaded, that no part leaks into another, and that the owners are good models."""

from __future__ import annotations

import csv
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import FOLDER, WHY_NOT

from metav.errors import InputError
from metav.experiments.scenarios.architectures import digits, fashion, skin, warfarin
from metav.experiments.scenarios.architectures.building_blocks import Scaled, at_width
from metav.experiments.scenarios.datasets import (
    Split,
    load_digits,
    load_fashion,
    load_skin,
    load_warfarin,
    split_by_group,
)
from metav.experiments.scenarios.digits import digits_scenario
from metav.experiments.scenarios.disturbance import disturbed
from metav.experiments.scenarios.fashion import fashion_scenario
from metav.experiments.scenarios.registry import EXPERIMENT_TASKS, make_scenario
from metav.experiments.scenarios.scales import SCALES
from metav.experiments.scenarios.scenario import Scenario
from metav.experiments.scenarios.skin import skin_scenario
from metav.experiments.scenarios.warfarin import warfarin_scenario
from metav.models.architectures import Architecture, build
from metav.models.identity import stated_name

ROLES = {
    "digits": (digits.OWNER, digits.ZOO, digits.SUSPECTS),
    "warfarin": (warfarin.OWNER, warfarin.ZOO, warfarin.SUSPECTS),
    "fashion": (fashion.OWNER, fashion.ZOO, fashion.SUSPECTS),
    "skin": (Scaled(skin.OWNER, 4), at_width(skin.ZOO, 4), at_width(skin.SUSPECTS, 4)),
}
SHAPES = {"digits": ((1, 8, 8), (10,)), "warfarin": ((24,), (1,)), "fashion": ((16,), (1, 28, 28))}
SHAPES["skin"] = ((3, 28, 28), (7,))
ALL_ARCHITECTURES = [
    pytest.param(task, architecture, id=getattr(architecture, "make", architecture).__name__)
    for task, (owner, zoo, suspects) in ROLES.items()
    for architecture in (owner, *zoo, *suspects)
]


@pytest.fixture(scope="module")
def data_folder() -> Path:
    """The folder of the real data sets, which the package does not ship."""
    if not FOLDER.is_dir():
        pytest.skip(WHY_NOT)
    return FOLDER


def assert_is_partition(split: Split, count: int) -> None:
    joined = np.concatenate([split.owner, split.thief, split.test])
    np.testing.assert_array_equal(np.sort(joined), np.arange(count))


@settings(max_examples=50, deadline=None)
@given(groups=st.lists(st.integers(0, 30), min_size=1, max_size=200), seed=st.integers(0, 2**32))
def test_split_parts_are_disjoint_complete_and_share_no_group(groups: list[int], seed: int) -> None:
    ids = np.array(groups, dtype=np.int64)
    split = split_by_group(ids, seed)
    assert_is_partition(split, len(ids))
    owner, thief, test = (set(ids[part].tolist()) for part in (split.owner, split.thief, split.test))
    assert not owner & thief
    assert not owner & test
    assert not thief & test
    assert abs(len(owner) - len(thief)) <= 1


def test_split_follows_the_seed() -> None:
    ids = np.arange(100, dtype=np.int64)
    first, again, other = split_by_group(ids, 1), split_by_group(ids, 1), split_by_group(ids, 2)
    np.testing.assert_array_equal(first.owner, again.owner)
    np.testing.assert_array_equal(first.test, again.test)
    assert not np.array_equal(first.owner, other.owner)


def test_published_test_rows_stay_the_test_part() -> None:
    split = split_by_group(np.arange(30, dtype=np.int64), 0, test=np.arange(20, 30, dtype=np.int64))
    np.testing.assert_array_equal(split.test, np.arange(20, 30))
    assert len(split.owner) == len(split.thief) == 10


def test_digits_are_unit_range_images_of_all_ten_classes() -> None:
    data = load_digits()
    assert data.images.shape == (1797, 1, 8, 8)
    assert data.images.dtype == np.float32
    assert (data.images.min(), data.images.max()) == (0.0, 1.0)
    assert set(data.labels.tolist()) == set(range(10))
    assert_is_partition(data.split(0), 1797)


def test_warfarin_has_the_published_size_and_predictability(data_folder: Path) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_predict

    data = load_warfarin(data_folder)
    assert data.features.shape == (5528, 24)
    assert len(data.feature_names) == len(set(data.feature_names)) == 24
    assert np.isfinite(data.features).all()
    dose = data.targets[:, 0] * data.target_std + data.target_mean
    # A constant median misses by 12.1 mg/week, ridge regression on clinical and genotype features by 8.9.
    assert np.abs(dose - np.median(dose)).mean() == pytest.approx(12.1, abs=0.05)
    folds = KFold(5, shuffle=True, random_state=0)
    predicted = cross_val_predict(Ridge(), data.features, dose, cv=folds)
    assert np.abs(predicted - dose).mean() < 9.0


def test_warfarin_genotype_levels_exclude_each_other(data_folder: Path) -> None:
    data = load_warfarin(data_folder)
    for gene in ("Race", "CYP2C9", "VKORC1"):
        columns = [index for index, name in enumerate(data.feature_names) if name.startswith(gene)]
        np.testing.assert_array_equal(data.features[:, columns].sum(axis=1), 1.0)


def test_fashion_keeps_the_published_test_set(data_folder: Path) -> None:
    data = load_fashion(data_folder)
    assert data.images.shape == (30000, 1, 28, 28)
    assert (data.images.min(), data.images.max()) == (0.0, 1.0)
    split = data.split(3)
    assert_is_partition(split, 30000)
    np.testing.assert_array_equal(split.test, np.arange(20000, 30000))


def test_skin_lesions_never_fall_into_two_parts(data_folder: Path) -> None:
    data = load_skin(data_folder)
    assert data.images.shape == (10015, 3, 28, 28)
    assert data.images.dtype == np.float32
    assert np.bincount(data.labels).tolist() == [327, 514, 1099, 115, 1113, 6705, 142]
    assert data.groups is not None
    assert len(np.unique(data.groups)) == 7470
    split = data.split(0)
    assert_is_partition(split, 10015)
    lesions = [set(data.groups[part].tolist()) for part in (split.owner, split.thief, split.test)]
    assert sum(map(len, lesions)) == 7470


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (load_warfarin, "warfarin_iwpc.csv.xz"),
        (load_fashion, "fashion_mnist_20k.npz"),
        (load_skin, "ham10000_28x28.npz"),
    ],
)
class TestUnusableFiles:
    def test_missing_file_is_named_with_the_option(
        self, load: Callable[[Path], object], name: str, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=rf"{name} does not exist; .*--data"):
            load(tmp_path)

    def test_broken_file_is_named(self, load: Callable[[Path], object], name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(b"not the data")
        with pytest.raises(InputError, match=rf"{name} cannot be read"):
            load(tmp_path)


def test_table_without_the_dose_column_is_refused(tmp_path: Path) -> None:
    with lzma.open(tmp_path / "warfarin_iwpc.csv.xz", "wt", newline="") as file:
        csv.writer(file).writerows([["Gender", "Age"], ["male", "50 - 59"]])
    with pytest.raises(InputError, match="cannot be read"):
        load_warfarin(tmp_path)


def test_npz_without_a_member_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "ham10000_28x28.npz", images=np.zeros((2, 28, 28, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="labels"):
        load_skin(tmp_path)


@pytest.mark.parametrize(("task", "architecture"), ALL_ARCHITECTURES)
def test_every_architecture_fits_its_task(task: str, architecture: Architecture) -> None:
    inputs, outputs = SHAPES[task]
    model = build(architecture, 0).eval()
    answers = model(torch.rand(3, *inputs))
    assert tuple(answers.shape) == (3, *outputs)
    assert torch.isfinite(answers).all()


@pytest.mark.parametrize(("task", "architecture"), ALL_ARCHITECTURES)
def test_no_identity_of_an_architecture_rests_on_where_its_code_stands(task: str, architecture: Architecture) -> None:
    classes = {type(module) for module in build(architecture, 0).modules()}
    own = [cls for cls in classes if not cls.__module__.startswith("torch.")]
    assert all(stated_name(cls) == f"metav/{cls.__name__}" for cls in own)


@pytest.mark.parametrize("task", ROLES)
def test_zoo_and_suspects_share_no_architecture(task: str) -> None:
    owner, zoo, suspects = ROLES[task]
    structures = [repr(build(architecture, 0)) for architecture in (owner, *zoo, *suspects)]
    assert len(set(structures)) == 1 + len(zoo) + len(suspects)


def test_digits_owner_is_useful_and_follows_its_seed() -> None:
    scenario = digits_scenario(0)
    owner, again = scenario.train_owner(0), scenario.train_owner(0)
    assert scenario.test_metric(owner) >= 0.97
    assert not owner.training
    for first, second in zip(owner.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(first, second)


def test_training_an_owner_leaves_the_global_random_state_alone(data_folder: Path) -> None:
    before = torch.get_rng_state()
    warfarin_scenario(data_folder, 0).train_owner(0)
    assert torch.equal(before, torch.get_rng_state())


def test_warfarin_owner_errs_by_at_most_nine_milligrams(data_folder: Path) -> None:
    scenario = warfarin_scenario(data_folder, 0)
    assert scenario.test_metric(scenario.train_owner(0)) <= 9.3


def test_fashion_owner_is_closer_to_clothes_than_their_average(data_folder: Path) -> None:
    scenario = fashion_scenario(data_folder, 0, images=1500)
    assert scenario.test_metric(scenario.train_owner(0)) < 0.5 * scenario.test_task.baseline


def rows_of(task: object) -> set[bytes]:
    return {row.tobytes() for row in task.examples.numpy()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["digits", "warfarin", "fashion", "skin"])
def test_owner_thief_and_test_hold_different_examples(name: str, request: pytest.FixtureRequest) -> None:
    scenario = scenario_named(name, request)
    owner, thief, test = (rows_of(task) for task in (scenario.task, scenario.thief_task, scenario.test_task))
    # Patients with equal records exist; images repeat never.
    allowed = 0.2 * len(owner) if name == "warfarin" else 0
    assert len(owner & thief) <= allowed
    assert len((owner | thief) & test) <= allowed


@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_unrelated_owner_holds_none_of_the_owners_examples(name: str, request: pytest.FixtureRequest) -> None:
    scenario = scenario_named(name, request)
    assert not rows_of(scenario.task) & rows_of(scenario.other_task)


def scenario_named(name: str, request: pytest.FixtureRequest) -> Scenario:
    if name == "digits":
        return digits_scenario(0)
    folder = request.getfixturevalue("data_folder")
    if name == "skin":
        return skin_scenario(folder, 0, width=4, images=500, epochs=1)
    return warfarin_scenario(folder, 0) if name == "warfarin" else fashion_scenario(folder, 0, images=500)


def test_resnet18_at_width_64_has_the_published_number_of_parameters() -> None:
    # He et al. (2016) with 1,000 classes: 11,689,512, of which the last layer has 513,000
    count = sum(parameter.numel() for parameter in build(Scaled(skin.OWNER, 64), 0).parameters())
    assert count == 11_689_512 - 513_000 + (512 + 1) * 7


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("task", EXPERIMENT_TASKS)
def test_every_task_has_every_scale(task: str, scale: str, data_folder: Path) -> None:
    sizes = EXPERIMENT_TASKS[task].sizes[scale]
    scenario = make_scenario(task, data_folder, 1, sizes)
    assert scenario.name == task
    if scale != "smoke":
        assert sizes.surrogates >= 36
        assert sizes.suspects is None
    for part in ("task", "thief_task", "other_task"):
        assert getattr(scenario, part).input_shape == scenario.task.input_shape
    assert sizes.images is None or len(scenario.task.examples) <= sizes.images


def test_a_gan_owner_has_a_variational_autoencoder_for_a_neighbour(data_folder: Path) -> None:
    scenario = make_scenario("fashion", data_folder, 0, EXPERIMENT_TASKS["fashion"].sizes["paper"])
    assert (scenario.task.objective, scenario.other_task.objective) == ("adversarial", "autoencode")


def test_disturbed_images_stay_in_range_and_recognisable() -> None:
    images = load_digits().images
    moved = disturbed(images, 0)
    assert moved.shape == images.shape
    assert moved.dtype == np.float32
    assert moved.min() >= 0.0
    assert moved.max() <= 1.0
    assert 0.05 < np.abs(moved - images).mean() < 0.25
    np.testing.assert_array_equal(moved, disturbed(images, 0))
