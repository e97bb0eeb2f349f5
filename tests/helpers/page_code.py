"""The code of Markdown pages, run as it stands: one mechanism for README and every page of docs/.

Blocks run in order, with the names and files that earlier ones made:

    ```python    runs, or, if its first line is a comment with the name of a file (`# models.py`), becomes that file
    ```text      directly after a Python block: what that block prints; `...` stands for anything
                 after `<!-- numbers depend on the machine -->` each number may differ a little
    ```console   lines `$ metav ...` run in this process, `$ echo $?` shows the last exit code; other lines are output
    ```yaml      must be YAML; becomes a file like a Python block (`# service.yaml`)
    ```sh        must be valid shell; is not run, since it installs
    <!-- not run: REASON -->    on the line before a block: its syntax is checked alone

A page that says "The code on this page goes on from the [tutorial](tutorial.md)" starts with the names and files that
the linked page ends with.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from metav import cli
from metav.support.randomness import isolated_rng, single_thread

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(`{3,})([^\s`]*)[^\n]*\n(.*?)^\1$", flags=re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"<!-- not run: ([^>]+) -->\n$")
FILE = re.compile(r"^# ([\w./-]+\.(?:py|yaml|toml))\n")
GOES_ON = re.compile(r"goes on from (?:the )?\[[^\]]+\]\(([^)#]+)\)")
MATCHING = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FINE = (0, 1, 3)
"""Exit codes of commands that did what they should: no match or done, match, inconclusive."""


NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
VARIES = "<!-- numbers depend on the machine -->\n"
TOLERANCE = 0.3
"""How far a number that depends on the machine may lie from the one in the page, as a share of it; 0.05 in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block.

    language, text: as they stand in the page.
    line: of the page on which the text begins.
    not_run: why it is not run; None where it is.
    varies: whether its numbers depend on the machine.
    """

    language: str
    text: str
    line: int
    not_run: str | None = None
    varies: bool = False

    @property
    def file(self) -> str | None:
        """The name of the file that it becomes."""
        named = FILE.match(self.text) if self.language in ("python", "yaml", "toml") else None
        return named[1] if named else None


@dataclass(slots=True, kw_only=True)
class PageRun:
    """What a page left behind: its names, its folder, and what its blocks printed."""

    names: dict[str, Any] = field(default_factory=dict)
    folder: Path
    printed: list[str] = field(default_factory=list)


def blocks_of(text: str) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    found = []
    for match in FENCE.finditer(text):
        reason = NOT_RUN.search(text, 0, match.start())
        line = text.count("\n", 0, match.start(3)) + 1
        note = reason[1] if reason and reason.end() == match.start() else None
        varies = text.endswith(VARIES, 0, match.start())
        found.append(Block(language=match[2], text=match[3], line=line, not_run=note, varies=varies))
    return found


def page_before(page: Path) -> Path | None:
    """Return the page whose names and files a page goes on with, None for one that starts afresh."""
    match = GOES_ON.search(page.read_text(encoding="utf-8"))
    return (page.parent / match[1]).resolve() if match else None


def run_page(
    page: Path, folder: Path, start: PageRun | None = None, *, languages: Collection[str] | None = None
) -> PageRun:
    """Run the blocks of a page in a folder, with copies of the names and files that another page ended with.

    languages: of the blocks that are run; None for all.
    """
    run = PageRun(folder=folder)
    if start is not None:
        shutil.copytree(start.folder, folder, dirs_exist_ok=True)
        run.names.update(start.names)
    run.names["__name__"] = "page"
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    own = {Path(block.file).stem for block in blocks if block.file} | {path.stem for path in folder.glob("*.py")}
    modules = _modules_of(folder, own)
    with contextlib.chdir(folder), isolated_rng(0), single_thread(), modules, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        before: Block | None = None
        for block in blocks:
            if languages is None or block.language in languages:
                _run_block(block, before, run, page)
            before = block
    return run


@contextlib.contextmanager
def _modules_of(folder: Path, names: Collection[str]) -> Iterator[None]:
    """Forget, in the end, the modules that lie in a folder: another page's file of that name is another module.

    names: of its files; modules of these names that are there already are put aside for the while.
    """
    aside = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        yield
    finally:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}"):
                del sys.modules[name]
        sys.modules.update(aside)


def _run_block(block: Block, before: Block | None, run: PageRun, page: Path) -> None:
    place = f"{page.name}, line {block.line}"
    if block.language == "python" and block.file is None:
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        if block.not_run is None:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, run.names)
            run.printed.append(printed.getvalue())
    elif block.language == "text" and before is not None and before.language == "python" and before.not_run is None:
        same = shows(block.text, run.printed[-1], varies=block.varies)
        assert same, f"{place} says\n{block.text}\nand its code prints\n{run.printed[-1]}"
    elif block.language == "console":
        for command, output in commands_of(block.text):
            if block.not_run is None:
                _run_command(command, output, run, place, varies=block.varies)
            else:
                check_options(shlex.split(command))
    elif block.language == "sh":
        assert subprocess.run(["bash", "-n"], input=block.text, text=True).returncode == 0, place
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    if block.file is not None and block.not_run is None:
        Path(block.file).write_text(block.text, encoding="utf-8")


def commands_of(text: str) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with the output that is shown below it."""
    joined = re.sub(r"\\\n\s*", "", text)
    parts = re.split(r"^\$ ", joined, flags=re.MULTILINE)
    assert not parts[0].strip(), f"a console block begins with a command: {parts[0]!r}"
    return [(first, rest) for first, _, rest in (part.partition("\n") for part in parts[1:])]


