"""What `metav doctor` looks at: each check yields findings, and nothing here needs the core to be there."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from metav.support.text import byte_size
from metav.support.versions import DISTRIBUTION, version_of

PACKAGE = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = (3, 11)
LEAST_FREE = 2**30
"""Bytes of free disk below which it is worth saying so."""
MOST_SECONDS = 60.0
"""For a process that only imports the core and computes for a moment."""
OK, WARN, FAIL = "ok", "warn", "fail"
_AGAIN = 'install metav again: pip install --force-reinstall --no-deps "." in its folder'


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    status: "ok", "warn" for what limits something, "fail" for what is broken.
    name: what was looked at.
    found: what is there.
    remedy: what to do; None where there is nothing to do.
    """

    status: str
    name: str
    found: str
    remedy: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Return the fields as a plain dictionary, ready for JSON."""
        return asdict(self)


def check_python() -> Iterator[Finding]:
    """Yield the interpreter and the system."""
    found = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}"
    oldest = ".".join(map(str, OLDEST_PYTHON))
    is_known = sys.version_info >= OLDEST_PYTHON and platform.python_implementation() == "CPython"
    remedy = None if is_known else f"use CPython {oldest} or later"
    yield Finding(OK if is_known else FAIL, "python", f"{found}, {sys.executable}", remedy)


def check_package() -> Iterator[Finding]:
    """Yield which metav is imported, and what else of that name could be."""
    version, found = version_of(), _distributions(DISTRIBUTION)
    others = [place for place in found if PACKAGE not in (place.package, *place.editable)]
    if not found:
        remedy = 'install it: pip install "." in its folder'
        yield Finding(WARN, "metav", f"imported from {PACKAGE}, not installed, so that its version is unknown", remedy)
    elif len(others) == len(found):
        text = f"imported from {PACKAGE}, while {others[0]} is installed; the version is that of the latter"
        yield Finding(WARN, "metav", text, "unset PYTHONPATH, or install the folder that you work in")
    else:
        yield Finding(OK, "metav", f"{version}, imported from {PACKAGE}")
    if len(found) > 1:
        text = f"{len(found)} installations: {'; '.join(map(str, found))}"
        remedy = f"pip uninstall {DISTRIBUTION}, until it says that there is none; then install it once"
        yield Finding(FAIL if len({place.version for place in found}) > 1 else WARN, "installations", text, remedy)
    for folder in _hidden_copies():
        remedy = "remove the one that you do not want, or take its folder out of PYTHONPATH"
        yield Finding(WARN, "second metav", f"{folder} is on the path, too, hidden by the one that is imported", remedy)
    for place in _distributions("metav"):
        remedy = f"pip uninstall metav, then install {DISTRIBUTION} again: both have files of the same names"
        yield Finding(FAIL, "another project", f"the metav of PyPI is installed ({place})", remedy)


@dataclass(frozen=True, slots=True)
class _Place:
    """An installed distribution: its version, where its package would lie, and the folders of an editable one."""

    version: str
    package: Path
    editable: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.version} in {(self.editable or (self.package,))[0]}"


def _distributions(name: str) -> list[_Place]:
    places = {}
    for entry in importlib.metadata.distributions(name=name):
        package = Path(str(entry.locate_file("metav"))).resolve()
        editable: tuple[Path, ...] = ()
        origin = json.loads(entry.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            path = urllib.parse.unquote(urllib.parse.urlsplit(origin["url"]).path)
            editable = ((Path(path) / "metav").resolve(),)
        places[package] = _Place(entry.version, package, editable)
    return list(places.values())


def _hidden_copies() -> list[Path]:
    found = {(Path(entry or ".") / "metav").resolve(): None for entry in sys.path}
    return [folder for folder in found if folder != PACKAGE and (folder / "__init__.py").is_file()]


def check_extension() -> Iterator[Finding]:
    """Yield whether the compiled core can be loaded, and was built from the sources that the package goes with."""
    try:
        core = import_module("metav._core")
    except ImportError as error:
        remedy = "unset METAV_ISA, or name one of these" if "METAV_ISA" in str(error) else _AGAIN
        yield Finding(FAIL, "core", f"cannot be loaded: {error}", remedy)
        return
    unlike = sorted(_unlike_stub(core))
    file = Path(str(core.__file__))
    if unlike:
        text = f"{file.name} is of another version than the package: {', '.join(unlike)} differ"
        yield Finding(FAIL, "core", text, _AGAIN)
    elif file.resolve().parent != PACKAGE:
        yield Finding(WARN, "core", f"{file} lies outside the package {PACKAGE}", _AGAIN)
    else:
        yield Finding(OK, "core", f"{file.name} fits the package")


def _unlike_stub(core: Any) -> Iterator[str]:
    """Yield the names that the extension lacks, or whose parameters differ from those in its types."""
    tree = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield from _unlike(core, node, node.name)
        elif isinstance(node, ast.ClassDef):
            owner = getattr(core, node.name, None)
            methods = [entry for entry in node.body if isinstance(entry, ast.FunctionDef) and entry.name != "__new__"]
            yield from ([node.name] if owner is None else [])
            for method in methods if owner is not None else ():
                yield from _unlike(owner, method, f"{node.name}.{method.name}")


def _unlike(holder: Any, node: ast.FunctionDef, name: str) -> Iterator[str]:
    function = getattr(holder, node.name, None)
    wanted = [entry.arg for entry in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    if function is None or list(inspect.signature(function).parameters) != wanted:
        yield name


def check_instruction_sets() -> Iterator[Finding]:
    """Yield, for each instruction set, whether its kernels compute what NumPy does in float64."""
    try:
        info = import_module("metav._core").cpu_info()
    except ImportError:
        return  # told by check_extension
    best, chosen = info["isas"][0], info["isa"]
    findings = {isa: _computed(isa, ", in use" if isa == chosen else "") for isa in info["isas"]}
    sound = [isa for isa, finding in findings.items() if finding.status == OK]
    for finding in findings.values():
        meanwhile = f"set METAV_ISA={sound[0]} meanwhile, and " if sound else ""
        yield finding if finding.status == OK else replace(finding, remedy=f"{meanwhile}{_AGAIN}")
    if chosen != best:
        text = f"{chosen} is in use (METAV_ISA={os.environ.get('METAV_ISA', '')}), though {best} is there"
        yield Finding(WARN, "METAV_ISA", text, "unset METAV_ISA for the fastest kernels")


def _computed(isa: str, use: str) -> Finding:
    """Return what one instruction set computes in a process of its own, without what to do where it is wrong."""
    from metav.support.core_check import ALLOWED

    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "metav.support.core_check"],
        env={**os.environ, "METAV_ISA": isa, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
    )
    name = f"core, {isa}"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Finding(FAIL, name, f"cannot compute: {last}")
    found = json.loads(done.stdout)
    largest = max(found["deviations"].values())
    if not largest <= ALLOWED or not found["same_for_all_threads"] or found["isa"] != isa:
        text = f"deviates from NumPy in float64 by {largest:.2g} (allowed {ALLOWED:g})"
        if not found["same_for_all_threads"]:
            text += ", and threads change its results"
        return Finding(FAIL, name, text)
    text = f"computes as NumPy in float64 does, to {largest:.1g}, alike on one thread and on several{use}"
    return Finding(OK, name, text)


def check_processor() -> Iterator[Finding]:
    """Yield cores, threads and worker processes."""
    from metav.errors import InputError
    from metav.support.processor import JOBS_VARIABLE, cpu_info, job_count

    info, total = cpu_info(), os.cpu_count() or 1
    threads = f"{info.threads} {'thread' if info.threads == 1 else 'threads'}"
    text = f"{info.cpus} of {total} cores may be used, {threads} in one call of the core"
    remedy = None
    if info.threads > info.cpus:
        remedy = f"set METAV_NUM_THREADS to {info.cpus} at most: more threads than cores wait for each other"
    yield Finding(OK if remedy is None else WARN, "processor", text, remedy)
    try:
        yield Finding(OK, "jobs", f"{job_count(None)} processes at most train models, where that saves time")
    except InputError as error:
        yield Finding(FAIL, "jobs", str(error), f"set {JOBS_VARIABLE} to a number of processes, or unset it")


def check_workers() -> Iterator[Finding]:
    """Yield whether processes can be made to wait for each other, which worker processes need."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (ImportError, OSError) as error:
        remedy = "train in one process (--jobs 1), or give the container a /dev/shm that can be written to"
        yield Finding(WARN, "worker processes", f"cannot be used ({error})", remedy)
    else:
        yield Finding(OK, "worker processes", "can be started")


