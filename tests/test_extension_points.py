"""Extensions are one file and one row each: added to a copy of the package, and used as users would.

Views and verifier kinds are in C: tests/core/test_extension_points.py adds those.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import metav

PACKAGE = Path(metav.__file__).parent
HELPERS = Path(__file__).with_name("helpers")


@dataclass(frozen=True, kw_only=True)
class Extension:
    """A new file, the row that names it, and a script that uses it through the public interface.

    table: file of the table, with the line that ends it; the row goes before that line, its import on top.
    """

    file: str
    content: str
    table: tuple[str, str]
    imports: str
    row: str
    script: str


SUSPECT = Extension(
    file="suspects/text_files.py",
    content='''
"""Recorded answers in a plain text file."""

import numpy as np

from metav.suspects.recordings import RecordedSuspect


def open_text(path):
    return RecordedSuspect(np.loadtxt(path))
''',
    table=("suspects/registry.py", ')\n"""All kinds, in the order'),
    imports="from metav.suspects.text_files import open_text",
    row="""    SuspectKind(
        name="text", expected="a .txt file", recognises=lambda thing: False, open=open_text, endings=(".txt",)
    ),
""",
    script="""
import subprocess, sys
import numpy, metav
from small_fingerprints import answers_with_logit, handmade
fp, answers = handmade(), answers_with_logit(handmade(), 2.0)
fp.save("owner.metav")
numpy.savetxt("answers.txt", answers, fmt="%.9g")
assert metav.verify(fp, "answers.txt").score == metav.verify(fp, answers).score
done = subprocess.run([sys.executable, "-m", "metav.cli", "verify", "owner.metav", "answers.txt"])
assert done.returncode == 1
try:
    metav.verify(fp, "answers.doc")
except metav.InputError as error:
    assert ".torchscript, .txt" in str(error)
""",
)

OBFUSCATION = Extension(
    file="obfuscations/shrinking.py",
    content='''
"""Shrinks the last layer."""

from metav.obfuscations.layers import weighted_layers
from metav.obfuscations.steps import begin


def shrink_last(model, task, *, strength, seed, architecture=None):
    clone = begin(model, strength)
    weighted_layers(clone, task)[-1].weight.data.mul_(1.0 - 0.5 * strength)
    return clone
''',
    table=("obfuscations/registry.py", ")\n\nOBFUSCATIONS"),
    imports="from metav.obfuscations.shrinking import shrink_last",
    row="""    Obfuscation(
        family="shrink_last", function=shrink_last, needs_training=False, suspect_strengths=(0.9,)
    ),
""",
    script="""
import metav
from small_models import owner_of, task_of
owner, task = owner_of("regression"), task_of("regression")
zoo = metav.build_zoo(owner, task, positives=2, negatives=2, families=["shrink_last"], snapshots=0)
assert [entry.family for entry in zoo.positives] == ["shrink_last"] * 2
suspects = metav.build_suspects(owner, task, positives=14, negatives=1)
assert [entry.strength for entry in suspects.positives if entry.family == "shrink_last"] == [0.9]
assert "shrink_last" in metav.obfuscations.OBFUSCATIONS
""",
)

TASK = Extension(
    file="tasks/ordinal.py",
    content='''
"""Ranks to predict."""

from metav.tasks.regression import Regression


class Ordinal(Regression):
    name = "ordinal"
    metric_name = "mean rank error"
''',
    table=("tasks/kinds.py", "        )\n    }\n)\n"),
    imports="",
    row="""            TaskKind(
                name="ordinal",
                home="metav.tasks.ordinal:Ordinal",
                arrays={"inputs": _INPUTS, "ranks": ("ranks", "y")},
            ),
""",
    script="""
import subprocess, sys
import numpy, metav
random = numpy.random.default_rng(0)
inputs = random.normal(size=(80, 4)).astype("float32")
numpy.savez("data.npz", inputs=inputs, ranks=numpy.digitize(inputs.sum(axis=1), [-1, 0, 1]).astype("float32")[:, None])
with open("models.py", "w") as file:
    file.write("from torch.nn import Linear, ReLU, Sequential\\n\\n")
    file.write("def build():\\n    return Sequential(Linear(4, 8), ReLU(), Linear(8, 1))\\n")
command = "fingerprint models:build --trained --task ordinal --data data.npz -o owner.metav --positives 14"
command += " --negatives 6 --queries 8 --epochs 1 --target-fpr 0.4"
done = subprocess.run([sys.executable, "-W", "ignore", "-m", "metav.cli", *command.split()])
assert done.returncode == 0
specification = metav.load("owner.metav").task
assert (specification.name, specification.view, specification.metric_name) == ("ordinal", "identity", "mean rank error")
""",
)

