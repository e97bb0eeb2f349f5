"""Where code comes from: an installed package, which its version tells, or the user, where only its content tells."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import site
import sys
import sysconfig
from typing import Any


def is_found_by_name(thing: Any) -> bool:
    """Return whether a class or function is what its name stands for in an installed package or in metav.

    What these make at run time, such as a class derived from the user's own, is not: its content tells what it is.
    """
    module = str(thing.__module__ or "")
    if library_of(module) is None and not module.startswith("metav."):
        return False
    found: Any = sys.modules.get(module)
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing


@functools.lru_cache(maxsize=1024)
def library_of(module: str | None) -> str | None:
    """Return name and version of the installed package that a module belongs to; None for code of metav or the user's.

    The standard library counts as one package, in the version of Python.
    """
    top = (module or "").partition(".")[0]
    if top in ("", "__main__", "metav"):
        return None
    if top in sys.stdlib_module_names:
        return f"python {sys.version_info.major}.{sys.version_info.minor}"
    loaded = sys.modules.get(top)
    places = [getattr(loaded, "__file__", None) or "", *map(str, getattr(loaded, "__path__", ()))]
    if not any(os.path.realpath(place).startswith(folder) for place in places if place for folder in _folders()):
        return None
    return f"{top} {_version(top, loaded)}"


@functools.cache
def _folders() -> tuple[str, ...]:
    """Return where packages are installed, each with a separator at its end."""
    paths = sysconfig.get_paths()
    found = {paths["purelib"], paths["platlib"], site.getusersitepackages(), *site.getsitepackages()}
    return tuple(os.path.join(os.path.realpath(folder), "") for folder in sorted(found))


def _version(top: str, module: Any) -> str:
    stated = getattr(module, "__version__", None)
    if stated is not None:
        return str(stated)
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return ""