def check_disk() -> Iterator[Finding]:
    """Yield the space in the current folder and in the folder for temporary files."""
    places = (
        ("current folder", Path.cwd(), WARN, "work in another folder"),
        ("temporary files", Path(tempfile.gettempdir()), FAIL, "set TMPDIR to a folder that can be written to"),
    )
    for name, folder, status, other in places:
        free = shutil.disk_usage(folder).free
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            yield Finding(status, name, f"{folder} cannot be written to ({error})", other)
            continue
        remedy = None if free >= LEAST_FREE else "free some space: a zoo of large models takes gigabytes"
        yield Finding(OK if remedy is None else WARN, name, f"{folder}, {byte_size(free)} free", remedy)


def check_cache(folder: str | None) -> Iterator[Finding]:
    """Yield what a cache folder holds, and whether it can be written to."""
    if folder is None:
        yield Finding(OK, "cache", "none by default; --cache FOLDER looks at one that you use")
        return
    path = Path(folder)
    if not path.is_dir():
        yield Finding(WARN, "cache", f"there is no folder {path}", "it is made when it is first used")
        return
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        yield Finding(FAIL, "cache", f"{path} cannot be written to ({error})", "fix its rights, or use another folder")
        return
    from metav.zoo.cache_folder import read_cache_folder

    held = read_cache_folder(path)
    free = shutil.disk_usage(path).free
    text = f"{path}, {len(held.runs)} models of {byte_size(held.size)}, {byte_size(free)} free"
    yield Finding(OK, "cache", text)
