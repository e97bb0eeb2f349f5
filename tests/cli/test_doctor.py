"""`metav doctor`: sound here, and each kind of damage is found and told with what to do."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from metav import _core
from metav.cli import doctor, doctor_checks, doctor_libraries
from metav.cli.commands import main
from metav.support import core_check
from metav.zoo.cache import ZooCache, cache_key, pack


def shell(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "metav.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **variables})


@functools.cache
def sound() -> subprocess.CompletedProcess[str]:
    return shell("doctor", "--json")


def found_by(check) -> list[tuple[str, str]]:
    return [(finding.status, finding.name) for finding in check()]


def test_a_sound_installation_ends_with_0_and_every_check_says_something():
    assert sound().returncode == 0, sound().stderr
    found = json.loads(sound().stdout)
    names = [entry["name"] for entry in found["findings"]]
    for isa in _core.cpu_info()["isas"]:
        assert f"core, {isa}" in names
    assert {"python", "core", "processor", "torch and core", "worker processes", "temporary files", "cache"} <= {*names}
    assert found["fail"] == 0
    assert found["ok"] + found["warn"] == len(names)


def test_people_read_one_line_each_and_what_to_do_below_it():
    found = json.loads(sound().stdout)["findings"]
    lines = sound().stderr.splitlines()
    assert lines[-1].endswith(" 0 broken")
    assert len(lines) == 1 + len(found) + sum(entry["remedy"] is not None for entry in found)
    assert all(line.split()[0] in ("ok", "warn", "->") for line in lines[:-1])


def test_a_core_that_cannot_be_loaded_is_told_and_other_commands_say_where_to_look():
    broken = shell("doctor", "--json", METAV_ISA="abacus")
    assert broken.returncode == 1
    (core,) = (entry for entry in json.loads(broken.stdout)["findings"] if entry["name"] == "core")
    assert core["status"] == "fail"
    assert "METAV_ISA" in core["remedy"]
    other = shell("inspect", "owner.metav", METAV_ISA="abacus")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "`metav doctor` says what to do" in other.stderr


@pytest.mark.parametrize(("missing", "status"), [("torch", "warn"), ("libgomp", "fail")])
def test_a_missing_torch_limits_and_a_broken_one_is_broken(monkeypatch, missing, status):
    def import_module(name):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(doctor_libraries, "import_module", import_module)
    (finding,) = doctor_libraries.check_torch()
    assert finding.status == status
    assert "pip install torch" in finding.remedy


# The core --------------------------------------------------------------------------------------------------------


def test_each_instruction_set_was_really_used():
    for isa in _core.cpu_info()["isas"]:
        run = [sys.executable, "-m", "metav.support.core_check"]
        out = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "METAV_ISA": isa}, timeout=60)
        assert json.loads(out.stdout)["isa"] == isa


def test_wrong_numbers_of_the_core_are_seen(monkeypatch):
    right = core_check.core_check()["deviations"]
    assert max(right.values()) < core_check.ALLOWED / 10
    real = _core.apply_view
    monkeypatch.setattr(core_check._core, "apply_view", lambda *given: real(*given) * np.float32(1.001))
    assert core_check.core_check()["deviations"]["log-probabilities"] > core_check.ALLOWED


@pytest.mark.parametrize(
    ("isas", "broken", "suggested"),
    [
        (("neon", "generic"), {"generic"}, "neon"),
        (("neon", "generic"), {"neon"}, "generic"),
        (("avx512", "avx2", "generic"), {"avx512", "generic"}, "avx2"),
        (("avx512", "avx2", "generic"), {"avx512", "avx2", "generic"}, None),
        (("generic",), {"generic"}, None),
    ],
)
def test_instead_of_a_broken_instruction_set_one_that_was_found_sound_is_suggested(
    monkeypatch, isas, broken, suggested
):
    def run(command, *, env, **options):
        isa = env["METAV_ISA"]
        found = {"isa": isa, "deviations": {"logits": 0.5 if isa in broken else 1e-7}, "same_for_all_threads": True}
        return types.SimpleNamespace(returncode=0, stdout=json.dumps(found), stderr="")

    core = other_core(cpu_info=lambda: {"isa": isas[0], "isas": isas, "cpus": 2, "threads": 2})
    monkeypatch.setattr(doctor_checks, "import_module", lambda name: core)
    monkeypatch.setattr(doctor_checks.subprocess, "run", run)
    findings = {finding.name.removeprefix("core, "): finding for finding in doctor_checks.check_instruction_sets()}
    assert {isa for isa, finding in findings.items() if finding.status == "fail"} == broken
    for isa in broken:
        assert "deviates from NumPy" in findings[isa].found
        assert "install metav again" in findings[isa].remedy
        assert re.findall(r"METAV_ISA=(\w+)", findings[isa].remedy) == ([] if suggested is None else [suggested])
    assert all(findings[isa].remedy is None for isa in {*isas} - broken)


def test_an_instruction_set_that_really_deviates_or_cannot_run_is_broken(monkeypatch):
    monkeypatch.setattr(core_check, "ALLOWED", 1e-12)
    assert next(doctor_checks.check_instruction_sets()).status == "fail"
    core = other_core(cpu_info=lambda: {"isa": "abacus", "isas": ("abacus",), "cpus": 2, "threads": 2})
    monkeypatch.setattr(doctor_checks, "import_module", lambda name: core)
    (finding,) = doctor_checks.check_instruction_sets()
    assert (finding.status, "cannot compute" in finding.found) == ("fail", True)


def other_core(**changes):
    """The extension as it is, with some names replaced, and those that become None left out."""
    fake = types.ModuleType("metav._core")
    fake.__dict__.update({name: value for name, value in {**vars(_core), **changes}.items() if value is not None})
    return fake


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"view_gradient": None}, "view_gradient"),
        ({"apply_view": lambda responses: responses}, "apply_view"),
        ({"Verifier": None}, "Verifier"),
        ({"Verifier": type("Verifier", (), {"step": _core.Verifier.step})}, "Verifier.logits"),
    ],
)
def test_an_extension_of_another_version_is_broken(monkeypatch, changes, named):
    monkeypatch.setattr(doctor_checks, "import_module", lambda name: other_core(**changes))
    (finding,) = doctor_checks.check_extension()
    assert finding.status == "fail"
    assert named in finding.found
    assert "install metav again" in finding.remedy


def test_the_extension_here_fits():
    assert found_by(doctor_checks.check_extension) == [("ok", "core")]


# Several of them -------------------------------------------------------------------------------------------------


def install(folder: Path, name: str, version: str) -> None:
    information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_second_package_on_the_path_is_named(tmp_path, monkeypatch):
    (tmp_path / "metav").mkdir()
    (tmp_path / "metav" / "__init__.py").write_text("")
    before = found_by(doctor_checks.check_package)
    monkeypatch.syspath_prepend(tmp_path)
    found = list(doctor_checks.check_package())
    assert [entry.name for entry in found] == [name for _, name in before] + ["second metav"]
    assert str(tmp_path / "metav") in found[-1].found


def test_two_installed_versions_are_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b")])
    install(tmp_path / "a", "metav-fingerprint", "0.2.0")
    assert not [name for _, name in found_by(doctor_checks.check_package) if name == "installations"]
    install(tmp_path / "b", "metav-fingerprint", "0.1.0")
    assert ("fail", "installations") in found_by(doctor_checks.check_package)


def test_the_other_project_of_that_name_is_broken(tmp_path, monkeypatch):
    install(tmp_path, "metav", "1.0")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = (entry for entry in doctor_checks.check_package() if entry.status == "fail")
    assert "pip uninstall metav" in finding.remedy


# Libraries -------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """Lets metav ask for other libraries."""

    def ask(*lines: str) -> None:
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(lines))

    return ask


def test_an_extra_made_of_others_has_no_line_of_its_own(asked):
    whole = 'metav-fingerprint[a,b]; extra == "whole"'
    asked('numpy; extra == "a"', 'no-such-library; extra == "b"', whole, 'no-such-other; extra == "whole"')
    assert [finding.name for finding in doctor_libraries.check_extras()] == ["extra a", "extra b"]


def test_requirements_are_read_as_they_are_written(asked):
    asked("numpy>=2.0", "scipy", 'torch>=2.10 ; extra == "torch"', 'metav-fingerprint[onnx] ; extra == "test"')
    assert [(entry.name, entry.least, entry.extra) for entry in doctor_libraries.requirements()] == [
        ("numpy", (2, 0), None),
        ("scipy", (), None),
        ("torch", (2, 10), "torch"),
    ]


@pytest.mark.parametrize(
    ("lines", "status", "text"),
    [
        (["numpy>=2.0", "scipy"], "ok", "numpy 2."),
        (["numpy>=99.1"], "fail", "older than 99.1"),
        (["numpy", "no-such-library"], "fail", "no-such-library not installed"),
    ],
)
def test_what_metav_cannot_do_without(asked, lines, status, text):
    asked(*lines)
    (finding,) = doctor_libraries.check_requirements()
    assert (finding.status, text in finding.found) == (status, True)


@pytest.mark.parametrize(
    ("lines", "status"),
    [(["numpy", "scipy"], "ok"), (["no-such-library"], "ok"), (["numpy", "no-such-library"], "warn")],
    ids=["there", "never asked for", "half there"],
)
def test_an_extra_is_there_absent_or_half_there(asked, lines, status):
    asked(*(f'{line}; extra == "onnx"' for line in lines), 'no-such-library; extra == "test"')
    (finding,) = doctor_libraries.check_extras()
    assert (finding.status, finding.name) == (status, "extra onnx")
    assert ("pip install" in (finding.remedy or "")) == ("no-such-library" in lines)


def test_a_library_that_cannot_be_imported_is_broken(asked, tmp_path, monkeypatch):
    install(tmp_path, "broken-library", "1.0")
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('no libfoo.so')")
    monkeypatch.syspath_prepend(tmp_path)
    asked('broken-library; extra == "onnx"')
    (finding,) = doctor_libraries.check_extras()
    assert finding.status == "fail"
    assert "no libfoo.so" in finding.found


# The rest --------------------------------------------------------------------------------------------------------


def test_more_threads_than_cores_are_warned_of(monkeypatch):
    before = _core.get_num_threads()
    try:
        _core.set_num_threads(_core.cpu_info()["cpus"] + 1)
        assert ("warn", "processor") in found_by(doctor_checks.check_processor)
    finally:
        _core.set_num_threads(before)
    monkeypatch.setenv("METAV_JOBS", "many")
    assert ("fail", "jobs") in found_by(doctor_checks.check_processor)


def test_a_cache_folder_is_looked_at(tmp_path):
    import torch

    from metav.zoo.cache import TrainedModel

    key = cache_key({})
    trained = TrainedModel(states=({"w": torch.ones(1)},), fractions=(1.0,), metrics=(0.5,), strength=None)
    ZooCache(tmp_path).store(key, pack(trained, key))
    (finding,) = doctor_checks.check_cache(str(tmp_path))
    assert (finding.status, "1 models of" in finding.found) == ("ok", True)
    (finding,) = doctor_checks.check_cache(str(tmp_path / "none"))
    assert finding.status == "warn"


def test_a_full_disk_is_warned_of(monkeypatch):
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=1000))
    assert found_by(doctor_checks.check_disk) == [("warn", "current folder"), ("warn", "temporary files")]


@pytest.mark.parametrize(
    ("place", "status", "remedy"),
    [("current folder", "warn", "work in another folder"), ("temporary files", "fail", "set TMPDIR to a folder")],
)
def test_a_folder_that_cannot_be_written_to_is_told_with_what_to_do(monkeypatch, tmp_path, place, status, remedy):
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(doctor_checks.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    closed = {"current folder": tmp_path / "here", "temporary files": tmp_path / "temporary"}[place]
    real = doctor_checks.tempfile.TemporaryFile

    def temporary_file(*, dir):
        if dir == closed:
            raise PermissionError("denied")
        return real(dir=dir)

    monkeypatch.setattr(doctor_checks.tempfile, "TemporaryFile", temporary_file)
    (found,) = (finding for finding in doctor_checks.check_disk() if finding.name == place)
    assert (found.status, found.remedy.startswith(remedy)) == (status, True)


def test_a_check_that_cannot_be_carried_out_hides_no_other(monkeypatch):
    def check_python():
        raise OSError("nothing works")

    monkeypatch.setattr(doctor_checks, "check_python", check_python)
    monkeypatch.setattr(doctor_checks, "check_instruction_sets", lambda: iter(()))
    found = doctor.examine()
    assert (found[0].status, found[0].name) == ("fail", "python")
    assert "nothing works" in found[0].found
    assert len(found) > 8


def test_the_help_says_what_it_ends_with():
    assert "1  something is broken" in CliRunner().invoke(main, ["doctor", "--help"]).stdout
