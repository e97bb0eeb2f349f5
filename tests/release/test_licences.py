"""The licences of all that an installation of metav brings along, against those that go with Apache-2.0."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FOR_USERS = ("torch", "onnx", "http", "demo")
"""The extras that bring something to run; `test` and `fuzz` are for who changes metav."""
ALLOWED = {
    *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "Zlib"),
    *("MPL-2.0", "PSF-2.0", "Python-2.0", "CC0-1.0", "Unlicense", "BSL-1.0", "LLVM-exception", "CNRI-Python"),
    # of parts that a wheel carries with it: the runtimes of GCC, linked as their exception allows
    *("GCC-exception-3.1", "GPL-3.0-or-later", "GPL-3.0-only"),
}
AS_WORDS = {
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License v2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "new BSD": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""Licences as older metadata name them."""
GPL_BY_EXCEPTION = {"numpy", "scipy", "scikit-learn", "torch"}
"""Whose wheels carry a runtime of GCC."""


def direct() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *(line for extra in FOR_USERS for line in extras[extra])]
    return {Requirement(line).name.lower() for line in named}


def all_of_them() -> dict[str, metadata.Distribution]:
    """Every distribution that is needed, by name; one that is not installed is not looked at."""
    found: dict[str, metadata.Distribution] = {}
    waiting = sorted(direct())
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop().lower())
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def licences(distribution: metadata.Distribution) -> set[str]:
    """What its metadata say, as SPDX identifiers: the expression, else the classifiers, else the text."""
    told = distribution.metadata
    if told.get("License-Expression"):
        return set(re.findall(r"[\w.+-]+", told["License-Expression"])) - {"AND", "OR", "WITH"}
    classes = [entry for entry in told.get_all("Classifier") or () if entry.startswith("License ::")]
    words = [entry.rpartition(" :: ")[2] for entry in classes if not entry.endswith("OSI Approved")]
    text = (told.get("License") or "").strip()
    if not words and len(text) < 60:
        words = re.split(r" AND | OR ", text)
    return {AS_WORDS.get(word, word) for word in words if word}


def test_what_is_needed_directly_is_installed_here():
    assert direct() - set(all_of_them()) == set()


@pytest.mark.parametrize("name", sorted(all_of_them()))
def test_a_licence_is_stated_and_goes_with_apache(name):
    found = licences(all_of_them()[name])
    assert found, f"{name} states no licence"
    assert found <= ALLOWED, f"{name}: {found - ALLOWED}"
    assert not {entry for entry in found if entry.startswith("GPL")} or name in GPL_BY_EXCEPTION
