"""The pipelines of docs/ci: their YAML is read, and their shell parts are run, but for the installation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from junitparser import JUnitXml
from linear_fingerprints import OTHER_OWNER_SEED, OWNER_SEED, linear_fingerprint, weights
from small_onnx import linear

FOLDER = Path(__file__).parents[2] / "docs" / "ci"
KEY = "a passphrase with blanks & $signs"


def read(name: str) -> dict[Any, Any]:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def github_scripts() -> list[str]:
    return [step["run"] for step in read("github-actions-gate.yml")["jobs"]["gate"]["steps"] if "run" in step]


def gitlab_scripts() -> list[str]:
    job = read("gitlab-gate.yml")["release-gate"]
    return ["\n".join([*job["before_script"], *job["script"]])]


def without_installation(script: str) -> str:
    """The script without its `pip install` lines: nothing may be installed from a test."""
    return "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("pip install "))


EXAMPLES = {"github": github_scripts, "gitlab": gitlab_scripts}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository as the examples expect it, and a `metav` to call."""
    (tmp_path / "fingerprints").mkdir()
    (tmp_path / "temporary").mkdir()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "metav"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m metav.cli "$@"\n')
    program.chmod(0o755)
    for name, owner in (("owner", OWNER_SEED), ("other", OTHER_OWNER_SEED)):
        plain = tmp_path / f"{name}.metav"
        linear_fingerprint(owner=owner).save(plain)
        # as the head of the examples says
        command = ["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-pass", "env:FINGERPRINT_KEY", "-in", str(plain)]
        command += ["-out", str(tmp_path / "fingerprints" / f"{name}.metav.enc")]
        subprocess.run(command, env={**os.environ, "FINGERPRINT_KEY": KEY}, check=True)
        plain.unlink()
    return tmp_path


def run(scripts: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the scripts one after the other as runners do, until one fails."""
    variables = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "RUNNER_TEMP": str(folder / "temporary"),
        "TMPDIR": str(folder / "temporary"),
        "FINGERPRINT_KEY": KEY,
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
    }
    for script in scripts:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", without_installation(script)],
            cwd=folder,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            break
    return done


@pytest.mark.parametrize("scripts", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize(("owner", "code"), [(OWNER_SEED, 0), (OTHER_OWNER_SEED, 1)], ids=["own", "somebody else's"])
def test_the_owners_release_passes_and_another_stops_the_pipeline(
    repository: Path, scripts: Callable[[], list[str]], owner: int, code: int
) -> None:
    linear(repository / "release.onnx", weights(derived=True, seed=200, owner=owner), shape=("n", 4))
    done = run(scripts(), repository)
    assert done.returncode == code, done.stderr
    (suite,) = JUnitXml.fromfile(str(repository / "gate.xml"))
    assert (suite.tests, suite.failures) == (2, 2 * code)
    assert (repository / "gate.json").stat().st_size > 0
    assert not list(repository.glob("*.metav")), "fingerprints stay out of the folder that is kept"


@pytest.mark.parametrize("scripts", EXAMPLES.values(), ids=EXAMPLES)
def test_one_line_installs_and_is_left_out_here(scripts: Callable[[], list[str]]) -> None:
    whole = "\n".join(scripts()).splitlines()
    left_out = [line for line in whole if line not in without_installation("\n".join(whole)).splitlines()]
    assert [line.split()[:2] for line in left_out] == [["pip", "install"]]
    assert "metav-fingerprint[onnx]" in left_out[0]


def test_the_report_is_kept_whatever_the_outcome() -> None:
    *_, keep = read("github-actions-gate.yml")["jobs"]["gate"]["steps"]
    assert keep["if"] == "always()"
    assert "gate.xml" in keep["with"]["path"].split()
    artifacts = read("gitlab-gate.yml")["release-gate"]["artifacts"]
    assert (artifacts["when"], artifacts["reports"]["junit"]) == ("always", "gate.xml")
