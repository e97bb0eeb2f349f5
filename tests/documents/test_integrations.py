"""The page on integrations: its code runs as it stands, and its table is the registry's."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from itertools import pairwise

import pytest
from page_code import ROOT, blocks_of, check_options, commands_of, run_page

import metav
from metav.integrations.registry import INTEGRATIONS
from metav.integrations.trackers import TRACKERS

PAGE = ROOT / "docs" / "integrations.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_code_runs_as_it_stands_and_prints_what_the_page_says(tmp_path):
    for integration in INTEGRATIONS:
        for library in integration.libraries[:1]:
            pytest.importorskip(library, reason=f"{library} is not installed")
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    run_page(PAGE, tmp_path)
    made = {path.name: metav.load(path) for path in sorted(tmp_path.glob("*.metav"))}
    assert list(made) == ["lightning.metav", "loop.metav", "skorch.metav", "trainer.metav"]
    assert {fp.zoo["standing"]["recipe"] for fp in made.values()} == {"told"}


def test_whatever_prints_is_shown_and_options_of_commands_are_those_that_there_are():
    blocks = blocks_of(TEXT)
    for block, after in pairwise(blocks):
        assert "print(" not in block.text or after.language == "text", f"line {block.line}"
    consoles = [block.text for block in blocks if block.language == "console"]
    commands = [shlex.split(command) for text in consoles for command, _ in commands_of(text)]
    assert len(commands) == 3
    for words in commands:
        check_options(words)


def test_the_table_is_the_registry():
    rows = re.findall(r"^\| (?!framework)([^|]+) \| `([^`]+)` \| ([^|]+) \|$", TEXT, flags=re.MULTILINE)
    assert rows == [(entry.name, entry.home, entry.when) for entry in INTEGRATIONS]
    assert all(f'"{kind.name}"' in TEXT for kind in TRACKERS)


@pytest.mark.parametrize("integration", INTEGRATIONS, ids=lambda entry: entry.name)
def test_what_users_import_is_there_and_documented(integration):
    for library in integration.libraries:
        pytest.importorskip(library, reason=f"{library} is not installed")
    module, _, name = integration.home.partition(":")
    documented = getattr(importlib.import_module(module), name).__doc__
    assert all(word in documented for word in ("path", "task", "recipe", "part", "every", "trackers", "options"))


@pytest.mark.parametrize(
    "integration", [entry for entry in INTEGRATIONS if entry.libraries], ids=lambda entry: entry.name
)
def test_a_missing_framework_is_named_with_what_to_install(integration, monkeypatch):
    package = integration.libraries[0].partition(".")[0]
    for library in integration.libraries:
        top = library.partition(".")[0]
        for name in {top, *(name for name in sys.modules if name.startswith(f"{top}."))}:
            monkeypatch.setitem(sys.modules, name, None)
    module = integration.home.partition(":")[0]
    for name in [name for name in sys.modules if name.startswith(module)]:  # the recipe's module as well
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(metav.MissingDependencyError, match=rf"need {package}, which is not installed.*\[{package}\]"):
        importlib.import_module(module)


def test_every_framework_has_its_extra():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    packages = {library.partition(".")[0] for entry in INTEGRATIONS for library in entry.libraries[:1]}
    wanted = packages | {kind.name for kind in TRACKERS}
    assert wanted <= set(extras)
    assert all(name in extras["integrations"][0] for name in wanted)
