"""Pictures of scores: what is drawn where, without a trace on matplotlib's global state."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from small_fingerprints import answers_with_logit, handmade

import metav
from metav.reports import plot_scores
from metav.reports.score_plot import save_plot

LOGITS = {
    ("finetune_all", True): [1.0, 1.5, 2.5],
    ("distill_other", True): [0.25, 0.75],
    ("independent_same_data", False): [-1.0, -0.5, 0.0, 0.75],
}


def evaluation(**extra: Any) -> metav.Evaluation:
    """An evaluation with known scores, one derived suspect below and one independent above the threshold."""
    fp = handmade()
    entries = [
        (answers_with_logit(fp, logit, seed=number), is_positive, family)
        for (family, is_positive), logits in LOGITS.items()
        for number, logit in enumerate(logits)
    ]
    return metav.evaluate(fp, [*entries, *extra.get("more", [])])


def verdict(logit: float) -> metav.Verdict:
    return metav.verify(handmade(), answers_with_logit(handmade(), logit))


def broken() -> metav.Verdict:
    return metav.verify(handmade(), lambda queries: 1 / 0)


def drawn_scores(axes: Any) -> dict[str, list[float]]:
    """The x of all markers, by the name of the row that they lie in."""
    names = [label.get_text() for label in axes.get_yticklabels()]
    found: dict[str, list[float]] = {name: [] for name in names}
    for points in axes.collections:
        for x, y in points.get_offsets():
            found[names[round(y)]].append(float(x))
    return {name: sorted(values) for name, values in found.items()}


def vertical_lines(axes: Any) -> list[float]:
    return sorted(float(line.get_xdata()[0]) for line in axes.lines if len(set(line.get_xdata())) == 1)


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_every_score_stands_in_the_row_of_its_family():
    found = evaluation()
    rows = drawn_scores(plot_scores(found))
    for family, _ in LOGITS:
        expected = sorted(result.score for result in found.results if result.family == family)
        assert rows[family.replace("_", " ")] == pytest.approx(expected)


def test_independent_families_come_first_and_each_row_says_how_many_are_right():
    axes = plot_scores(evaluation())
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["independent same data", "finetune all", "distill other"]
    assert texts(axes)[:3] == ["3/4", "3/3", "1/2"]
    low, high = axes.get_ylim()
    assert low > high  # the first row is on top


def test_the_threshold_and_the_suspects_are_lines_at_their_scores():
    suspects = {"bought": verdict(2.0), "found": verdict(-1.0)}
    axes = plot_scores(evaluation(), suspects)
    assert vertical_lines(axes) == pytest.approx(sorted([0.5, suspects["bought"].score, suspects["found"].score]))
    assert drawn_scores(axes)["bought"] == pytest.approx([suspects["bought"].score])
    assert f"{suspects['bought'].score:.3f}  match" in texts(axes)
    assert f"{suspects['found'].score:.3f}  no match" in texts(axes)


def test_a_suspect_without_a_score_is_named_and_has_no_line():
    axes = plot_scores(handmade(), broken())
    assert vertical_lines(axes) == [0.5]
    assert "inconclusive" in texts(axes)


def test_a_fingerprint_shows_the_models_that_calibrated_it():
    fp = handmade()
    rows = drawn_scores(plot_scores(fp, [verdict(2.0)]))
    assert rows["independent, calibration"] == pytest.approx(sorted(fp.calibration.score(fp.calibration.negatives)))
    assert rows["derived, calibration"] == pytest.approx(sorted(fp.calibration.score(fp.calibration.positives)))


def test_the_legend_names_what_is_there():
    def names(axes: Any) -> list[str]:
        return [text.get_text() for text in axes.get_legend().get_texts()]

    assert names(plot_scores(evaluation())) == ["threshold", "independent", "derived"]
    assert names(plot_scores(evaluation(), verdict(2.0))) == ["threshold", "independent", "derived", "suspect"]


def test_inconclusive_suspects_of_an_evaluation_are_left_out():
    more = [(lambda queries: 1 / 0, True, "broken")]
    axes = plot_scores(evaluation(more=more))
    assert drawn_scores(axes)["broken"] == []
    assert "0/0" in texts(axes)


def test_it_draws_into_the_axes_it_is_given_and_returns_them():
    figure = Figure()
    first, second = figure.subplots(1, 2)
    assert plot_scores(evaluation(), ax=second, title="mine") is second
    assert second.get_title(loc="left") == "mine"
    assert not first.collections


def test_titles_say_what_was_found():
    assert plot_scores(evaluation()).get_title(loc="left") == "6 queries: TPR 4/5, TNR 3/4"
    assert "false-positive rate 0.05 wanted" in plot_scores(handmade()).get_title(loc="left")


@pytest.mark.parametrize("count", [0, 1, 6])
def test_no_two_texts_overlap_and_none_is_cut_off(count):
    suspects = {f"suspect number {number}": verdict(0.5 + 0.01 * number) for number in range(count)}
    axes = plot_scores(evaluation(), suspects)
    figure = axes.figure
    figure.canvas.draw()
    pieces = [*axes.get_yticklabels(), *axes.get_xticklabels(), *axes.texts, axes.xaxis.label, axes.get_legend()]
    pieces.append(axes._left_title)
    boxes = [piece.get_window_extent() for piece in pieces]
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    width, height = figure.canvas.get_width_height()
    for box in boxes:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_colours_differ_in_lightness_and_markers_in_shape():
    kinds = [points for points in plot_scores(evaluation(), verdict(2.0)).collections if points.get_label()[0] != "_"]
    shapes = {tuple(map(tuple, points.get_paths()[0].vertices)) for points in kinds}
    lightness = sorted(float(np.dot(points.get_facecolor()[0][:3], [0.2126, 0.7152, 0.0722])) for points in kinds)
    assert len(kinds) == len(shapes) == 3
    assert min(np.diff(lightness)) > 0.05


def test_pyplot_and_the_settings_are_left_alone(tmp_path):
    handmade().save(tmp_path / "owner.metav")
    code = """