def shows(text: str, printed: str, *, varies: bool) -> bool:
    """Return whether a page's text is what was printed, up to blanks and what `...` stands for.

    varies: whether numbers may differ by TOLERANCE.
    """
    if not varies:
        return doctest.OutputChecker().check_output(text, printed, MATCHING)
    between = [_between(part) for part in NUMBER.split(text.strip())]
    found = re.fullmatch(rf"({NUMBER.pattern})".join(between), printed.strip(), flags=re.DOTALL)
    if found is None:
        return False
    pairs = zip(map(float, NUMBER.findall(text)), map(float, found.groups()), strict=True)
    return all(abs(there - here) <= TOLERANCE * abs(here) + 0.05 for here, there in pairs)


def _between(text: str) -> str:
    """Return the pattern of a text without numbers."""
    words = [
        r"\s+" if word.isspace() else re.escape(word).replace(r"\.\.\.", ".*?") for word in re.split(r"(\s+)", text)
    ]
    return "".join(words)


def _run_command(command: str, output: str, run: PageRun, place: str, *, varies: bool = False) -> None:
    words = shlex.split(command)
    if words == ["echo", "$?"]:
        printed = f"{run.names['__exit_code__']}\n"
    else:
        assert words[0] == "metav", f"{place}: only metav's commands are run, not {command}"
        check_options(words)
        result = CliRunner().invoke(cli.main, words[1:])
        assert result.exit_code in FINE, f"{place}: {command} ends with {result.exit_code}\n{result.output}"
        run.names["__exit_code__"], printed = result.exit_code, result.output
    if output.strip():
        same = shows(output, printed, varies=varies)
        assert same, f"{place} says\n{output}\nand {command} prints\n{printed}"


def check_options(words: list[str]) -> None:
    """Fail for an option that a command of metav does not have."""
    if words[0] != "metav":
        return
    found: Any = cli.main
    rest = words[1:]
    while rest and rest[0] in getattr(found, "commands", {}):
        found = found.commands[rest.pop(0)]
    known = {option for entry in found.params for option in (*entry.opts, *entry.secondary_opts)}
    unknown = {word for word in rest if re.match(r"--?[a-z]", word)} - known - {"--help", "-h"}
    assert not unknown, f"{' '.join(words)}: {found.name} has no {', '.join(sorted(unknown))}"
