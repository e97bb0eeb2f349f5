"""Builds the C core; everything else stands in pyproject.toml.

METAV_WERROR=1 turns warnings into errors, METAV_SANITIZE=1 builds with the address and undefined-behaviour sanitizers.
"""

import ast
import os
import sys
import sysconfig
from glob import glob
from pathlib import Path

import numpy as np
from setuptools import Extension, setup


def flags() -> tuple[list[str], list[str]]:
    """Compile and link flags of this compiler."""
    if sys.platform == "win32":
        return ["/std:c11", "/experimental:c11atomics", "/O2", "/fp:precise"], []
    # Without these two, sqrtf stays a scalar call; -ffast-math would change the whole process, so never that.
    compile_flags = ["-std=c11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
    # Wherever the linker puts a kernel: the smallest steps are up to 17 % slower where its loops begin in mid-line.
    compile_flags.append("-falign-loops=32")
    compile_flags += ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-fvisibility=hidden"]
    link_flags: list[str] = []
    if os.environ.get("METAV_WERROR") == "1":
        compile_flags.append("-Werror")
    if os.environ.get("METAV_SANITIZE") == "1":
        sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        compile_flags += [*sanitizers, "-fno-omit-frame-pointer", "-O1", "-g"]
        link_flags += sanitizers
    return compile_flags, link_flags


def version() -> str:
    """Return the version that stands in metav/__init__.py, as text: the package needs the core to be imported."""
    tree = ast.parse((Path(__file__).parent / "metav" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__version__":
            return str(ast.literal_eval(node.value))
    raise SystemExit("metav/__init__.py states no __version__")


COMPILE_FLAGS, LINK_FLAGS = flags()
MACROS = [("METAV_VERSION", version())]
if sys.platform == "win32" and sysconfig.get_config_var("Py_GIL_DISABLED"):
    MACROS.append(("Py_GIL_DISABLED", "1"))  # the headers do not say it there

setup(
    ext_modules=[
        Extension(
            "metav._core",
            sources=sorted(glob("csrc/*.c") + glob("csrc/python/*.c")),
            depends=["metav/__init__.py", *sorted(glob("csrc/*.h") + glob("csrc/python/*.h"))],
            define_macros=MACROS,
            include_dirs=[np.get_include()],
            extra_compile_args=COMPILE_FLAGS,
            extra_link_args=LINK_FLAGS,
        )
    ]
)
