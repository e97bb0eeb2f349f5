"""The real data of the experiments, and how an owner, a thief and the test share it. NumPy only."""

from __future__ import annotations

import csv
import importlib
import lzma
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError, MissingDependencyError
from metav.support.arrays import FloatArray
from metav.support.randomness import derive_seed

TEST_SHARE = 0.15
"""Share of the groups that the test part gets where no test set is published."""

IndexArray = NDArray[np.int64]
Row = Mapping[str, str]

_AGES = ("10 - 19", "20 - 29", "30 - 39", "40 - 49", "50 - 59", "60 - 69", "70 - 79", "80 - 89", "90+")
_RACES = ("Asian", "Black or African American", "White")
_CYP2C9 = ("*1/*1", "*1/*2", "*1/*3", "*2/*2", "*2/*3", "*3/*3")
_VKORC1 = ("A/A", "A/G", "G/G")
_VKORC1_BY_1173 = {"T/T": "A/A", "C/T": "A/G", "C/C": "G/G"}
_INDUCERS = ("Carbamazepine (Tegretol)", "Phenytoin (Dilantin)", "Rifampin or Rifampicin")
_DOSE = "Therapeutic Dose of Warfarin"
_NUMERIC_COLUMNS = ("Height (cm)", "Weight (kg)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Disjoint sorted row numbers: what the owner trains on, what the thief holds, what nobody trains on."""

    owner: IndexArray
    thief: IndexArray
    test: IndexArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData:
    """Images (n, channels, height, width), float32 in [0, 1]; labels (n,), int64, that index `label_names`.

    groups: (n,) numbers; images of one group never fall into two parts of a split. None: every image is its own.
    test: row numbers of a published test set, kept as the test part. None: TEST_SHARE of the groups.
    """

    images: FloatArray
    labels: IndexArray
    label_names: tuple[str, ...]
    groups: IndexArray | None = None
    test: IndexArray | None = None

    def split(self, seed: int) -> Split:
        """Return owner half, thief half and test part; the same for the same seed."""
        groups = np.arange(len(self.images), dtype=np.int64) if self.groups is None else self.groups
        return split_by_group(groups, seed, test=self.test)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableData:
    """Features (n, features) and targets (n, 1), float32: the target and all numeric features are standardised.

    Indicators stay 0 or 1. target_mean, target_std: the target's own unit is target_mean + target_std * target.
    """

    features: FloatArray
    targets: FloatArray
    feature_names: tuple[str, ...]
    target_mean: float
    target_std: float

    def split(self, seed: int) -> Split:
        """Return owner half, thief half and test part; the same for the same seed."""
        return split_by_group(np.arange(len(self.features), dtype=np.int64), seed)


def split_by_group(groups: IndexArray, seed: int, *, test: IndexArray | None = None) -> Split:
    """Deal whole groups to the test part, and half of the rest to each other part.

    groups: (n,) the group of each row.
    test: rows whose groups are the test part; None: TEST_SHARE of the groups at random.
    """
    generator = np.random.default_rng(derive_seed(seed, "split"))
    rows = np.arange(len(groups), dtype=np.int64)
    if test is None:
        order = generator.permutation(np.unique(groups))
        held_out = np.isin(groups, order[: round(TEST_SHARE * len(order))])
    else:
        held_out = np.isin(groups, groups[test])
    order = generator.permutation(np.unique(groups[~held_out]))
    owned = np.isin(groups, order[: len(order) // 2])
    return Split(owner=rows[owned & ~held_out], thief=rows[~owned & ~held_out], test=rows[held_out])


def draw_rows(rows: IndexArray, count: int | None, seed: int) -> IndexArray:
    """Return `count` of the rows at random, in order; all of them where there are no more, or where it is None."""
    if count is None or count >= len(rows):
        return rows
    chosen: IndexArray = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
    return chosen


def load_digits() -> ImageData:
    """Load the 1,797 handwritten digits of 8x8 pixels that scikit-learn bundles (UCI, Alpaydin and Kaynak, 1998).

    Raises MissingDependencyError without scikit-learn.
    """
    try:
        bundle = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise MissingDependencyError(
            "digits come from scikit-learn; install it with: pip install scikit-learn"
        ) from error
    images = np.asarray(bundle.images, dtype=np.float32)[:, None] / np.float32(16)
    return ImageData(
        images=images,
        labels=np.asarray(bundle.target, dtype=np.int64),
        label_names=tuple(str(digit) for digit in range(10)),
    )


def load_fashion(folder: str | Path) -> ImageData:
    """Load Fashion-MNIST (Xiao et al., 2017): 20,000 training images and the 10,000 of the published test set.

    Raises InputError where the file is absent or cannot be read.
    """
    path, arrays = _read_npz(
        folder, "fashion_mnist_20k.npz", ("train_images", "train_labels", "test_images", "test_labels")
    )
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    first_test = len(arrays["train_images"])
    return ImageData(
        images=_unit_range(path, images[:, None]),
        labels=labels.astype(np.int64),
        label_names=(
            "T-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        test=np.arange(first_test, len(images), dtype=np.int64),
    )


def load_skin(folder: str | Path) -> ImageData:
    """Load HAM10000 (Tschandl et al., 2018): 10,015 dermatoscopic images of 28x28 pixels; a group is one lesion.

    Raises InputError where the file is absent or cannot be read.
    """
    path, arrays = _read_npz(folder, "ham10000_28x28.npz", ("images", "labels", "label_names", "lesion_id"))
    return ImageData(
        images=_unit_range(path, np.ascontiguousarray(arrays["images"].transpose(0, 3, 1, 2))),
        labels=arrays["labels"].astype(np.int64),
        label_names=tuple(str(name) for name in arrays["label_names"]),
        groups=np.unique(arrays["lesion_id"], return_inverse=True)[1].astype(np.int64),
    )


def load_warfarin(folder: str | Path) -> TableData:
    """Load the weekly warfarin dose (mg) of 5,528 patients and 24 clinical and genotype features (IWPC, NEJM 2009).

    Missing numbers become the median, missing genotypes and races a level of their own, missing drugs "not taken".
    A missing VKORC1 -1639 is read off 1173, its near-perfect proxy, where that is known.

    Raises InputError where the file is absent or cannot be read.
    """
    path = _existing(folder, "warfarin_iwpc.csv.xz")
    try:
        with lzma.open(path, "rt", encoding="utf-8-sig", newline="") as lines:
            rows = [_with_vkorc1(row) for row in csv.DictReader(lines) if _is_known(row[_DOSE])]
        doses = np.array([float(row[_DOSE]) for row in rows])
        columns = {name: np.array([read(row) for row in rows]) for name, read in _warfarin_columns().items()}
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error
    mean, std = float(doses.mean()), float(doses.std())
    features = np.stack([_filled(column) for column in columns.values()], axis=1)
    return TableData(
        features=features.astype(np.float32),
        targets=((doses - mean) / std).astype(np.float32)[:, None],
        feature_names=tuple(columns),
        target_mean=mean,
        target_std=std,
    )


def _warfarin_columns() -> dict[str, Callable[[Row], float]]:
    numeric = {name: _number(name) for name in _NUMERIC_COLUMNS}
    columns: dict[str, Callable[[Row], float]] = {"age decade": _age_decade, **numeric}
    columns["male"] = _indicator("Gender", "male")
    columns |= _levels("Race", _RACES)
    columns["enzyme inducer"] = lambda row: float(any(row[drug] == "1" for drug in _INDUCERS))
    for name in ("Amiodarone (Cordarone)", "Aspirin", "Simvastatin (Zocor)", "Current Smoker"):
        columns[name] = _indicator(name, "1")
    return columns | _levels("CYP2C9 consensus", _CYP2C9) | _levels("VKORC1 -1639 consensus", _VKORC1)


def _with_vkorc1(row: Row) -> Row:
    genotype = row["VKORC1 -1639 consensus"]
    proxy = _VKORC1_BY_1173.get(row["VKORC1 1173 consensus"], genotype)
    return {**row, "VKORC1 -1639 consensus": genotype if _is_known(genotype) else proxy}


def _age_decade(row: Row) -> float:
    return float(1 + _AGES.index(row["Age"])) if _is_known(row["Age"]) else np.nan


def _number(column: str) -> Callable[[Row], float]:
    return lambda row: float(row[column]) if _is_known(row[column]) else np.nan


def _indicator(column: str, level: str) -> Callable[[Row], float]:
    return lambda row: float(row[column] == level)


def _levels(column: str, levels: tuple[str, ...]) -> dict[str, Callable[[Row], float]]:
    columns = {f"{column} {level}": _indicator(column, level) for level in levels}
    columns[f"{column} unknown"] = lambda row: float(row[column] not in levels)
    return columns


def _is_known(value: str) -> bool:
    return value not in ("", "NA")


def _filled(column: NDArray[np.float64]) -> NDArray[np.float64]:
    column = np.where(np.isnan(column), np.nanmedian(column), column)
    if np.isin(column, (0.0, 1.0)).all():
        return column
    return np.asarray((column - column.mean()) / column.std())


def _read_npz(folder: str | Path, name: str, members: tuple[str, ...]) -> tuple[Path, dict[str, NDArray[Any]]]:
    path = _existing(folder, name)
    try:
        with np.load(path, allow_pickle=False) as file:
            return path, {member: file[member] for member in members}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _existing(folder: str | Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(f"the data file {path} does not exist; name the folder that holds {name} with --data")
    return path


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"the data file {path} cannot be read ({error}); copy it again and name its folder with --data")


def _unit_range(path: Path, images: NDArray[Any]) -> FloatArray:
    if images.dtype != np.uint8:
        raise InputError(f"the images of {path} must be uint8, got {images.dtype}; copy the file again")
    return images.astype(np.float32) / np.float32(255)
