"""The gate of a release as JUnit XML, which continuous integration shows: one test case a check."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree import ElementTree

from metav.errors import InputError
from metav.support.files import PathLike, path_text, write_atomically
from metav.support.text import harmless
from metav.support.versions import version_of
from metav.verdicts.release_gate import GateCheck, Outcome, ReleaseGate

SUITE = "metav gate"


def junit_xml(gate: ReleaseGate) -> bytes:
    """Return the XML: a check that failed is a failure, one that tells nothing is an error.

    Source: junit-10.xsd of Jenkins' xUnit plugin, which GitLab and others read as well.
    """
    outcomes = [check.outcome for check in gate.checks]
    seconds = sum(check.seconds for check in gate.checks)
    suite = _suite(outcomes.count(Outcome.FAILED), outcomes.count(Outcome.INCONCLUSIVE), len(outcomes), seconds)
    _properties(suite, {"release": gate.release, "outcome": gate.outcome.value})
    for check in gate.checks:
        _add_check(suite, check)
    return _document(suite)


def junit_error(release: str, message: str) -> bytes:
    """Return the XML of a gate that could not be run at all: one test case, which is an error.

    release: names it.
    message: why.
    """
    suite = _suite(0, 1, 1, 0.0)
    _properties(suite, {"release": release, "outcome": "error"})
    case = ElementTree.SubElement(suite, "testcase", classname=SUITE, name="the gate runs", time="0.000")
    _problem(case, "error", "error", message, "")
    return _document(suite)


def write_junit(content: bytes, path: PathLike) -> None:
    """Write the XML into a file, at once or not at all; InputError where that fails."""
    target = path_text(path)
    try:
        write_atomically(target, content)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror or error}); choose a file in an existing folder"
        ) from error


def _suite(failures: int, errors: int, tests: int, seconds: float) -> ElementTree.Element:
    return ElementTree.Element(
        "testsuite",
        name=SUITE,
        tests=str(tests),
        failures=str(failures),
        errors=str(errors),
        skipped="0",
        time=f"{seconds:.3f}",
        timestamp=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
    )


def _properties(suite: ElementTree.Element, values: Mapping[str, str]) -> None:
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in {"metav": version_of(), **values}.items():
        ElementTree.SubElement(properties, "property", name=name, value=harmless(value))


def _add_check(suite: ElementTree.Element, check: GateCheck) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=SUITE, name=harmless(check.name), time=f"{check.seconds:.3f}"
    )
    text = "\n".join(map(harmless, str(check.verdict).splitlines()))
    if check.outcome is Outcome.PASSED:
        ElementTree.SubElement(case, "system-out").text = text
        return
    tag = "failure" if check.outcome is Outcome.FAILED else "error"
    _problem(case, tag, check.verdict.decision.value, check.finding, text)


def _problem(case: ElementTree.Element, tag: str, kind: str, message: str, text: str) -> None:
    ElementTree.SubElement(case, tag, type=kind, message=harmless(message)).text = text


def _document(suite: ElementTree.Element) -> bytes:
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    content: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return content + b"\n"
