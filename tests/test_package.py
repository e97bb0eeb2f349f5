"""The package: its public names, what importing it costs, what works without PyTorch."""

from __future__ import annotations

import importlib
import inspect
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_fingerprints import OUTPUTS, handmade, numbers, small_fingerprint

import metav
from metav import errors

PACKAGE = Path(metav.__file__).parent
NAMES = sorted(
    {name for name, value in vars(errors).items() if isinstance(value, type)}
    | {
        "Classification",
        "Regression",
        "Generation",
        "MultiLabelClassification",
        "Segmentation",
        "Task",
        "OptimizationOptions",
        "AskingOptions",
        "Zoo",
        "obfuscations",
        "__version__",
    }
    | {"Fingerprint", "Verdict", "Decision", "Evaluation"}
    | {"adapt_model", "build_zoo", "build_suspects", "fingerprint", "load", "verify", "scan", "evaluate"}
    | {"ReleaseGate", "check_release", "Estimate", "estimate"}
    | {"CpuInfo", "cpu_info", "get_num_threads", "set_num_threads"}
)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


def test_the_public_names_are_these_and_sorted():
    assert metav.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_there_listed_and_documented(name):
    value = getattr(metav, name)
    assert name in dir(metav)
    assert name == "__version__" or len(inspect.getdoc(value)) > 20


def test_sources_without_the_compiled_core_say_what_to_do(tmp_path):
    hidden = shutil.ignore_patterns("_core*.so", "_core*.pyd", "__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "metav", ignore=hidden)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        # where metav is installed for editing, this would find the core of the installed copy
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in str(finder).lower()]\n"
        "import metav; print(metav.__version__); metav.verify"
    )
    done = run(code, str(tmp_path))
    assert done.stdout == f"{metav.__version__}\n"
    assert f"ImportError: the metav in {tmp_path / 'metav'} is not compiled" in done.stderr
    assert "start Python in another folder" in done.stderr
    assert "pip install -e ." in done.stderr


def test_the_star_import_gives_the_public_names():
    names: dict[str, object] = {}
    exec("from metav import *", names)
    assert set(NAMES) <= set(names)


def test_unknown_names_are_refused_as_python_does():
    assert not hasattr(metav, "fingerprnt")
    with pytest.raises(AttributeError, match="module 'metav' has no attribute 'fingerprnt'"):
        metav.fingerprnt  # noqa: B018 (the access is what is tested)


def test_functions_and_modules_do_not_hide_each_other():
    modules = ("fingerprints", "fingerprinting", "verdicts", "verifiers", "zoo", "suspects", "optimization")
    for module in modules:
        importlib.import_module(f"metav.{module}")
    for name in ("fingerprint", "verify", "evaluate", "load", "build_zoo"):
        assert inspect.isfunction(getattr(metav, name))
    for module in (*modules, "obfuscations"):
        assert inspect.ismodule(getattr(metav, module))


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert metav.__version__ == version("metav-fingerprint")


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("Error")])
def test_every_error_is_a_metav_error(name):
    error = getattr(metav, name)
    assert issubclass(error, metav.MetavError)
    assert error is getattr(errors, name)


def test_importing_is_light_and_silent():
    done = run(
        "import sys, numpy, random\n"
        "state = numpy.random.get_state()[1].tolist(), random.getstate()\n"
        "import metav\n"
        "assert (numpy.random.get_state()[1].tolist(), random.getstate()) == state\n"
        "print(sorted({'torch', 'scipy', 'matplotlib', 'safetensors', 'jinja2', 'joblib'} & set(sys.modules)))"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_listing_the_names_imports_nothing():
    done = run("import sys, metav; dir(metav); print('torch' in sys.modules)")
    assert done.stdout == "False\n"


def test_importing_takes_little_time_after_numpy():
    code = (
        "import time; begun = time.perf_counter(); import numpy; start = time.perf_counter(); import metav; "
        "metav.__all__; print((time.perf_counter() - start) / (start - begun))"
    )
    shares = [float(run(code).stdout) for _ in range(5)]
    assert statistics.median(shares) < 0.5


WITHOUT_TORCH = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
"""PyTorch as where it is not installed; an entry None in sys.modules, which no installation has, is more than SciPy
takes."""


def test_answers_that_tell_less_need_no_torch_either(tmp_path):
    """Verifiers are trained anew for labels, rounded and ordered answers."""
    fp = small_fingerprint()
    fp.save(tmp_path / "owner.metav")
    answers = fp.calibration_models.responses[0]
    code = """
import numpy, metav
verdict = metav.verify(metav.load(sys.argv[1] + "/owner.metav"), sys.argv[1] + "/answers.npy")
print(verdict.decision, verdict.access, verdict.score)
"""
    for sent, access in ((answers.argmax(axis=1), "labels"), (np.round(answers, 1), "rounded(1)")):
        np.save(tmp_path / "answers.npy", sent)
        verdict = metav.verify(fp, sent)
        done = run(WITHOUT_TORCH + code, str(tmp_path))
        assert done.stdout.split() == [str(verdict.decision), access, str(verdict.score)], done.stderr


def test_reading_and_verifying_need_no_torch(tmp_path):
    fp = handmade()
    fp.save(tmp_path / "owner.metav")
    answers = numbers(6, OUTPUTS, seed=3)
    np.save(tmp_path / "answers.npy", answers)
    done = run(
        WITHOUT_TORCH
        + """
import numpy, metav
fp = metav.load(sys.argv[1] + "/owner.metav")
verdict = metav.verify(fp, sys.argv[1] + "/answers.npy")
assert metav.verify(fp, numpy.load(sys.argv[1] + "/answers.npy")) .score == verdict.score
assert metav.verify(fp, lambda q: numpy.load(sys.argv[1] + "/answers.npy")[:len(q)]).score == verdict.score
entries = [(sys.argv[1] + "/answers.npy", True, "a"), (sys.argv[1] + "/answers.npy", False, "b")]
assert metav.evaluate(fp, entries).auc == 0.5
fp.save(sys.argv[1] + "/again.metav")
fp.to_json(), repr(fp), fp._repr_html_(), str(verdict)
print(verdict.score.hex())
""",
        str(tmp_path),
    )
    assert done.stdout.strip() == metav.verify(fp, answers).score.hex(), done.stderr
    assert (tmp_path / "again.metav").read_bytes() == (tmp_path / "owner.metav").read_bytes()


def test_reading_does_not_import_torch_where_it_is_installed(tmp_path):
    handmade().save(tmp_path / "owner.metav")
    code = """
import sys, numpy, metav
verdict = metav.verify(metav.load(sys.argv[1]), numpy.arange(18.0).reshape(6, 3))
print("torch" in sys.modules, verdict.reason)
"""
    assert run(code, str(tmp_path / "owner.metav")).stdout == "False None\n"


@pytest.mark.parametrize("name", ["Classification", "fingerprint", "build_zoo", "obfuscations"])
def test_what_needs_torch_says_how_to_get_it(name):
    done = run(
        "import sys; sys.modules['torch'] = None\nimport metav\n"
        f"try: metav.{name}\nexcept metav.MissingDependencyError as error: print(error)"
    )
    assert 'needs PyTorch, which is not installed; install the extra "torch" of metav-fingerprint' in done.stdout


def test_the_tests_of_the_package_run_on_the_sources():
    assert os.path.samefile(PACKAGE, Path(__file__).parent.parent / "metav") or "site-packages" in str(PACKAGE)
