"""The pictures of the pages, drawn anew: `python docs/pictures/make_pictures.py`, 15 minutes on one core.

The tutorial's code runs as it stands on its page, so that the pictures show the models of the text. Data are
scikit-learn's digits. The figures behind `recipe.png` are printed; docs/verdict.md quotes them.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional

import metav
from metav.reports import plot_scores, save_plot
from metav.reports.score_plot import DERIVED, INDEPENDENT, INK
from metav.statistics.intervals import exact_interval
from metav.verdicts.verdict import Verdict

FOLDER = Path(__file__).resolve().parent
TUTORIAL = FOLDER.parent / "tutorial.md"
SHOWN = 8
"""Queries of each kind in the picture of queries."""


def tutorial_names() -> dict[str, Any]:
    """Return the names that the tutorial's Python blocks end with."""
    names: dict[str, Any] = {"__name__": "tutorial"}
    blocks = re.findall(r"^```python\n(.*?)^```$", TUTORIAL.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for block in blocks:
            exec(compile(block, TUTORIAL.name, "exec"), names)
    return names


def draw_queries(fp: metav.Fingerprint) -> Any:
    """Draw natural queries above optimised ones."""
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    rows = {"natural": fp.queries[fp.adaptive :][:SHOWN], "optimised": fp.queries[: fp.adaptive][:SHOWN]}
    axes = figure.subplots(len(rows), SHOWN)
    for row, (name, queries) in zip(axes, rows.items(), strict=True):
        for ax, query in zip(row, queries, strict=True):
            ax.imshow(query.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    return axes[0, 0]


def draw_bound(most: int = 300) -> Any:
    """Draw how high the false-positive rate may be if no calibration model is accused, by their number."""
    ax = Figure(figsize=(7, 3.2), layout="constrained").subplots()
    counts = np.arange(5, most + 1)
    ax.plot(counts, [100 * exact_interval(0, int(count)).high for count in counts], color=INDEPENDENT)
    for count in (22, 50, 100, 300):
        high = 100 * exact_interval(0, count).high
        ax.plot(count, high, "o", color=INDEPENDENT)
        ax.annotate(f"{count}: {high:.1f} %", (count, high), xytext=(6, 8), textcoords="offset points", color=INK)
    ax.set(xlabel="independent models that calibrate, none of them accused", ylim=(0, 45), xlim=(0, most + 25))
    ax.set_ylabel("false-positive rate is at most (%)")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def shifted(batch: torch.Tensor) -> torch.Tensor:
    """Return images moved by up to one pixel, each batch in one direction."""
    across, down = torch.randint(-1, 2, (2,)).tolist()
    return torch.roll(batch, (across, down), dims=(-2, -1))


def long_recipe(images: torch.Tensor, labels: torch.Tensor, epochs: int) -> Callable[[int], nn.Module]:
    """Return a recipe that lies far from what is usual: long, with smoothed labels and shifted images."""

    def train(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.05)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(32):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(shifted(images[rows])), labels[rows], label_smoothing=0.2)
                loss.backward()
                optimizer.step()
        return model.eval()

    return train


def compare_recipes(names: dict[str, Any], suspects: int, epochs: int) -> dict[str, dict[str, list[Verdict]]]:
    """Return the verdicts on kin and on copies for an owner of the long recipe, with the recipe told and not told."""
    images, labels = names["images"], names["labels"]
    recipe = long_recipe(images[:600], labels[:600], epochs)
    owner, task, thief = recipe(0), names["task"], names["thief"]
    families = ("finetune_last", "weight_prune", "quantize", "weight_noise")
    attacks = [metav.obfuscations.OBFUSCATIONS[family].function for family in families]
    copies = [attacks[k % 4](owner, thief, strength=0.3, seed=k) for k in range(suspects)]
    kin = [recipe(1000 + k) for k in range(suspects)]
    found = {}
    for told, options in (("recipe told", {"recipe": recipe}), ("recipe not told", {})):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            fp = metav.fingerprint(owner, task, jobs=1, **options)
        print(f"{told}: warnings: {[str(entry.message) for entry in warned]}")
        found[told] = {
            "kin": [metav.verify(fp, model) for model in kin],
            "copies": [metav.verify(fp, model) for model in copies],
        }
    return found


def draw_recipes(found: dict[str, dict[str, list[Verdict]]]) -> Any:
    """Draw the scores of kin and of copies, with the recipe told and not told; hollow where nothing was decided."""
    ax = Figure(figsize=(7, 3), layout="constrained").subplots()
    ax.axvspan(0.5, 1.03, color=DERIVED, alpha=0.06, linewidth=0)
    ax.axvline(0.5, color=INK, linestyle=(0, (4, 3)))
    rows = [(told, kind) for told in found for kind in ("kin", "copies")]
    for place, (told, kind) in enumerate(rows):
        verdicts = found[told][kind]
        color, marker = (INDEPENDENT, "o") if kind == "kin" else (DERIVED, "D")
        heights = place + np.linspace(-0.25, 0.25, len(verdicts))
        filled = [color if verdict.decision != "INCONCLUSIVE" else "none" for verdict in verdicts]
        scores = [verdict.score for verdict in verdicts]
        ax.scatter(scores, heights, facecolors=filled, edgecolors=color, marker=marker, alpha=0.7)
        counts = Counter(str(verdict.decision) for verdict in verdicts)
        print(f"{told}: {len(verdicts)} {kind}: {dict(counts)}")
    labels = [f"{'copies' if kind == 'copies' else 'honest kin'}, {told}" for told, kind in rows]
    ax.set(xlim=(-0.03, 1.03), xlabel="score (hollow: INCONCLUSIVE)")
    ax.set_yticks(range(len(rows)), labels)
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def make_pictures(folder: Path, names: dict[str, Any], *, suspects: int = 24, epochs: int = 60) -> None:
    """Write all pictures into a folder.

    names: those of the tutorial.
    suspects, epochs: how many models of each kind stand in `recipe.png`, and how long its owner trains.
    """
    shown = {name: metav.verify(names["fp"], names[name]) for name in ("honest", "taught", "stolen")}
    pictures = {
        "queries": draw_queries(names["fp"]),
        "scores": plot_scores(names["fp"], shown, title="The tutorial's three suspects"),
        "evaluation": plot_scores(names["evaluation"], title="Test suspects of the tutorial, by family"),
        "bound": draw_bound(),
        "recipe": draw_recipes(compare_recipes(names, suspects, epochs)),
    }
    for name, axes in pictures.items():
        save_plot(axes, folder / f"{name}.png", dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the pictures")
    matplotlib.use("agg")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    make_pictures(parser.parse_args().output, tutorial_names())
