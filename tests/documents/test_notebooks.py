"""The notebooks: they run from beginning to end, and what is committed with them is what they show."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest
from nbclient import NotebookClient
from real_data import FOLDER, needs_real_data
from reproduce_command import reproduce

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
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}).execute()
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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the models that notebooks train, which the command goes on from."""
    return tmp_path_factory.mktemp("models")


@pytest.mark.slow
@needs_real_data
@pytest.mark.parametrize("name", TASKS)
def test_the_notebooks_of_the_tasks_run_at_smoke_scale(name, models, tmp_path, monkeypatch):
    for variable, value in (("SCALE", "smoke"), ("CACHE", str(models))):
        monkeypatch.setenv(f"METAV_NOTEBOOK_{variable}", value)
    monkeypatch.setenv("METAV_DATA", str(FOLDER))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read(NOTEBOOKS / f"{name}.ipynb")
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    # pictures of lesions are not committed: their licence forbids commerce
    assert pictures(notebook) >= pictures(read(NOTEBOOKS / f"{name}.ipynb")) >= 5
    assert re.search(r"^true-positive rate [\d.]+%", printed(notebook), flags=re.MULTILINE)
    assert re.search(r"^true-negative rate [\d.]+%", printed(notebook), flags=re.MULTILINE)


@pytest.mark.slow
@needs_real_data
def test_the_command_that_the_skin_notebook_names_goes_on_from_its_models(models, tmp_path):
    options = ("--scale", "smoke", "--data", FOLDER, "--cache", models, "--regimes", "few,output:label")
    done = reproduce("skin", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr
    assert (tmp_path / "results" / "skin-smoke" / "report.md").is_file()


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


OWN_LOOP = NOTEBOOKS / "05_your_own_loop.ipynb"


@pytest.mark.slow
def test_the_notebook_of_a_loop_of_ones_own_runs_at_smoke_scale(tmp_path, monkeypatch):
    monkeypatch.setenv("METAV_NOTEBOOK_SCALE", "smoke")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read(OWN_LOOP)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert pictures(notebook) == 1
    assert set(answers(notebook)) == set(answers(read(OWN_LOOP)))


def answers(notebook: Any) -> dict[str, dict[str, str]]:
    """The decision on each suspect by the form in which it answers."""
    found: dict[str, dict[str, str]] = {}
    for line in printed(notebook).splitlines():
        form, suspect = (
            re.match(r"(\S.*): read as (\S.*), access \S", line),
            re.match(r"    (\S.*?)\s+(MATCH|NO_MATCH|INCONCLUSIVE) ", line),
        )
        if form:
            found[form[1]] = {}
        elif suspect:
            found[next(reversed(found))][suspect[1]] = suspect[2]
    return found


def test_its_committed_outputs_clear_the_honest_and_recognise_the_copies():
    notebook = read(OWN_LOOP)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert decisions(notebook) == {
        **dict.fromkeys(("copy, fine-tuned", "copy, distilled"), "MATCH"),
        **dict.fromkeys(("honest, your recipe", "honest, their own"), "NO_MATCH"),
    }
    by_form = answers(notebook)
    assert len(by_form) == 5
    for found in by_form.values():
        assert found["honest, your recipe"] in ("NO_MATCH", "INCONCLUSIVE")
        assert found["honest, their own"] in ("NO_MATCH", "INCONCLUSIVE")


def test_it_goes_from_the_import_to_a_verdict_with_card_and_plot_in_eight_lines():
    (cell,) = (cell for cell in code_cells(read(OWN_LOOP)) if "import metav" in cell.source)
    lines = [line for line in cell.source.splitlines() if line.strip()]
    assert lines[0] == "import metav"
    assert len(lines) <= 8
    assert "recipe=train" in cell.source
    kinds = [set(output.get("data", {})) for output in cell.outputs]
    assert any("image/png" in kind for kind in kinds)
    assert any("text/html" in kind for kind in kinds)


PIPELINE = NOTEBOOKS / "06_release_pipeline.ipynb"


@pytest.mark.slow
def test_the_notebook_of_a_release_pipeline_runs_at_smoke_scale(tmp_path, monkeypatch):
    for library in ("lightning", "mlflow", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    for variable, value in {
        "METAV_NOTEBOOK_SCALE": "smoke",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # the command `metav` of this interpreter
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }.items():
        monkeypatch.setenv(variable, value)
    notebook = read(PIPELINE)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    check_release_story(notebook)
    # the fingerprint stays where the training put it
    assert [path.parent for path in tmp_path.rglob("*.metav")] == [tmp_path]
    (failure,) = ElementTree.parse(tmp_path / "gate.xml").iter("failure")
    assert failure.get("type") == "NO_MATCH"


def test_its_committed_outputs_pass_the_release_and_stop_the_wrong_file():
    notebook = read(PIPELINE)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert pictures(notebook) == 1
    widest = max(len(line) for cell in cells for line in cell.source.splitlines())
    assert widest <= 110, "a page cuts them off"
    check_release_story(notebook)


def check_release_story(notebook: Any) -> None:
    """Check what the notebook tells: who passes the gate, by which exit code, and what the tracker holds."""
    told = printed(notebook)
    gates = r"^gate (\w+): ONNX model (\S+)\s(?:.*\s)*?exit code (\d)"
    assert re.findall(gates, told, flags=re.MULTILINE) == [
        ("passed", "release.onnx", "0"),
        ("failed", "wrong.onnx", "1"),
    ]
    (commitment,) = re.findall(r"^metav\.commitment +([0-9a-f]{64})$", told, flags=re.MULTILINE)
    pages = [
        output.data["text/html"]
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "data" in output and "text/html" in output.data
    ]
    assert any(commitment in page and "What the tracker holds" in page for page in pages)
    assert re.search(r"^metav/owner_matches +1\.000$", told, flags=re.MULTILINE)
    assert "0 of them are a fingerprint\n0 of them hold a query\n" in told
    assert "<testsuites>" in told


def pictures(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_nothing_of_the_machine_that_rendered_it_is_left(path):
    assert not re.search(r"/home/|/tmp/|/root/|/work/|\.venv", path.read_text(encoding="utf-8"))
