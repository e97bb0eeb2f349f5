"""A new view and a new verifier kind are one file and one table row each: added to a copy, built, and used."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADDITIONS = Path(__file__).parent / "extension_points"
BUILT_FROM = ["csrc", "metav", "setup.py", "pyproject.toml", "README.md"]


def add_row(table_file: Path, table: str, type_name: str, variable: str) -> None:
    """Declares a variable before a table, and adds it as the table's last row."""
    head, declaration, rows = table_file.read_text().partition(f"static const {type_name} *const {table}[]")
    assert declaration, f"{table_file.name} has no table {table}"
    declared = f"{head.rstrip()}\nextern const {type_name} {variable};\n\n{declaration}{rows}"
    table_file.write_text(
        re.sub(rf"(\b{table}\[\] = {{\n.*?)^}};", rf"\1    &{variable},\n}};", declared, flags=re.S | re.M)
    )


@pytest.mark.slow
def test_a_view_and_a_kind_are_one_file_and_one_row_each(tmp_path: Path) -> None:
    if not all((ROOT / name).exists() for name in BUILT_FROM):
        pytest.skip("the sources are not here (tests run from an installed package)")
    if "LD_PRELOAD" in os.environ:
        pytest.skip("a library is preloaded (a sanitizer), which compilers do not like")
    if sys.platform == "win32" or not (shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")):
        pytest.skip("no C compiler (gcc or cc) on the path")
    for name in BUILT_FROM:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    core = tmp_path / "csrc"
    shutil.copy(ADDITIONS / "mv_view_power.c", core)
    add_row(core / "mv_view.c", "VIEWS", "mv_view_kind", "mv_view_power")
    shutil.copy(ADDITIONS / "mv_linear.c", core)
    add_row(core / "mv_verifier.c", "KINDS", "mv_kind", "mv_kind_linear")

    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    environment = {**os.environ, "METAV_WERROR": "1"}
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert built.returncode == 0, built.stderr

    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ADDITIONS / "use.py"), str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
