"""`metav reproduce`: what it refuses. That it works is tested where the experiments are."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from metav.cli.commands import main


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("digits", "--scale", "smoke", "--regimes", "fool"), 2, "there is no regime fool"),
        (("digits", "--scale", "smoke", "--seeds", "1,x"), 2, "seeds must be whole numbers"),
        (("skin", "--scale", "smoke"), 2, "skin needs the folder of the real data sets; pass --data"),
        (("digits", "--scale", "smoke", "--device", "abacus"), 2, "the device 'abacus' cannot be used"),
        (("digits", "--scale", "smoke", "--report"), 2, "run `metav reproduce` first"),
        (("skies",), 4, "skies"),
        (("digits", "--scale", "vast"), 4, "vast"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(arguments, code, message, tmp_path):
    where = () if code == 4 else ("--output", tmp_path / "results", "--cache", tmp_path / "cache")
    result = CliRunner().invoke(main, ["reproduce", *map(str, (*arguments, *where))])
    assert result.exit_code == code
    assert message in result.stderr
    assert not (tmp_path / "cache").exists()