import sys, matplotlib, metav
before = matplotlib.rcParams.copy()
from metav.reports.score_plot import plot_scores, save_plot
save_plot(plot_scores(metav.load(sys.argv[1] + "/owner.metav")), sys.argv[1] + "/plot.png")
unchosen = matplotlib.get_backend(auto_select=False) is None
print("matplotlib.pyplot" in sys.modules, unchosen, matplotlib.rcParams.copy() == before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "False True True\n", done.stderr
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_the_same_data_give_the_same_picture(tmp_path):
    for name in ("a.png", "b.png"):
        save_plot(plot_scores(evaluation(), verdict(2.0)), tmp_path / name)
    first = (tmp_path / "a.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert first == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no/folder/plot.png", "the plot cannot be written to"),
        ("plot.unknown", r"is no picture file; expected a name that ends with \.png, \.svg, \.pdf"),
        ("plot", "is no picture file"),
        (".png", "is no picture file"),
    ],
)
def test_a_plot_that_cannot_be_written_leaves_nothing(tmp_path, target, message):
    with pytest.raises(metav.InputError, match=message):
        save_plot(plot_scores(handmade()), tmp_path / target)
    assert list(tmp_path.iterdir()) == []


def test_a_name_without_a_known_ending_keeps_its_content(tmp_path):
    (tmp_path / "weights").write_bytes(b"precious")
    with pytest.raises(metav.InputError, match="is no picture file"):
        save_plot(plot_scores(handmade()), tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == b"precious"


def test_what_is_no_result_is_refused():
    with pytest.raises(metav.InputError, match="source must be an Evaluation or a Fingerprint, got list"):
        plot_scores([0.5])
    with pytest.raises(metav.InputError, match=r"suspects must be verdicts of metav\.verify, got float"):
        plot_scores(handmade(), 0.7)
    with pytest.raises(metav.InputError, match="got float for 'mine'"):
        plot_scores(handmade(), {"mine": 0.7})


def test_a_verdict_alone_is_sent_to_its_fingerprint():
    with pytest.raises(metav.InputError, match=r"is a Verdict, .* plot_scores\(fingerprint, verdict\)"):
        plot_scores(verdict(2.0))
    assert "1.000  match" in texts(plot_scores(handmade(), verdict(2.0)))


def test_an_evaluation_without_a_score_cannot_be_drawn():
    failing = [(lambda queries: 1 / 0, True, "derived"), (lambda queries: 1 / 0, False, "independent")]
    with pytest.raises(metav.InputError, match="every suspect of the evaluation was inconclusive"):
        plot_scores(metav.evaluate(handmade(), failing))


# Notebooks -----------------------------------------------------------------------------------------------------------

CELLS = {
    "the axes of a plot": ("plot_scores(fingerprint)", 1),
    "a plot that is named": ("axes = plot_scores(fingerprint)", 0),
    "a plot and its axes": ("axes = plot_scores(fingerprint)\naxes", 1),
    "a figure of an experiment": ("plot_robustness([0.9, 0.8], [0.1, 0.2])", 1),
    "axes of pyplot": ("figure, ax = plt.subplots()\nplot_scores(fingerprint, ax=ax)", 1),
    "axes of pyplot, silenced": ("figure, ax = plt.subplots()\nplot_scores(fingerprint, ax=ax);", 1),
}


@pytest.mark.slow
def test_a_plot_that_ends_a_cell_is_shown_once(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    handmade().save(tmp_path / "owner.metav")
    start = (
        "import matplotlib.pyplot as plt\nimport metav\nfrom metav.reports.experiment_plots import plot_robustness\n"
        f"from metav.reports.score_plot import plot_scores\nfingerprint = metav.load({str(tmp_path / 'owner.metav')!r})"
    )
    sources = [start, *(source for source, _ in CELLS.values())]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbclient.NotebookClient(notebook, timeout=1200).execute()
    for (name, (_, wanted)), cell in zip(CELLS.items(), notebook.cells[1:], strict=True):
        pictures = sum("image/png" in output.get("data", {}) for output in cell.outputs)
        assert pictures == wanted, name


def test_axes_of_their_own_are_a_picture_and_those_of_the_user_are_left_to_pyplot():
    assert plot_scores(evaluation())._repr_png_().startswith(b"\x89PNG")
    own = Figure().add_subplot()
    assert plot_scores(evaluation(), ax=own) is own
    assert not hasattr(own, "_repr_png_")
