"""Verdicts on suspects that the zoo has never seen: honest models and nonsense are not accused, in whatever form.

Each law stands for one kind of false accusation of 0.1.0, or for one way in which a thief got away by form.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from answer_forms import softmax
from small_models import owner_of, task_of
from small_trials import answers, derived, honest, nonsense, trial

import metav
from metav import Decision
from metav.fingerprints.fingerprint import Fingerprint
from metav.support.randomness import isolated_rng
from metav.verdicts.verdict import Verdict

pytestmark = pytest.mark.slow

CLASSIFIERS = ("digits", "cancer")
EVERY = (*CLASSIFIERS, "values")


@functools.cache
def suspects(name: str, kind: str) -> Mapping[str, Any]:
    return {"honest": honest, "nonsense": nonsense, "derived": derived}[kind](trial(name))


@functools.cache
def verdicts(name: str, kind: str) -> Mapping[str, Verdict]:
    return {each: metav.verify(trial(name).fp, suspect) for each, suspect in suspects(name, kind).items()}


def of_decision(found: Mapping[str, Verdict], decision: Decision) -> dict[str, str | None]:
    return {name: verdict.reason for name, verdict in found.items() if verdict.decision is decision}


# Whom a verdict accuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_no_honest_model_is_accused(name):
    assert of_decision(verdicts(name, "honest"), Decision.MATCH) == {}


@pytest.mark.parametrize("name", EVERY)
def test_no_nonsense_is_matched_and_each_is_told_why(name):
    found = verdicts(name, "nonsense")
    assert of_decision(found, Decision.MATCH) == {}
    reasons = of_decision(found, Decision.INCONCLUSIVE).values()
    assert set(reasons) <= {"not_competent", "constant", "unlike_any", "access"}
    assert list(reasons).count("not_competent") > 0.5 * len(found)


@pytest.mark.parametrize("name", ["digits", "values"])
def test_copies_are_found(name):
    found = verdicts(name, "derived")
    assert found["owner"].decision is Decision.MATCH
    assert of_decision(found, Decision.NO_MATCH) == {}
    assert len(of_decision(found, Decision.MATCH)) >= 0.8 * len(found)


def test_honest_models_get_no_match_rather_than_nothing():
    found = verdicts("digits", "honest")
    assert len(of_decision(found, Decision.NO_MATCH)) >= 0.9 * len(found)


# In another form -----------------------------------------------------------------------------------------------------

CLASSES = np.random.default_rng(4).permutation(10)


def slightly_negative(p: np.ndarray) -> np.ndarray:
    sent = p.copy()
    row = int(np.argmin(sent.min(axis=1)))
    sent[row, sent[row].argmin()] = -1e-9
    return sent


LOSSLESS = {
    "probabilities": softmax,
    "percent": lambda logits: 100 * softmax(logits),
    "out of 255": lambda logits: 255 * softmax(logits),
    "log-probabilities": lambda logits: np.log(softmax(logits)),
    "one entry -1e-9": lambda logits: slightly_negative(softmax(logits)),
    "logits times 3": lambda logits: 3 * logits,
    "logits divided by 3": lambda logits: logits / 3,
    "logits plus 100": lambda logits: logits + 100,
    "classes permuted": lambda logits: logits[:, CLASSES],
    "rows reversed": lambda logits: logits[::-1],
    "3 decimals": lambda logits: np.round(softmax(logits), 3),
}
LOSSY = {
    "2 decimals": lambda logits: np.round(softmax(logits), 2),
    "whole percent": lambda logits: np.round(100 * softmax(logits)),
    "1 decimal": lambda logits: np.round(softmax(logits), 1),
    "one-hot": lambda logits: np.eye(10)[logits.argmax(axis=1)],
    "class numbers": lambda logits: logits.argmax(axis=1),
    "top 3": lambda logits: top(softmax(logits), 3),
    "clipped": lambda logits: np.clip(softmax(logits), 0.01, 0.99),
}
FORMS = {**LOSSLESS, **LOSSY}
INDEPENDENT = ("recipe 0", "longer 1", "smoothed 0", "wide 1")


def top(p: np.ndarray, kept: int) -> np.ndarray:
    return np.where(p >= np.sort(p, axis=1)[:, [-kept]], p, 0.0)


def sent(name: str, kind: str, suspect: str, form: str) -> Verdict:
    of = trial(name)
    return metav.verify(of.fp, FORMS[form](answers(of, suspects(name, kind)[suspect])))


@pytest.mark.parametrize("form", LOSSLESS)
def test_a_form_that_can_be_undone_leaves_the_owners_copy_a_match(form):
    verdict = sent("digits", "derived", "owner", form)
    assert verdict.decision is Decision.MATCH, verdict


@pytest.mark.parametrize("form", LOSSY)
def test_a_form_that_loses_something_never_clears_the_owners_copy(form):
    verdict = sent("digits", "derived", "owner", form)
    assert verdict.decision is not Decision.NO_MATCH, verdict
    assert verdict.access != "all"


@pytest.mark.parametrize("form", FORMS)
def test_no_form_makes_an_honest_model_a_match(form):
    for suspect in INDEPENDENT:
        verdict = sent("digits", "honest", suspect, form)
        assert verdict.decision is not Decision.MATCH, (suspect, str(verdict))


@pytest.mark.parametrize("form", ["percent", "out of 255", "log-probabilities", "logits plus 100"])
@pytest.mark.parametrize("suspect", ["tuned 0", "recipe 0"])
def test_what_loses_nothing_changes_no_logit(suspect, form):
    kind = "honest" if suspect == "recipe 0" else "derived"
    plain, changed = (sent("digits", kind, suspect, each) for each in ("probabilities", form))
    assert changed.decision is plain.decision
    assert changed.logit == pytest.approx(plain.logit, abs=2e-3)


@pytest.mark.parametrize(("kind", "suspect"), [("derived", "owner"), ("honest", "recipe 0")])
def test_a_suspect_that_reverses_each_batch_is_judged_as_if_it_did_not(kind, suspect):
    """Queries that are asked again come in a smaller batch: there the same row is the answer to another query."""
    fp, model = trial("digits").fp, suspects("digits", kind)[suspect]

    def reversed_rows(queries):
        with torch.no_grad():
            return model(torch.tensor(queries)).numpy()[::-1].copy()

    plain, turned = metav.verify(fp, model), metav.verify(fp, reversed_rows, accepts="numpy")
    assert "rows came in reverse order" in turned.form
    assert (turned.decision, turned.access, turned.noise) == (plain.decision, plain.access, None)
    assert turned.logit == pytest.approx(plain.logit, abs=2e-3)


@pytest.mark.parametrize("suspect", ["owner", "tuned 0", "recipe 0"])
def test_one_entry_that_cannot_be_does_not_change_how_all_others_are_read(suspect):
    kind = "honest" if suspect == "recipe 0" else "derived"
    plain, changed = (sent("digits", kind, suspect, each) for each in ("probabilities", "one entry -1e-9"))
    assert (changed.decision, changed.access) == (plain.decision, plain.access)
    assert changed.logit == pytest.approx(plain.logit, abs=0.05)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("percent", "percent"),
        ("2 decimals", "rounded to 2 decimals"),
        ("class numbers", "one-hot"),
        ("top 3", "the best 3 of 10 only"),
        ("clipped", "clipped to 0.01 to 0.99"),
        ("classes permuted", "classes came in another order"),
        ("rows reversed", "rows came in reverse order"),
        ("one entry -1e-9", "1 of 800 numbers slightly negative"),
    ],
)
def test_the_verdict_tells_the_form(form, said):
    verdict = sent("digits", "derived", "owner", form)
    assert said in verdict.form
    assert said in str(verdict)
    assert verdict.to_dict()["form"] == verdict.form


# Each reason for no decision -----------------------------------------------------------------------------------------


def test_who_does_not_do_the_task_is_told_apart():
    verdict = verdicts("digits", "nonsense")["untrained 0"]
    assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "not_competent")
    assert "does not do this task" in verdict.message
    assert not verdict.competence.is_competent
    assert verdict.competence.value < verdict.competence.lowest
    assert verdict.competence.skill < verdict.competence.required
    assert verdict.score is None
    assert verdict.to_dict()["competence"]["is_competent"] is False


def test_competent_models_are_told_their_accuracy():
    of = trial("digits")
    verdict = verdicts("digits", "derived")["owner"]
    right = answers(of, of.owner)[of.fp.adaptive :].argmax(axis=1) == of.fp.truth
    assert verdict.competence.is_competent
    assert verdict.competence.value == pytest.approx(right.mean())


def test_one_class_to_everything_is_constant():
    of = trial("digits")
    for same in (np.full(len(of.fp.queries), 3), np.tile(np.eye(10)[3], (len(of.fp.queries), 1))):
        assert metav.verify(of.fp, same).reason == "constant"


def test_heavy_noise_on_the_owners_answers_is_no_acquittal():
    of, random = trial("digits"), np.random.default_rng(0)

    def noisy(queries: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = of.owner(torch.from_numpy(queries)).numpy()
        return logits + 3 * random.standard_normal(logits.shape)

    verdict = metav.verify(of.fp, noisy, accepts="numpy")
    assert verdict.decision is not Decision.NO_MATCH, verdict
    assert verdict.noise > 0.1


# Regression ----------------------------------------------------------------------------------------------------------

UNITS = {"times 1000": lambda y: 1000 * y, "fahrenheit": lambda y: 1.8 * y + 32, "turned": lambda y: -y}


@pytest.mark.parametrize("unit", UNITS)
def test_values_in_another_unit_are_read_in_the_owners(unit):
    of = trial("values")
    verdict = metav.verify(of.fp, UNITS[unit](answers(of, of.owner)))
    assert verdict.decision is Decision.MATCH, verdict
    assert "values came in another unit" in verdict.form


@pytest.mark.parametrize("unit", UNITS)
def test_no_unit_makes_an_honest_model_a_match(unit):
    of = trial("values")
    for suspect in INDEPENDENT:
        verdict = metav.verify(of.fp, UNITS[unit](answers(of, suspects("values", "honest")[suspect])))
        assert verdict.decision is not Decision.MATCH, (suspect, str(verdict))


# Generation ----------------------------------------------------------------------------------------------------------


@functools.cache
def generator() -> Fingerprint:
    zoo = metav.build_zoo(owner_of("generation"), task_of("generation"), positives=10, negatives=16, progress=False)
    options = metav.OptimizationOptions(queries=12, steps=10)
    with pytest.warns(UserWarning, match="calibrate"):
        return metav.fingerprint(
            owner_of("generation"), task_of("generation"), zoo=zoo, options=options, progress=False
        )


def test_generators_of_noise_and_untrained_ones_are_not_matched():
    fp, random = generator(), np.random.default_rng(0)
    shape = (len(fp.queries), fp.task.outputs)
    found = [random.random(shape), np.clip(random.normal(0.5, 0.2, shape), 0, 1)]
    for seed in range(3):
        with isolated_rng(seed):
            found.append(type(owner_of("generation"))().eval())
    assert [verdict.decision for verdict in map(functools.partial(metav.verify, fp), found)].count("MATCH") == 0


def test_an_independent_generator_is_not_matched():
    with isolated_rng(77):
        other = type(owner_of("generation"))()
    other = task_of("generation").train(other, seed=77)
    assert metav.verify(generator(), other).decision is not Decision.MATCH


def test_the_owners_generator_is_not_cleared():
    assert metav.verify(generator(), owner_of("generation")).decision is not Decision.NO_MATCH


IMAGE_FORMS = {
    "-1..1": lambda images: 2 * images - 1,
    "0..255": lambda images: np.rint(255 * images),
    "channels last": lambda images: images.transpose(0, 2, 3, 1),
}


@pytest.mark.parametrize("form", IMAGE_FORMS)
def test_the_owners_images_in_another_form_are_read_as_they_are(form):
    owner = owner_of("generation")

    def suspect(latents):
        with torch.no_grad():
            return IMAGE_FORMS[form](owner(torch.from_numpy(latents)).numpy())

    usual, found = metav.verify(generator(), owner), metav.verify(generator(), suspect, accepts="numpy")
    assert found.decision is usual.decision
    assert found.score == pytest.approx(usual.score, abs=0.02)
    if form != "channels last":  # of one channel alone both orders are the same
        assert f"images in {form} instead of 0..1" in found.form


@pytest.mark.parametrize("form", ["one-hot", "class numbers"])
def test_the_owners_own_labels_bear_out_a_match(form):
    assert sent("digits", "derived", "owner", form).decision is Decision.MATCH


def test_a_few_telling_labels_are_no_match_without_the_others():
    """A verifier that weighs some labels heavily must not accuse whoever gives one of them by chance."""
    of = trial("digits")
    own = np.asarray(answers(of, of.owner)).argmax(axis=1)
    kin = np.asarray(answers(of, suspects("digits", "honest")["recipe 0"])).argmax(axis=1)
    found = []
    for seed in range(20):
        given = kin.copy()
        changed = np.random.default_rng(seed).permutation(np.flatnonzero(own != kin))[:3]
        given[changed] = own[changed]
        found.append(metav.verify(of.fp, given).decision)
    assert Decision.MATCH not in found
