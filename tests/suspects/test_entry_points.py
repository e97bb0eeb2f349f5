"""Suspect kinds of other distributions: installed in a folder, found by their entry point."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from small_fingerprints import answers_with_logit, handmade

import metav
from metav.cli import main
from metav.suspects import CallableSuspect, open_suspect

MODULE = '''
"""A kind that reads .answers files, and things that can be called and say so."""

import numpy as np

from metav.suspects import AskedSuspect, RecordedSuspect, SuspectKind


class Greeter(AskedSuspect):
    description = "greeter"

    def __init__(self, thing, *, factor=1.0):
        self.thing, self.factor = thing, factor

    def _ask(self, batch):
        return self.thing.greet(batch) * self.factor


def open_answers(path):
    suspect = RecordedSuspect(np.loadtxt(path))
    suspect.description = "answers of another distribution"
    return suspect


FILES = SuspectKind(
    name="answers",
    expected="an .answers file",
    recognises=lambda thing: False,
    open=open_answers,
    endings=(".answers",),
)
GREETERS = SuspectKind(
    name="greeter",
    expected="a greeter",
    recognises=lambda thing: hasattr(thing, "greet"),
    open=Greeter,
    options=("factor",),
)
SOMETHING = 3
'''


class Greets:
    def greet(self, batch):
        return batch

    def __call__(self, batch):
        raise AssertionError("it was taken for a callable")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with these entry points: pip would write the same files."""

    def write(*entries):
        folder = tmp_path / "site"
        (folder / "small_kinds-1.0.dist-info").mkdir(parents=True, exist_ok=True)
        (folder / "small_kinds.py").write_text(MODULE)
        information = folder / "small_kinds-1.0.dist-info"
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: small-kinds\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text("\n".join(["[metav.suspects]", *entries, ""]))
        monkeypatch.syspath_prepend(folder)

    return write


def test_a_file_of_another_distributions_kind_is_read(install, tmp_path):
    fp, answers = handmade(), answers_with_logit(handmade(), 2.0)
    np.savetxt(tmp_path / "a.answers", answers, fmt="%.9g")
    with pytest.raises(metav.InputError, match="has an unknown ending"):
        metav.verify(fp, tmp_path / "a.answers")
    install("answers = small_kinds:FILES")
    verdict = metav.verify(fp, tmp_path / "a.answers")
    assert verdict.score == metav.verify(fp, answers).score
    assert verdict.suspect == "answers of another distribution"
    fp.save(tmp_path / "owner.metav")
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "owner.metav"), str(tmp_path / "a.answers"), "--json"])
    assert result.exit_code == 1, result.output
    assert json.loads(result.stdout)["suspect"] == "answers of another distribution"


def test_a_kind_of_another_distribution_comes_before_callables_and_has_options_of_its_own(install):
    install("greeters = small_kinds:GREETERS")
    queries = np.ones((3, 2), np.float32)
    assert (open_suspect(Greets()).answer(queries, outputs=2).responses == 1).all()
    assert (open_suspect(Greets(), factor=2.0).answer(queries, outputs=2).responses == 2).all()
    with pytest.raises(metav.InputError, match=r"timeout does not go with .* 'greeter'; it takes factor"):
        open_suspect(Greets(), timeout=3)


def test_a_kind_of_another_distribution_does_not_take_over_metavs_own(install, tmp_path):
    install("answers = small_kinds:FILES", "broken = small_kinds:NOTHING")
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    assert open_suspect(tmp_path / "a.npy").description == "recorded answers a.npy"


@pytest.mark.parametrize("entry", ["a = small_kinds:NOTHING", "a = nowhere:FILES", "a = small_kinds:SOMETHING"])
def test_a_broken_kind_is_told_and_left_out(install, entry):
    install(entry)
    with pytest.warns(UserWarning, match="it is left out"):
        suspect = open_suspect(len)
    assert isinstance(suspect, CallableSuspect)
