"""The gate as JUnit XML: read by a parser of that format, and by rules of its schema; nothing in it can break out."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml
from linear_fingerprints import OTHER_OWNER_SEED, OWNER_SEED, answers, linear_fingerprint, weights
from small_fingerprints import handmade

import metav
from metav.reports.junit import junit_error, junit_xml, write_junit
from metav.verdicts.release_gate import ReleaseGate

CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"failure", "error", "system-out"},
}
REQUIRED = {
    "testsuite": {"name", "tests", "failures", "errors"},
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time"},
}
ALLOWED = {
    "testsuite": {"skipped", "time", "timestamp"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
}
"""Of Jenkins' junit-10.xsd what metav uses."""


def gate_of(owner: int, others: tuple[metav.Fingerprint, ...] = ()) -> ReleaseGate:
    matrix = weights(derived=True, seed=200, owner=owner)

    def release(queries):
        assert queries.ndim == 2, "other inputs"
        return answers(matrix, queries)

    return metav.check_release(linear_fingerprint(), release, against=others)


def check_schema(element: ElementTree.Element) -> None:
    found = set(element.attrib)
    required = REQUIRED.get(element.tag, set())
    assert required <= found <= required | ALLOWED.get(element.tag, set())
    for child in element:
        assert child.tag in CHILDREN[element.tag]
        check_schema(child)


def read(content: bytes) -> list[JUnitXml]:
    check_schema(ElementTree.fromstring(content))
    return list(JUnitXml.fromstring(content))


def test_a_parser_reads_one_test_case_per_check_with_its_outcome():
    others = (linear_fingerprint(owner=OTHER_OWNER_SEED), handmade())
    (suite,) = read(junit_xml(gate_of(OTHER_OWNER_SEED, others)))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 2, 1, 0)
    cases = list(suite)
    assert [case.classname for case in cases] == ["metav gate"] * 3
    assert "recognised as" in cases[0].name
    assert [type(case.result[0]) for case in cases] == [Failure, Failure, Error]
    assert [case.result[0].type for case in cases] == ["NO_MATCH", "MATCH", "INCONCLUSIVE"]
    assert cases[1].result[0].message.startswith("MATCH, score")


def test_what_passed_carries_its_verdict():
    (suite,) = read(junit_xml(gate_of(OWNER_SEED)))
    (case,) = suite
    assert case.is_passed
    assert case.system_out.startswith("MATCH: the suspect was derived from the owner's model\n")
    assert {entry.name: entry.value for entry in suite.properties()}["outcome"] == "passed"


def test_a_gate_that_cannot_be_run_is_one_error():
    (suite,) = read(junit_error("model.onnx", "there is no file model.onnx"))
    (case,) = suite
    assert (suite.tests, suite.errors, case.result[0].message) == (1, 1, "there is no file model.onnx")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_text_breaks_out_of_the_file(text):
    for hostile in (text, f'"/><failure/>{text}', f"]]>{text}</testcase>\x00\x1b[31m"):
        content = junit_error(hostile, hostile)
        (suite,) = read(content)
        assert len(list(suite)) == 1
        assert re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", content) is None


def test_names_of_files_are_escaped(tmp_path):
    folder = tmp_path / "<x>"
    folder.mkdir()
    hostile = folder / '"><failure message="&amp;.metav'
    linear_fingerprint(owner=OTHER_OWNER_SEED).save(hostile)
    (suite,) = read(junit_xml(gate_of(OWNER_SEED, (hostile,))))
    assert suite.failures == 0
    assert [case.name for case in suite][1] == f"not taken for the model of {hostile}"


def test_a_file_that_cannot_be_written_is_said(tmp_path):
    write_junit(b"<testsuites/>", tmp_path / "gate.xml")
    assert (tmp_path / "gate.xml").read_bytes() == b"<testsuites/>"
    with pytest.raises(metav.InputError, match="cannot be written"):
        write_junit(b"", tmp_path / "none" / "gate.xml")
