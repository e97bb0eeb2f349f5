"""The queries of a fingerprint for somebody else to ask: arrays, pictures, a table, a form for the answers, a page."""

from __future__ import annotations

import csv
import io
import math
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint
from metav.support.files import PART, PathLike, path_text

MOST_CELLS = 3_000_000
"""Numbers above which no table of the queries is written: it would take a hundred megabytes."""
MOST_COLUMNS = 2000
"""Answers per query above which the form is an array."""
SHADES = 256

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ count }} inputs for a model</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; }
table { border-collapse: collapse; }
th { text-align: left; font-weight: 500; color: #595959; white-space: nowrap; vertical-align: top; }
th, td { padding: 0.3rem 1rem 0.3rem 0; border-top: 1px solid #e6e6e6; }
td { overflow-wrap: anywhere; }
code, pre { background: #f4f4f4; padding: 0.1rem 0.3rem; }
pre { padding: 0.6rem; overflow-x: auto; }
figure { display: inline-block; margin: 0 0.6rem 0.6rem 0; text-align: center; font-size: 0.8rem; color: #595959; }
img { width: 64px; height: 64px; image-rendering: pixelated; display: block; border: 1px solid #e6e6e6; }
</style>
</head>
<body>
<h1>{{ count }} inputs for a model, and a form for its answers</h1>
<ol>
<li>Give each input to the model, exactly as it is, and note what the model answers.</li>
<li>Write the answers into <code>{{ form }}</code>, each beside the number of its input. The order of rows does not
matter, the numbers do.</li>
<li>Send back the form. Keep the inputs to yourself, and delete them afterwards.</li>
</ol>
<table>
<tr><th>inputs</th>
<td>{{ count }}, numbered from 1, float32 of shape {{ shape }}, from {{ low }} to {{ high }}</td></tr>
<tr><th>answers</th><td>{{ outputs }}</td></tr>
<tr><th>for</th><td>{{ commitment }}</td></tr>
</table>
<h2>Files</h2>
<table>
{% for name, text in files %}<tr><th><code>{{ name }}</code></th><td>{{ text }}</td></tr>
{% endfor %}</table>
<h2>In Python</h2>
<pre>import numpy as np

with np.load("queries.npz") as file:
    numbers, inputs = file["query"], file["inputs"]
answers = np.array([model(row[None])[0] for row in inputs])  # your model
np.savez("answers.npz", query=numbers, answers=answers)  # send this, or the form
</pre>
{% if pictures %}<h2>Pictures</h2>
{% for name, number in pictures %}<figure><img src="{{ name }}" alt="input {{ number }}">{{ number }}</figure>
{% endfor %}{% endif %}</body>
</html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFolder:
    """What was written.

    path: of the folder. files: names in it, with what they are. notes: what the person in charge should know.
    """

    path: Path
    files: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def write_query_folder(fp: Fingerprint, path: PathLike) -> QueryFolder:
    """Write a folder with everything that somebody needs to ask the queries; at once or not at all.

    Raises InputError where the folder exists and holds something, or cannot be written.
    """
    target = Path(os.path.abspath(path_text(path)))
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target} exists and holds something; name a new folder")
    if not target.parent.is_dir():
        raise InputError(f"{target} cannot be written: there is no folder {target.parent}; make it, or choose another")
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
    try:
        part.mkdir(mode=0o700)
        files, notes = _filled(fp, part)
        if target.exists():
            target.rmdir()
        part.rename(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error}); choose another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return QueryFolder(path=target, files=tuple(files), notes=tuple(notes))


def _filled(fp: Fingerprint, folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    count, numbers = len(fp.queries), np.arange(1, len(fp.queries) + 1)
    files, notes = [("queries.npz", 'the inputs as arrays: "query" their numbers, "inputs" the inputs; exact')], []
    np.savez(folder / "queries.npz", query=numbers.astype(np.int32), inputs=fp.queries)
    if fp.queries.size <= MOST_CELLS:
        flat = fp.queries.reshape(count, -1)
        heading = ["query", *(f"input_{place}" for place in range(1, flat.shape[1] + 1))]
        _write_csv(folder / "queries.csv", heading, ([number, *row] for number, row in zip(numbers, flat, strict=True)))
        files.append(("queries.csv", "the same as a table, one input a row, its numbers in C order; exact"))
    pictures = _pictures(fp)
    if pictures is not None:
        (folder / "images").mkdir()
        _write_pictures(pictures, folder / "images")
        text = f"the same as pictures, 0 to 255 for {_range_of(fp)}"
        error = _lost(fp, pictures)
        if fp.task.levels is not None and not error:
            text += f"; all {fp.task.levels} levels are kept"
        if error:
            text += f"; rounded, by up to {error:.2g}: use queries.npz where you can"
            notes.append(f"PNG has {SHADES} levels and the queries have more: pictures are off by up to {error:.2g}")
        files.append(("images/", text))
    form = _write_form(fp, folder, numbers)
    files.append(form)
    _write_page(fp, folder, files, pictures is not None, form[0])
    return [*files, ("index.html", "what to do, for whoever asks the model")], notes


def _write_csv(path: Path, heading: list[str], rows: Any) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def _write_form(fp: Fingerprint, folder: Path, numbers: NDArray[Any]) -> tuple[str, str]:
    shape = fp.task.answer_shape
    columns = math.prod(shape)
    if columns > MOST_COLUMNS:
        whole = ", ".join(map(str, (len(numbers), *shape)))
        return "answers.npz", f'for you to make: "query" numbers, "answers" float32 of shape ({whole})'
    heading = ["query", *(f"answer_{place}" for place in range(1, columns + 1))]
    _write_csv(folder / "answers.csv", heading, ([number, *[""] * columns] for number in numbers))
    labels = "; where there is only a class number, from 0, in the first" if fp.task.kind.answers_classes else ""
    return "answers.csv", f"the form: a row per input, its number and a column per answer{labels}"


def _pictures(fp: Fingerprint) -> NDArray[np.uint8] | None:
    """Return the queries as pictures (N, height, width) or (N, height, width, 3); None where they are none."""
    shape = fp.task.input_shape
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < 2 or fp.task.kind.inputs_are_latents:
        return None
    span = np.where(fp.upper > fp.lower, fp.upper - fp.lower, 1.0).astype(np.float64)
    pixels = np.round((fp.queries - fp.lower) / span * (SHADES - 1)).clip(0, SHADES - 1).astype(np.uint8)
    pixels = pixels.reshape(-1, *shape).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels[..., 0] if shape[0] == 1 else pixels)


def _lost(fp: Fingerprint, pictures: NDArray[np.uint8]) -> float:
    """Return the largest change of a feature by its picture, 0 where each level has a shade of its own."""
    if fp.task.levels is not None and fp.task.levels <= SHADES:
        return 0.0
    pixels = pictures[:, None] if pictures.ndim == 3 else pictures.transpose(0, 3, 1, 2)
    restored = pixels.reshape(fp.queries.shape) / (SHADES - 1) * (fp.upper - fp.lower) + fp.lower
    error = float(np.abs(restored - fp.queries).max())
    return error if error > 1e-5 * float(np.max(fp.upper - fp.lower)) else 0.0


def _write_pictures(pictures: NDArray[np.uint8], folder: Path) -> None:
    from PIL import Image

    for number, pixels in enumerate(pictures, start=1):
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")


def _range_of(fp: Fingerprint) -> str:
    low, high = float(fp.lower.min()), float(fp.upper.max())
    same = math.isclose(low, float(fp.lower.max())) and math.isclose(high, float(fp.upper.min()))
    return f"{low:g} to {high:g}" if same else "each feature's own range"


def _meaning(fp: Fingerprint) -> str:
    """Return what the numbers of one answer are."""
    kind, names = fp.task.kind, fp.task.class_names
    order = f" ({', '.join(names)}, in this order)" if names else ""
    if kind.answers_classes:
        return f"scores or probabilities, one per class{order}; or the class number, from 0"
    if kind.answers_odds:
        return f"chances or logits, one per label{order}"
    if kind.answers_places:
        return f"scores or probabilities, one per class{order} and place; or the class number of each place, from 0"
    return "numbers"


def _write_page(fp: Fingerprint, folder: Path, files: list[tuple[str, str]], pictures: bool, form: str) -> None:
    from jinja2 import Environment

    text = (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            count=len(fp.queries),
            shape=" x ".join(map(str, fp.task.input_shape)),
            low=f"{float(fp.queries.min()):g}",
            high=f"{float(fp.queries.max()):g}",
            outputs=f"{' x '.join(map(str, fp.task.answer_shape))} {_meaning(fp)}; as they come, rounding is no harm",
            commitment=fp.commitment,
            files=files,
            form=form,
            pictures=[(f"images/{number:04d}.png", number) for number in range(1, 1 + len(fp.queries) * pictures)],
        )
    )
    (folder / "index.html").write_text(text, encoding="utf-8")
