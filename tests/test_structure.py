"""The import rule, and what each station may be without."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def load(path: Path) -> ModuleType:
    """The module in a file that is no part of a package."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


structure = load(Path(__file__).with_name("structure.py"))


def test_a_station_imports_only_from_those_above_it() -> None:
    assert [f"{arrow.source} imports {arrow.target}" for arrow in structure.upward(structure.arrows())] == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert structure.circles(structure.arrows()) == []


def test_every_module_lies_in_a_station_of_the_order() -> None:
    assert {structure.station_of(module) for module in structure.modules()} <= set(structure.ORDER)


def test_nobody_but_the_facade_stands_for_the_package() -> None:
    """`import metav` inside the package would import the facade, and with it everything."""
    assert [arrow for arrow in structure.arrows() if arrow.target == "metav"] == []


def test_contributing_quotes_the_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [f"| `{station}` | {lives_there} |" for station, lives_there in structure.ORDER.items()]
    assert "\n".join(rows) in text


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import metav", "metav"),
        ("def f():\n    from metav.zoo import plan", "metav.zoo.plan"),
        ("from metav.zoo.plan import SHARES", "metav.zoo.plan"),
        ("from metav import build_zoo", "metav"),
        ("import metav.zoo.plan as plan", "metav.zoo.plan"),
        ("from ..zoo import plan", "metav.zoo.plan"),
        ("from .. import zoo", "metav.zoo"),
        ("from __future__ import annotations", None),
    ],
)
def test_every_form_of_import_is_read(code: str, expected: str | None, tmp_path: Path) -> None:
    package = tmp_path / "metav"
    for name, text in {
        "tasks/base.py": code,
        "zoo/plan.py": "SHARES = 1",
        "zoo/__init__.py": "",
        "__init__.py": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    found = [arrow.target for arrow in structure.arrows(package)]
    assert found == ([] if expected is None else [expected])
    upward = [arrow.target for arrow in structure.upward(structure.arrows(package))]
    assert upward == found, "each of them looks down from tasks"


def test_a_circle_is_found() -> None:
    a, b, c = "metav.zoo.a", "metav.zoo.b", "metav.zoo.c"
    ring = (structure.Arrow(a, b, 1), structure.Arrow(b, c, 1), structure.Arrow(c, a, 1))
    assert structure.circles(ring) == [[a, b, c, a]]
    assert structure.circles(ring[:2]) == []


def test_stations_without_torch_are_imported_where_it_is_missing() -> None:
    code = """
import importlib, sys
sys.modules["torch"] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
    names = [name for name in structure.modules() if structure.station_of(name) in structure.WITHOUT_TORCH]
    names = [name for name in names if not name.endswith("__main__")]
    assert len(names) > 30
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_command_prints_the_structure() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "structure.py"), "--arrows"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert "upwards: 0, circles: 0" in done.stdout
    assert "metav.verdicts.verification -> metav.fingerprints.fingerprint" in done.stdout
