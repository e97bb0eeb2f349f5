"""Text from elsewhere, made fit to be shown."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metav.support.text import byte_size, duration, harmless


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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (130, "2 min 10 s"),
        (3599.7, "1 h"),
        (3600 + 59 * 60 + 40, "2 h"),
        (12_000, "3 h 20 min"),
        (86_400 + 23.6 * 3600, "2 d"),
        (367_200, "4 d 6 h"),
    ],
)
def test_spans_of_time_are_told_in_two_units(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (12 * 2**20, "12.0 MiB"), (3 * 2**40, "3.0 TiB")],
)
def test_sizes_are_told_in_binary_units(size, text):
    assert byte_size(size) == text
