"""The notebooks: they run from beginning to end, and what is committed with them is what they show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from real_data import FOLDER, needs_real_data

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FIRST = NOTEBOOKS / "01_first_fingerprint.ipynb"
TASKS = ("02_skin", "03_warfarin", "04_fashion")


def read(path: Path = FIRST) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook: Any) -> str:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def decisions(notebook: Any) -> dict[str, str]:
    lines = re.findall(r"^(\S.*?)\s+(MATCH|NO_MATCH|INCONCLUSIVE)\s+score", printed(notebook), flags=re.MULTILINE)
    return dict(lines)


STORY = {
    **dict.fromkeys(("fine-tuned", "pruned", "distilled", "extracted"), "MATCH"),
    **dict.fromkeys(("same recipe", "somebody else's"), "NO_MATCH"),
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("notebook")
    notebook = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


@pytest.mark.slow
def test_the_first_notebook_runs_and_tells_what_its_text_says(executed):
    assert decisions(executed) == STORY


def test_its_committed_outputs_are_whole_and_of_one_run():
    notebook = read()
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert decisions(notebook) == STORY


def test_it_opens_with_its_question_and_each_step_is_told():
    notebook = read()
    assert notebook.cells[0].source.startswith("# Your first fingerprint\n")
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        assert "markdown" in (before.cell_type, cell.cell_type) or before.source.count("\n") < 12


@pytest.mark.slow
@needs_real_data
@pytest.mark.parametrize("name", TASKS)
def test_the_notebooks_of_the_tasks_run_at_smoke_scale(name, tmp_path, monkeypatch):
    for variable, value in (("SCALE", "smoke"), ("CACHE", str(tmp_path / "cache"))):
        monkeypatch.setenv(f"METAV_NOTEBOOK_{variable}", value)
    monkeypatch.setenv("METAV_DATA", str(FOLDER))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read(NOTEBOOKS / f"{name}.ipynb")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    # pictures of lesions are not committed: their licence forbids commerce
    assert pictures(notebook) >= pictures(read(NOTEBOOKS / f"{name}.ipynb")) >= 5
    assert re.search(r"^true-positive rate [\d.]+%", printed(notebook), flags=re.MULTILINE)
    assert re.search(r"^true-negative rate [\d.]+%", printed(notebook), flags=re.MULTILINE)


@pytest.mark.parametrize("name", TASKS)
def test_their_committed_outputs_are_whole_and_tell_how_to_make_them(name):
    notebook = read(NOTEBOOKS / f"{name}.ipynb")
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert f"metav reproduce {name[3:]} --scale small" in notebook.cells[0].source


@pytest.mark.parametrize("name", TASKS)
def test_they_tell_their_steps_in_short_cells_and_end_with_what_they_do_not_show(name):
    notebook = read(NOTEBOOKS / f"{name}.ipynb")
    assert max(cell.source.count("\n") + 1 for cell in code_cells(notebook)) <= 20
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        assert "markdown" in (before.cell_type, cell.cell_type) or cell.source.count("\n") < 8
    assert "## What this does not show" in notebook.cells[-1].source


def pictures(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_nothing_of_the_machine_that_rendered_it_is_left(path):
    assert not re.search(r"/home/|/tmp/|/root/|/work/|\.venv", path.read_text(encoding="utf-8"))
