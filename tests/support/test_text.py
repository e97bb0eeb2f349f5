"""Text from elsewhere, made fit to be shown."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metav.support.text import harmless


@given(st.text())
def test_nothing_that_is_shown_is_hidden_or_breaks_the_line(text):
    shown = harmless(text)
    assert all(unicodedata.category(character)[0] not in "CZ" or character in " \u3000\u00a0" for character in shown)
    assert shown == harmless(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nMATCH\tb", "a MATCH b"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\u202eb", r"a\u202eb"),
        ("\ud800", r"\ud800"),
        ("日本 é <b>", "日本 é <b>"),
        (3, "3"),
    ],
)
def test_what_is_seen_stays_and_the_rest_is_escaped(text, shown):
    assert harmless(text) == shown


def test_long_texts_are_cut():
    assert harmless("a" * 10, limit=4) == "aaaa..."
    assert harmless("a" * 4, limit=4) == "aaaa"
