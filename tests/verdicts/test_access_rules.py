"""The decision rules of accesses: worked out once, and only so many kept."""

from __future__ import annotations

import copy

import pytest
from small_fingerprints import small_fingerprint

from metav.verdicts import access_rules
from metav.verdicts.access import Access
from metav.verdicts.access_rules import rule_for

NOISES = (0.01, 0.02, 0.03, 0.04)


@pytest.fixture
def fp():
    found = copy.copy(small_fingerprint())
    object.__setattr__(found, "accesses", {})
    return found


def noisy(noise: float) -> Access:
    return Access(reads="probabilities", noise=noise)


def test_a_rule_is_worked_out_once(fp):
    assert rule_for(fp, noisy(0.01)) is rule_for(fp, noisy(0.01))


def test_suspects_with_noise_of_their_own_do_not_fill_the_memory(fp, monkeypatch):
    one = rule_for(fp, noisy(NOISES[0])).size
    monkeypatch.setattr(access_rules, "MOST_BYTES", 2.5 * one)
    for noise in NOISES:
        rule_for(fp, noisy(noise))
    assert len(fp.accesses) == 2
    assert sum(rule.size for rule in fp.accesses.values()) <= access_rules.MOST_BYTES


def test_the_rule_that_was_asked_for_last_is_kept_longest(fp, monkeypatch):
    first = rule_for(fp, noisy(NOISES[0]))
    monkeypatch.setattr(access_rules, "MOST_BYTES", 2.5 * first.size)
    rule_for(fp, noisy(NOISES[1]))
    assert rule_for(fp, noisy(NOISES[0])) is first
    rule_for(fp, noisy(NOISES[2]))
    assert rule_for(fp, noisy(NOISES[0])) is first


def test_one_rule_stays_however_large(fp, monkeypatch):
    monkeypatch.setattr(access_rules, "MOST_BYTES", 1)
    rule = rule_for(fp, noisy(NOISES[0]))
    assert list(fp.accesses.values()) == [rule]