BASELINE = Extension(
    file="baselines/sign_agreement.py",
    content='''
"""How often the suspect's answer has the sign of the owner's."""

from metav.baselines.base import Baseline


class SignAgreement(Baseline):
    name = "sign agreement"

    def _fit(self, context):
        return context.natural(context.queries)

    def _score(self, responses):
        return float(((responses > 0) == (self._reference > 0)).mean())
''',
    table=("baselines/__init__.py", '    )\n}\n"""Every scheme by its name'),
    imports="from metav.baselines.sign_agreement import SignAgreement",
    row="        SignAgreement,\n",
    script="""
from small_fingerprints import small_owner, small_task, small_zoo
from metav.baselines import BASELINES
scheme = BASELINES["sign agreement"]().fit(small_owner(), small_task(), small_zoo(), queries=6, seed=0)
assert scheme.score(small_owner()) == 1.0
from metav.experiments.runs.reproduction import schemes_beside
from metav.experiments.runs.regimes import Regime
assert "sign agreement" in schemes_beside(Regime(name="full"), BASELINES)
""",
)

REPORT = Extension(
    file="reports/plain_text.py",
    content='''
"""The verdict as text."""

from metav.support.files import write_atomically


def write_plain_text(fingerprint, verdict, path):
    write_atomically(path, str(verdict).encode())
''',
    table=("reports/registry.py", ')\n"""All kinds of report."""'),
    imports="from metav.reports.plain_text import write_plain_text",
    row='    Report(name="text", shows="the verdict as text", endings=(".txt",), write=write_plain_text),\n',
    script="""
import subprocess, sys
import numpy, metav
from small_fingerprints import answers_with_logit, handmade
from metav.reports import write_report
fp, answers = handmade(), answers_with_logit(handmade(), 2.0)
fp.save("owner.metav")
numpy.save("answers.npy", answers)
write_report(fp, metav.verify(fp, "answers.npy"), "verdict.txt")
text = open("verdict.txt").read()
assert text == str(metav.verify(fp, "answers.npy"))
command = [sys.executable, "-m", "metav.cli", "verify", "owner.metav", "answers.npy", "--report", "again.txt"]
assert subprocess.run(command).returncode == 1
assert open("again.txt").read() == text
""",
)

INTEGRATION = Extension(
    file="integrations/stepwise.py",
    content='''
"""A framework that calls a function after each step."""

from metav.integrations.registry import require_integration
from metav.integrations.releases import Release, Releasing

LIBRARY = require_integration("stepwise")


class FingerprintHook(Releasing):
    def __init__(self, path, task, *, recipe=None, part=None, every=None, trackers=(), **options):
        self._release = Release(path, task, trackers=trackers, part=part, every=every, options=options)
        self._recipe = recipe

    def __call__(self, model, epoch, last):
        if not epoch:
            self._release.check(model, self._recipe)
        elif self._release.is_due(epoch):
            self._release.make(model, self._recipe, epoch=epoch)
        if epoch == last:
            self._release.make(model, self._recipe)
''',
    table=("integrations/registry.py", ')\n"""All of them."""'),
    imports="",
    row="""    Integration(
        name="stepwise",
        home="metav.integrations.stepwise:FingerprintHook",
        libraries=("stepwise",),
        when="after the last step",
    ),
""",
    script="""
import importlib, sys, warnings
import metav
from small_trainings import TINY, Network, task, train
from metav.integrations.registry import integration
home = integration("stepwise").home.partition(":")
try:
    importlib.import_module(home[0])
except metav.MissingDependencyError as error:
    assert 'pip install ".[stepwise]"' in str(error)
else:
    raise AssertionError("its library is not there")
with open("stepwise.py", "w") as file:
    file.write("")
sys.path.insert(0, ".")
importlib.invalidate_caches()
warnings.simplefilter("ignore")
hook = getattr(importlib.import_module(home[0]), home[2])("owner.metav", task(), every=1, **TINY)
model = Network()
for epoch in [0, *train(model, 1)]:
    hook(model, epoch, last=1)
assert metav.load("owner.metav").commitment == hook.fingerprint.commitment == hook.fingerprints[1].commitment
""",
)

