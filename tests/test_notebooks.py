"""The notebooks: they run from beginning to end, and what is committed with them is what they show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FIRST = Path(__file__).parent.parent / "notebooks" / "01_first_fingerprint.ipynb"


def read() -> Any:
    return nbformat.read(FIRST, as_version=4)


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


def test_nothing_of_the_machine_that_rendered_it_is_left():
    assert not re.search(r"/home/|/tmp/|/root/|/work/|\.venv", FIRST.read_text(encoding="utf-8"))
