"""The pages of docs/: their code runs as it stands and prints what they say, and nothing that they promise is missing.

What shares the tutorial's models is quick and runs here; pages with models of their own, and the site, are slow.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from page_code import ROOT, PageRun, blocks_of, page_before, run_page, shows

import metav
from metav.reports import save_plot

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OWN_TEST = {"task_of_your_own.md", "integrations.md"}
SLOW = ("kinds_of_model/",)
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
RUN = ("python", "console")


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def text_of(page: str | Path) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^(`{3,}).*?^\1$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


WITH_CODE = [
    pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] * name_of(page).startswith(SLOW))
    for page in PAGES
    if name_of(page) not in OWN_TEST and any(block.language in RUN for block in blocks_of(text_of(page)))
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], PageRun]:
    """Runs a page, after those that it goes on from; each once."""

    @functools.cache
    def run(page: Path) -> PageRun:
        before = page_before(page)
        return run_page(page, tmp_path_factory.mktemp(page.stem), None if before is None else run(before))

    return run


@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_runs_and_prints_what_the_page_says(page, ran):
    ran(page)


def test_code_that_is_wrong_or_prints_something_else_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    for text in (
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```python\nraise ValueError\n```\n",
        "<!-- not run: why -->\n```python\n1 +\n```\n",
        "```console\n$ metav inspect nothing.metav\n```\n",
        "<!-- not run: why -->\n```console\n$ metav inspect --no-such-option\n```\n",
        "```console\n$ rm everything\n```\n",
        "```sh\nif\n```\n",
    ):
        page.write_text(text)
        with pytest.raises((AssertionError, SyntaxError, ValueError)):
            run_page(page, tmp_path)
    assert shows("1 of 20, p = 0.5 ...", "1 of  24, p = 0.47 (x)", varies=True)
    assert not shows("1 of 20, p = 0.5", "1 of 40, p = 0.5", varies=True)
    assert not shows("1 of 20", "1 in 20", varies=True)
    page.write_text("```python\nprint('1 and 2')\n```\n\n```text\n1 ... 2\n```\n")
    assert run_page(page, tmp_path).printed == ["1 and 2\n"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_lead_somewhere(page):
    for mark, target in LINK.findall(prose_of(page)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name_of(page)} links to {target}"
        assert not mark or found.is_relative_to(DOCS), f"the site has no picture {target}"
        assert not anchor or anchor in anchors_of(found), f"{target} has no heading {anchor}"


def test_every_page_is_reached_from_the_index():
    reached, left = set(), [DOCS / "index.md"]
    while left:
        page = left.pop()
        if page not in reached:
            reached.add(page)
            links = [target.partition("#")[0] for _, target in LINK.findall(prose_of(page))]
            left += [found for link in links if (found := (page.parent / link).resolve()) in PAGES]
    assert reached == set(PAGES), "a plain reader does not find these"


def test_every_picture_of_the_pages_is_drawn_by_the_script_and_shown():
    script = (DOCS / "pictures" / "make_pictures.py").read_text(encoding="utf-8")
    drawn = set(re.findall(r'^ {8}"(\w+)": (?:draw|plot)_', script, flags=re.MULTILINE))
    shown = {Path(target).stem for page in PAGES for _, target in LINK.findall(prose_of(page)) if "pictures/" in target}
    assert drawn == shown == {path.stem for path in (DOCS / "pictures").glob("*.png")}


def test_the_script_draws_what_the_tutorial_made(ran, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "pictures"))
    import make_pictures

    names = ran(DOCS / "tutorial.md").names
    verdicts = {name: metav.verify(names["fp"], names[name]) for name in ("honest", "stolen")}
    found = {"recipe told": {"kin": [verdicts["honest"]] * 2, "copies": [verdicts["stolen"]]}}
    for number, axes in enumerate(
        (make_pictures.draw_queries(names["fp"]), make_pictures.draw_bound(), make_pictures.draw_recipes(found))
    ):
        save_plot(axes, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5000
    model = make_pictures.long_recipe(names["images"][:64], names["labels"][:64], epochs=1)(seed=1)
    assert model(names["images"][:2]).shape == (2, 10)


def test_the_reference_has_every_public_name():
    documented = set(re.findall(r"^\.\. auto\w+:: metav\.(\w+)$", text_of("reference.md"), flags=re.MULTILINE))
    assert documented == set(metav.__all__) - {"__version__"}


@pytest.mark.parametrize("module", ["obfuscations", "reports", "suspects", "integrations.trackers"])
def test_the_reference_has_every_public_name_of_a_module(module):
    documented = set(re.findall(rf"^\.\. auto\w+:: metav\.{module}\.(\w+)$", text_of("reference.md"), flags=re.M))
    public = sys.modules.get(f"metav.{module}") or __import__(f"metav.{module}", fromlist=["__all__"])
    documented |= {name for name in public.__all__ if f":: metav.{name}" in text_of("reference.md")}
    assert documented >= {name for name in public.__all__ if callable(getattr(public, name))} - {"Accepts"}


def test_the_verdict_s_page_lists_every_reason():
    calls = r'(?:SuspectError|TransportError|inconclusive|_stopped)\(\s*"(\w+)"'
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "metav").rglob("*.py")]
    codes = {code for text in texts for code in re.findall(calls, text)}
    codes |= set(re.findall(r'return "(\w+)", message', (ROOT / "metav/verdicts/steadiness.py").read_text()))
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text_of("verdict.md"), flags=re.MULTILINE)
    listed = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    assert len(codes) > 12
    assert codes <= listed


def test_the_file_format_s_page_lists_every_entry_and_tensor(ran):
    names = ran(DOCS / "file_format.md").names
    page = text_of("file_format.md")
    rows = " ".join(re.findall(r"^\|(.+)\|$", page, flags=re.MULTILINE))
    entries = {*names["document"], *names["document"]["task"], *names["document"]["verifier"][0]}
    tensors = {name for name in names["arrays"] if not name.startswith("verifier.")}
    assert not [name for name in entries | tensors if f"`{name}`" not in rows]


def test_the_c_page_shows_every_symbol_of_the_header(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    from c_header import SYMBOL, read_header

    header = (ROOT / "csrc" / "metav.h").read_text(encoding="utf-8")
    shown = " ".join(f"{entry.code} {entry.comment}" for entry in read_header(header))
    assert {"mv_verifier_step", "MV_OK", "mv_query_config"} <= set(SYMBOL.findall(shown))
    assert set(SYMBOL.findall(header)) == set(SYMBOL.findall(shown))


def test_docstrings_become_lists_and_nothing_in_them_is_markup(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    from docstring_lists import as_list

    lines = ["Do it for *all* x_ | y.", "", "first, second: of `each`s", "    and more.", "other: no parameter."]
    assert list(as_list(lines, frozenset({"first", "second"}))) == [
        r"Do it for \*all\* x\_ \| y.",
        "",
        "- **first**, **second**: of `each`\\ s",
        "  and more.",
        "",
        "other: no parameter.",
    ]


def test_the_site_takes_the_installed_copy_where_the_sources_are_not_compiled(tmp_path):
    """As after `pip install ".[docs]"`: the core lies in the installed copy, and the folder holds sources alone."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("results", "*.png"))
    (tmp_path / "metav").mkdir()
    (tmp_path / "metav" / "__init__.py").write_text("raise ImportError('these are sources')")
    code = "import runpy, sys; sys.path.append(sys.argv[2]); runpy.run_path('docs/conf.py'); from metav import _core"
    command = [sys.executable, "-c", code, "", str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_shows_what_pages_generate(tmp_path):
    pytest.importorskip("sphinx", reason='needs the extra "docs"')
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert {path.relative_to(tmp_path).with_suffix(".md") for path in tmp_path.rglob("*.html")} >= {
        page.relative_to(DOCS) for page in PAGES
    }
    page = (tmp_path / "command_line.html").read_text(encoding="utf-8")
    assert "metav-verify" in page
    assert 'id="metav.fingerprint"' in (tmp_path / "reference.html").read_text(encoding="utf-8")
    assert 'id="c-mv_verifier_step"' in (tmp_path / "c_api.html").read_text(encoding="utf-8")
    assert "-m sphinx -W --keep-going docs build/site" in (ROOT / "README.md").read_text(encoding="utf-8")
