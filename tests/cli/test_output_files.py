"""Files that commands write: of the right ending, no device, nothing lost that nobody meant."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
from click.testing import CliRunner, Result
from small_fingerprints import answers_with_logit, handmade

from metav.cli.commands import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a fingerprint, answers, and files under names that are easily mistaken for others."""
    monkeypatch.chdir(tmp_path)
    handmade().save("owner.metav")
    np.save("answers.npy", answers_with_logit(handmade(), 0.0))
    for name in ("weights", "weights.safetensors", "data.npz"):
        (tmp_path / name).write_bytes(b"precious")
    os.mkfifo("pipe.png")
    os.mkfifo("pipe.npy")
    os.mkfifo("pipe.metav")
    os.mkfifo("pipe.html")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


MAKE = ("fingerprint", "models:build", "--data", "data.npz", "--force", "-o")
VERIFY = ("verify", "owner.metav", "answers.npy")


def state_of(folder):
    """What each file is and when it was written; reading alone changes nothing of it."""
    found = {path.name: path.lstat() for path in folder.iterdir()}
    return {name: (state.st_mode, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in found.items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*MAKE, "weights"), "weights has another ending than .metav; call it weights.metav, for example"),
        ((*MAKE, "weights.safetensors"), "call it weights.safetensors.metav"),
        ((*MAKE, "pipe.metav"), "pipe.metav cannot be written (it is a pipe, not a regular file)"),
        (("demo", "--output", "weights"), "weights has another ending than .png or .svg or .pdf"),
        (("demo", "--output", "pipe.png"), "it is a pipe"),
        ((*VERIFY, "--plot", "weights"), "weights has an unknown ending for a report"),
        ((*VERIFY, "--plot", "weights.safetensors"), "weights.safetensors has an unknown ending"),
        ((*VERIFY, "--plot", "page.html"), "page.html has another ending than .png or .svg or .pdf"),
        ((*VERIFY, "--plot", "pipe.png"), "it is a pipe"),
        ((*VERIFY, "--report", "pipe.html"), "it is a pipe"),
        ((*VERIFY, "--report", "weights"), "weights has an unknown ending"),
        (("inspect", "owner.metav", "--force", "--queries", "weights"), "weights has another ending than .npy or .npz"),
        (("inspect", "owner.metav", "--force", "--queries", "pipe.npy"), "it is a pipe"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_a_file_of_another_kind_is_refused_before_any_work_and_stays(here, arguments, message):
    before = state_of(here)
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert state_of(here) == before


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((*VERIFY, "--plot", "linked.png"), "linked.png"),
        ((*VERIFY, "--report", "linked.HTML"), "linked.HTML"),
        (("inspect", "owner.metav", "--force", "--queries", "linked.npy"), "linked.npy"),
    ],
)
def test_a_link_is_followed_and_the_mode_kept(here, arguments, name):
    target = here / "below" / "target"
    target.parent.mkdir()
    target.write_bytes(b"old")
    target.chmod(0o640)
    (here / name).symlink_to(target)
    run(*arguments)
    assert (here / name).is_symlink()
    assert target.read_bytes() != b"old"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
