"""The libraries that metav goes with, as `metav doctor` looks at them: there, new enough, and working."""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from metav.cli.doctor_checks import FAIL, OK, WARN, Finding
from metav.support.versions import DISTRIBUTION

FOR_CONTRIBUTORS = frozenset({"test", "fuzz", "docs", "dev", "release"})
"""Extras that no user of metav needs."""
AGREEMENT = 1e-5
"""Largest difference between the core and PyTorch, both in float32, of numbers around 1."""
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^]]*\])?\s*([^;]*)(?:;(.*))?$")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A library that metav asks for: its distribution, the least version, and the extra that it belongs to."""

    name: str
    least: tuple[int, ...]
    extra: str | None


def requirements() -> list[Requirement]:
    """Return what the installed metav asks for; nothing where it is not installed."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found: list[Requirement] = []
    made_of_others: set[str | None] = set()
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match is None:
            continue
        least = re.search(r">=\s*([0-9.]+)", match[3])
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", match[4] or "")
        if match[1] == DISTRIBUTION:
            made_of_others.add(extra[1] if extra else None)
        else:
            found.append(Requirement(match[1], _numbers(least[1]) if least else (), extra[1] if extra else None))
    # each of these others has a line of its own, and what is left of the whole says nothing
    return [entry for entry in found if entry.extra is None or entry.extra not in made_of_others]


def check_requirements() -> Iterator[Finding]:
    """Yield the libraries that metav cannot do without."""
    needed = [entry for entry in requirements() if entry.extra is None]
    states = {entry.name: _state(entry) for entry in needed}
    wrong = {name: state for name, state in states.items() if not state.is_fine}
    if wrong:
        text = "; ".join(f"{name} {state.text}" for name, state in wrong.items())
        yield Finding(FAIL, "libraries", text, f"pip install --upgrade {' '.join(wrong)}")
    elif states:
        yield Finding(OK, "libraries", ", ".join(f"{name} {state.text}" for name, state in states.items()))


def check_extras() -> Iterator[Finding]:
    """Yield which extras are there."""
    extras: dict[str, list[Requirement]] = {}
    for entry in requirements():
        if entry.extra is not None and entry.extra not in FOR_CONTRIBUTORS:
            extras.setdefault(entry.extra, []).append(entry)
    for extra, needed in sorted(extras.items()):
        yield _extra(extra, {entry.name: _state(entry) for entry in needed})


def _extra(extra: str, states: Mapping[str, State]) -> Finding:
    name, text = f"extra {extra}", ", ".join(f"{name} {state.text}" for name, state in states.items())
    wrong = [name for name, state in states.items() if not state.is_fine]
    if not wrong:
        return Finding(OK, name, text)
    remedy = f'pip install ".[{extra}]" in the folder of metav, or pip install {" ".join(wrong)}'
    if any(state.is_broken for state in states.values()):
        return Finding(FAIL, name, text, remedy)
    # what was never asked for is nothing to warn of, what is half there is
    return Finding(OK if len(wrong) == len(states) else WARN, name, text, remedy)


@dataclass(frozen=True, slots=True)
class State:
    """How it is with a library: whether it may be used, whether it is there and does not work, and what is found."""

    is_fine: bool
    is_broken: bool
    text: str


def _state(entry: Requirement) -> State:
    try:
        version = importlib.metadata.version(entry.name)
    except importlib.metadata.PackageNotFoundError:
        return State(False, False, "not installed")
    if _numbers(version) < entry.least:
        return State(False, False, f"{version}, older than {'.'.join(map(str, entry.least))}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(_module_of(entry.name))
    except Exception as error:  # a library may raise anything while it is imported
        return State(False, True, f"{version}, cannot be imported ({type(error).__name__}: {error})")
    return State(True, False, version)


def _module_of(distribution: str) -> str:
    """Return the module of a distribution: that of its name where there is one, else the first that it states."""
    guess = distribution.replace("-", "_").lower()
    files = importlib.metadata.files(distribution) or []
    tops = [file.parts[0] for file in files if file.name == "__init__.py" and len(file.parts) == 2]
    return guess if guess in tops or not tops else sorted(tops)[0]


def check_torch() -> Iterator[Finding]:
    """Yield whether PyTorch is there, how it was built, and whether the core reads its tensors and agrees with it."""
    try:
        torch: Any = import_module("torch")
    except ImportError as error:
        if getattr(error, "name", None) == "torch":
            text = "not installed: fingerprints can be inspected, and files, services and recorded answers verified"
            yield Finding(WARN, "torch", text, "pip install torch, to make fingerprints and to ask PyTorch models")
        else:
            yield Finding(FAIL, "torch", f"cannot be imported ({error})", "install it again: pip install torch")
        return
    build = "no GPU build" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    capability = torch.backends.cpu.get_cpu_capability()
    text = f"{torch.__version__}, {build}, GPUs: {gpus}, threads: {torch.get_num_threads()}, {capability}"
    yield Finding(OK, "torch", text)
    yield _agreement(torch)


def _agreement(torch: Any) -> Finding:
    from metav import _core

    tensor = torch.randn(5, 7, 9, generator=torch.Generator().manual_seed(0))
    own = torch.from_numpy(_core.apply_view(tensor, "logprob"))
    largest = float((own - torch.log_softmax(tensor, dim=-1)).abs().max())
    if largest <= AGREEMENT:
        return Finding(OK, "torch and core", f"agree to {largest:.1g}, tensors are read without a copy")
    text = f"differ by {largest:.2g} (allowed {AGREEMENT:g})"
    return Finding(FAIL, "torch and core", text, "install both again: pip install --force-reinstall torch, then metav")


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version starts with."""
    match = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
