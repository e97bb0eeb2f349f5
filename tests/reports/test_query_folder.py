"""The folder of queries for somebody else: nothing is lost in it, and it says what to do."""

from __future__ import annotations

import csv
import os
from html.parser import HTMLParser

import numpy as np
import pytest
from linear_fingerprints import linear_fingerprint
from PIL import Image
from small_fingerprints import handmade, handmade_task

from metav.errors import InputError
from metav.reports.query_folder import write_query_folder


def images(shape, levels):
    values = np.random.default_rng(0).uniform(size=(6, *shape))
    if levels is not None:
        values = np.round(values * (levels - 1)) / (levels - 1)
    low = np.full(shape, -1.0, np.float32)
    return handmade(
        task=handmade_task(input_shape=shape, levels=levels),
        queries=(2 * values - 1).astype(np.float32),
        lower=low,
        upper=-low,
    )


def restored(folder, shape, levels):
    """What somebody reads from the pictures, at the nearest level."""
    rows = []
    for name in sorted(os.listdir(folder / "images")):
        with Image.open(folder / "images" / name) as picture:
            pixels = np.asarray(picture, np.float64) / 255
        rows.append(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
    nearest = np.stack(rows) if levels is None else np.round(np.stack(rows) * (levels - 1)) / (levels - 1)
    return (2 * nearest - 1).reshape(-1, *shape)


@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 5, 4), (5, 4)])
@pytest.mark.parametrize("levels", [None, 2, 17, 256])
def test_arrays_table_and_pictures_hold_the_queries(tmp_path, shape, levels):
    fp = images(shape, levels)
    folder = write_query_folder(fp, tmp_path / "queries")
    with np.load(tmp_path / "queries/queries.npz") as arrays:
        assert np.array_equal(arrays["inputs"], fp.queries)
        assert arrays["query"].tolist() == [1, 2, 3, 4, 5, 6]
    with (tmp_path / "queries/queries.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    assert np.array_equal(np.array([row[1:] for row in rows], np.float32), fp.queries.reshape(6, -1))
    error = np.abs(restored(tmp_path / "queries", shape, levels) - fp.queries).max()
    if levels is None:
        assert error <= 1.01 / 255
        assert "pictures are off by up to" in folder.notes[0]
    else:
        assert error < 1e-6
        assert folder.notes == ()


def test_the_form_has_a_row_per_query_and_a_column_per_answer(tmp_path):
    fp = linear_fingerprint()
    write_query_folder(fp, tmp_path / "queries")
    with (tmp_path / "queries/answers.csv").open(newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading == ["query", "answer_1", "answer_2", "answer_3"]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 49)]
    assert not (tmp_path / "queries/images").exists(), "vectors are no pictures"


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link")
        self.images += [value for name, value in attrs if name == "src"]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_names_every_file_and_shows_every_picture_and_no_secret(tmp_path):
    fp = images((1, 5, 4), 256)
    folder = write_query_folder(fp, tmp_path / "queries")
    page = _Links()
    page.feed((tmp_path / "queries/index.html").read_text())
    text = " ".join(page.text)
    assert all(name in text for name, _ in folder.files[:-1])
    assert sorted(page.images) == [f"images/{number:04d}.png" for number in range(1, 7)]
    assert all((tmp_path / "queries" / name).is_file() for name in page.images)
    assert fp.commitment in text
    assert fp.salt not in text
    assert "6, numbered from 1, float32 of shape 1 x 5 x 4" in text


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").write_text("mine")
    with pytest.raises(InputError, match="exists and holds something"):
        write_query_folder(linear_fingerprint(), tmp_path / "taken")
    with pytest.raises(InputError, match="there is no folder"):
        write_query_folder(linear_fingerprint(), tmp_path / "no/queries")
    monkeypatch.setattr("metav.reports.query_folder._write_page", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(InputError, match="cannot be written"):
        write_query_folder(linear_fingerprint(), tmp_path / "queries")
    assert os.listdir(tmp_path) == ["taken"]
