"""Rules of the C sources that no compiler checks: what may be included and called, and how functions end."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "csrc"
BINDING = CORE / "python"

if not CORE.is_dir():
    pytest.skip("the C sources are not here (tests run from an installed package)", allow_module_level=True)

CORE_FILES = sorted([*CORE.glob("*.c"), *CORE.glob("*.h")])
BINDING_FILES = sorted([*BINDING.glob("*.c"), *BINDING.glob("*.h")])
TEST_FILES = sorted(
    path for folder in ("c", "fuzz", "extension_points") for path in ROOT.glob(f"tests/{folder}/*.[ch]")
)
every_file = pytest.mark.parametrize("path", CORE_FILES + BINDING_FILES, ids=lambda path: path.name)
every_core_file = pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: path.name)
every_binding_file = pytest.mark.parametrize("path", BINDING_FILES, ids=lambda path: path.name)

# They give references that another thread may take away; each has a successor that gives a strong one.
BORROWING = [
    "PyList_GetItem",
    "PyList_GET_ITEM",
    "PyDict_GetItem",
    "PyDict_GetItemWithError",
    "PyDict_GetItemString",
    "PyDict_SetDefault",
    "PyDict_Next",
    "PyWeakref_GetObject",
    "PyWeakref_GET_OBJECT",
    "PySequence_Fast",
    "PySequence_Fast_GET_ITEM",
    "PyImport_AddModule",
    "PyCell_GET",
    "PyEval_GetLocals",
    "PyEval_GetGlobals",
    "PySys_GetObject",
]
# PEP 7 and the limited API: no access to the insides of objects; modules are created in phases.
INSIDES = [
    "PyModule_Create",
    "PyType_Ready",
    "PyGILState_Ensure",
    "PyGILState_Release",
    "PyTuple_GET_ITEM",
    "PyTuple_SET_ITEM",
]
PROCESS = [
    "printf",
    "fprintf",
    "puts",
    "exit",
    "abort",
    "_exit",
    "system",
    "getpid",
    "signal",
    "longjmp",
    "rand",
    "srand",
]
# Headers that start with Python.h, themselves or by another of them.
BINDING_HEADERS = {"Python.h", *(path.name for path in BINDING.glob("*.h") if path.name != "dlpack.h")}
# Other libraries' layouts: who includes them. Everybody else uses tensor.h.
KNOWN_BY = {
    "<numpy/": {"tensor_numpy.c"},
    '"dlpack.h"': {"tensor_dlpack.c", "tensor_numpy.c", "tensor_validator.c", "module.c"},  # the last its version
}
HEAP = ["malloc", "calloc", "realloc", "free", "aligned_alloc", "strdup", "alloca"]
UNBOUNDED = ["gets", "strcpy", "strcat", "sprintf", "vsprintf", "scanf", "sscanf", "atoi", "atof"]


def code_of(text: str) -> str:
    """The text without comments, strings and characters, line for line."""
    pattern = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    return re.sub(pattern, lambda found: "\n" * found.group().count("\n") or '""', text, flags=re.DOTALL)


def calls(path: Path, names: list[str]) -> list[str]:
    """Which of these functions the file calls."""
    code = code_of(path.read_text())
    return [name for name in names if re.search(rf"(?<![\w.>]){name}\s*\(", code)]


def functions(path: Path) -> dict[str, str]:
    """The bodies of the functions: in our format a name starts a line, and braces stand in the first column."""
    found = re.finditer(r"^(\w+)\([^;{]*?\)\n\{\n(.*?)^\}", code_of(path.read_text()), flags=re.DOTALL | re.MULTILINE)
    return {match[1]: match[2] for match in found}


@every_core_file
def test_the_core_does_not_know_python(path: Path) -> None:
    text = path.read_text()
    assert "Python.h" not in text
    assert not re.search(r"\bPy[A-Z_]\w+", code_of(text))


@every_core_file
def test_the_core_neither_prints_nor_ends_the_process(path: Path) -> None:
    assert calls(path, PROCESS) == []


@every_core_file
def test_only_one_file_of_the_core_allocates(path: Path) -> None:
    assert path.name == "mv_memory.c" or calls(path, HEAP) == []


@every_binding_file
def test_the_binding_allocates_through_python(path: Path) -> None:
    assert calls(path, HEAP + PROCESS) == []


@every_file
def test_no_function_without_a_bound_is_called(path: Path) -> None:
    assert calls(path, UNBOUNDED) == []


@every_binding_file
def test_no_borrowed_references_and_no_insides(path: Path) -> None:
    assert calls(path, BORROWING + INSIDES) == []


@every_binding_file
def test_python_comes_before_any_other_header(path: Path) -> None:
    """Python.h sets feature macros: it comes first, itself or by a header of the binding that starts with it."""
    if path.name == "dlpack.h":  # plain C, included after the others
        assert "Py" not in code_of(path.read_text())
        return
    includes = re.findall(r"^#include [<\"]([^>\"]+)", path.read_text(), flags=re.MULTILINE)
    assert includes[0] in BINDING_HEADERS


@pytest.mark.parametrize("include", KNOWN_BY)
def test_only_these_files_know_dlpack_and_numpy(include: str) -> None:
    files = {path.name for path in BINDING_FILES if f"#include {include}" in path.read_text()}
    assert files == KNOWN_BY[include]


@every_file
def test_a_function_has_one_exit_label_at_most(path: Path) -> None:
    for name, body in functions(path).items():
        labels = [label for label in re.findall(r"^(\w+):\n", body, flags=re.MULTILINE) if label != "default"]
        assert labels in ([], ["done"]), f"{name} has the labels {labels}"
        assert set(re.findall(r"\bgoto (\w+)", body)) == set(labels), name


@every_file
def test_a_function_fits_a_screen(path: Path) -> None:
    for name, body in functions(path).items():
        assert body.count("\n") <= 60, f"{name} has {body.count(chr(10))} lines"


@every_binding_file
def test_no_python_runs_without_the_interpreter_lock(path: Path) -> None:
    """call_begin releases the lock and call_end takes it: between the two, only the core and atomics are called."""
    code = code_of(path.read_text())
    assert "Py_BEGIN_ALLOW_THREADS" not in code, "goes through call.h"
    if path.name == "call.c":
        bodies = functions(path)
        assert code.count("PyEval_") == 2
        assert bodies["call_begin"].endswith("PyEval_SaveThread();\n    return true;\n")
        assert bodies["call_end"].startswith("    PyEval_RestoreThread(")
        return
    assert "PyEval_" not in code, "goes through call.h"
    blocks = re.findall(r"\bcall_begin\(&call\)\) \{\n +goto done;\n +\}\n(.*?)\bcall_end\(", code, flags=re.DOTALL)
    assert path.name == "call.h" or len(blocks) == code.count("call_begin(") == code.count("call_end(")
    for block in blocks:
        assert not re.search(r"\bPy\w+|\b(return|goto)\b", block), block
        assert all(name.startswith(("mv_", "atomic_")) for name in re.findall(r"(\w+)\(", block) if name != "if"), block


@every_file
def test_no_state_outlives_its_handle(path: Path) -> None:
    """Variables of a file are constant, but for the test hook, Python's tables, and files that own up to more."""
    if "shared by the whole process" in path.read_text():
        return
    for line in code_of(path.read_text()).splitlines():
        declared = re.match(r"static (?!inline)(?:[\w *]+?)\b(\w+)(\[[^\]]*\])?( =.*)?;?$", line)
        if not declared or "(" in line.split("=")[0] or "const" in line.split("=")[0]:
            continue
        tables = ("PyMethodDef", "PyGetSetDef", "PyType_Slot", "PyModuleDef", "PyType_Spec")
        assert any(table in line for table in tables) or "test_" in declared[1], line


def test_the_lint_reads_the_sources() -> None:
    """A lint that finds no function would find no fault."""
    found = {path.name: functions(path) for path in CORE_FILES + BINDING_FILES}
    assert "verifier_step" in found["verifier_step.c"]
    assert "mv_arena_take" in found["mv_memory.c"]
    assert "goto done" in found["views.c"]["apply_view"]
    assert code_of('a /* free( */ "malloc(" // exit(\n') == 'a "" "" ""\n'


def test_the_format_is_that_of_clang_format() -> None:
    program = Path(sys.executable).with_name("clang-format")
    command = str(program) if program.exists() else shutil.which("clang-format")
    if command is None:
        pytest.skip("clang-format is not installed (the test extra brings it)")
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    if "version 23." not in version:
        pytest.skip(f"formats differ between versions: ours is 23, here is {version.strip()}")
    files = [str(path) for path in CORE_FILES + BINDING_FILES + TEST_FILES]
    ran = subprocess.run([command, "--dry-run", "-Werror", *files], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