TRACKER = Extension(
    file="integrations/trackers/lines.py",
    content='''
"""A line of JSON for each fingerprint."""

import json

from metav.integrations.trackers.tracked_values import Tracker


class LinesTracker(Tracker):
    def __init__(self, file=None):
        self._path = "lines.json" if file is None else file.name

    def log(self, values, step):
        with open(self._path, "a") as file:
            file.write(json.dumps({**values.texts, "step": step}) + "\\n")
''',
    table=("integrations/trackers/registry.py", ')\n"""All kinds of tracker."""'),
    imports="",
    row="""    TrackerKind(
        name="lines",
        module="json",
        home="metav.integrations.trackers.lines:LinesTracker",
        expected="an open file",
        recognises=lambda thing: hasattr(thing, "writelines"),
    ),
""",
    script="""
import json
import metav
from small_fingerprints import handmade
from metav.integrations.trackers import log_fingerprint
fp = handmade()
log_fingerprint(fp, "lines")
with open("lines.json") as file:
    log_fingerprint(fp, file, step=2)
with open("lines.json") as file:
    lines = [json.loads(line) for line in file]
assert [(line["metav.commitment"], line["step"]) for line in lines] == [(fp.commitment, None), (fp.commitment, 2)]
try:
    log_fingerprint(fp, "nothing")
except metav.InputError as error:
    assert "'lines' or an open file" in str(error)
""",
)

EXTENSIONS = {
    "suspect": SUSPECT,
    "obfuscation": OBFUSCATION,
    "task": TASK,
    "baseline": BASELINE,
    "report": REPORT,
    "integration": INTEGRATION,
    "tracker": TRACKER,
}


def extend(package: Path, extension: Extension) -> None:
    """Add one file and one row to a copy of the package."""
    (package / extension.file).write_text(extension.content.lstrip())
    table, end = package / extension.table[0], extension.table[1]
    text = table.read_text()
    assert text.count(end) == 1, f"{table.name} has no table that ends with {end!r}"
    text = text.replace(end, extension.row + end)
    if extension.imports:
        first = text.index("\nfrom metav.")
        text = text[:first] + "\n" + extension.imports + text[first:]
    table.write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTENSIONS)
def test_an_extension_is_one_file_and_one_row(name: str, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "metav", ignore=shutil.ignore_patterns("__pycache__"))
    extend(tmp_path / "metav", EXTENSIONS[name])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(HELPERS)])}
    code = f"import metav\nassert metav.__file__.startswith({str(tmp_path)!r})\n{EXTENSIONS[name].script}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTENSIONS)
def test_without_its_row_it_is_not_there(name: str, tmp_path: Path) -> None:
    """The scripts above can fail: the file alone changes nothing."""
    shutil.copytree(PACKAGE, tmp_path / "metav", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "metav" / EXTENSIONS[name].file).write_text(EXTENSIONS[name].content.lstrip())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(HELPERS)])}
    ran = subprocess.run(
        [sys.executable, "-c", EXTENSIONS[name].script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ran.returncode != 0
