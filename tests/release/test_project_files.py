"""Citation, changelog, security page and workflows agree with the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import metav

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

if not (ROOT / "CITATION.cff").exists():
    pytest.skip("the files of the project are not here", allow_module_level=True)


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert str(citation["version"]) == metav.__version__
    assert citation["authors"] == [{"name": "metav developers"}]
    (paper,) = citation["references"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for fact in (paper["doi"], paper["collection-title"], *(author["family-names"] for author in paper["authors"])):
        assert fact in readme


def test_the_changelog_has_the_versions_newest_first():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## \[(.+?)\] - (.+)$", text, flags=re.MULTILINE)
    assert heads[0][0] == metav.__version__
    assert [version for version, _ in heads] == sorted((version for version, _ in heads), reverse=True)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d|unreleased", date) for _, date in heads)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in heads[1:])


def test_what_the_security_page_names_is_there():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = [name for name in re.findall(r"`([\w./]+)`", text) if "/" in name]
    assert len(named) > 6
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_only_publishing_has_rights(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert all(re.fullmatch(r"[\w./-]+@(v\d+\.\d+\.\d+|[0-9a-f]{40})", name) for name in used), used
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        publishes = name == "publish"
        assert (job["permissions"] == {"id-token": "write"}) is publishes
        assert publishes or job["permissions"] == {"contents": "read"}
        assert ("release" in job.get("if", "")) is publishes


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_workflows_run_is_there(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    files = [name for command in commands for name in re.findall(r"(?:tests/|\.ci/)[\w./]*", command)]
    assert [name for name in files if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        name for command in commands for group in re.findall(r'"\.\[(.+?)\]"', command) for name in group.split(",")
    }
    assert extras <= set(project["optional-dependencies"])
