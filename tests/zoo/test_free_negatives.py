"""Free negatives: what they are, that they are the same each time, and that they are counted apart."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import functools
import json
import random
import time

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from small_models import HeadFirst, bits, digits, owner_of, task_of
from torch import nn

import metav.zoo.free_negatives as table
from metav.errors import ZooError
from metav.models.architectures import OwnerArchitecture
from metav.models.ensembles import Ensemble
from metav.models.running import predict
from metav.tasks.base import Task
from metav.tasks.classification import Classification
from metav.tasks.regression import Regression
from metav.zoo import classical_negatives as classical
from metav.zoo.architectures import plain_architectures
from metav.zoo.building import build_suspects, build_zoo
from metav.zoo.free_material import material_of
from metav.zoo.free_negatives import FREE_FAMILIES, FREE_MODELS, FREE_NEGATIVES, free_negatives, is_free
from metav.zoo.zoo import Zoo, ZooModel

KINDS = ("classification", "regression", "generation")
ANSWERS = {"classification": "classes", "regression": "numbers", "generation": "samples"}
MIXED, RESCALED = "nonsense_mixed", "independent_rescaled"


def kind_of(entry: ZooModel) -> str:
    return entry.run.split("/")[1]


def architectures_of(name: str):
    return [OwnerArchitecture(owner_of(name)), *plain_architectures(owner_of(name), task_of(name))]


@functools.cache
def independent_of(name: str) -> tuple[ZooModel, ...]:
    """Two models for each share: hardly trained, which is all that their descendants need."""
    task, models = task_of(name), []
    for number, share in enumerate(["optimize", "select", "calibrate"] * 2):
        torch.manual_seed(number)
        model = task.train(architectures_of(name)[number % 2](), seed=number, epochs=1.0).requires_grad_(False)
        models.append(
            ZooModel(
                model=model.eval(),
                is_positive=False,
                family="independent_same_data",
                strength=None,
                seed=number,
                run=f"run {number}",
                fraction=1.0,
                share=share,
                architecture=number % 2,
                metric=0.0,
            )
        )
    return tuple(models)


@functools.cache
def free_of(name: str, seed: int = 0) -> tuple[ZooModel, ...]:
    return free_negatives(task_of(name), independent_of(name), architectures_of(name), seed=seed)


def answers_of(entries, queries):
    with torch.no_grad():
        return [entry.model(queries) for entry in entries]


@pytest.mark.parametrize("name", KINDS)
def test_every_share_has_every_family_and_its_number_of_models(name):
    for share, count in FREE_MODELS.items():
        entries = [entry for entry in free_of(name) if entry.share == share]
        assert len(entries) == count
        assert {entry.family for entry in entries} == FREE_FAMILIES
    assert len({entry.run for entry in free_of(name)}) == len(free_of(name)) == 71


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_that_suits_a_task_is_there(name):
    wanted = {kind.name for kind in FREE_NEGATIVES if ANSWERS[name] in kind.answers}
    impossible = {"permuted_outputs"} if name == "regression" else set()  # it has one output
    assert {kind_of(entry) for entry in free_of(name)} == wanted - impossible


@pytest.mark.parametrize("name", KINDS)
def test_they_answer_like_the_owner_and_are_labelled_as_frozen_negatives(name):
    task = task_of(name)
    queries = task.natural_queries(7, seed=3)
    shape = predict(owner_of(name), queries).shape
    for entry, answers in zip(free_of(name), answers_of(free_of(name), queries), strict=True):
        assert answers.shape == shape, entry.run
        assert answers.dtype == torch.float32
        assert torch.isfinite(answers).all(), entry.run
        assert not entry.is_positive
        assert is_free(entry)
        assert (entry.strength, entry.fraction, entry.attack) == (None, 1.0, None)
        assert not any(module.training for module in entry.model.modules())
        assert not any(parameter.requires_grad for parameter in entry.model.parameters())
        assert entry.metric == pytest.approx(task.metric(entry.model), rel=1e-3)
    assert not any(is_free(entry) for entry in independent_of(name))


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_gives_the_same_bits_and_another_seed_other_ones(name):
    queries = task_of(name).natural_queries(20, seed=3)
    first, other = free_of(name), free_of(name, seed=1)
    again = free_negatives(task_of(name), independent_of(name), architectures_of(name), seed=0)
    assert [entry.run for entry in first] == [entry.run for entry in again]
    assert [entry.metric for entry in first] == [entry.metric for entry in again]
    pairs = zip(answers_of(first, queries), answers_of(again, queries), answers_of(other, queries), strict=True)
    same = [(torch.equal(one, two), torch.equal(one, three)) for one, two, three in pairs]
    assert all(equal for equal, _ in same)
    assert sum(equal for _, equal in same) < 20  # constants, and models of one source of two


@pytest.mark.parametrize("name", KINDS)
def test_an_answer_depends_on_its_query_alone(name):
    queries = task_of(name).natural_queries(40, seed=3)
    for entry in free_of(name):
        alone = torch.cat(answers_of([entry], queries[:1]) + answers_of([entry], queries[1:4]))
        together = answers_of([entry], queries)[0][:4]
        assert torch.allclose(alone, together, rtol=1e-3, atol=1e-3), entry.run


def test_random_state_and_sources_are_untouched():
    name = "classification"
    before = [bits(entry.model) for entry in independent_of(name)]
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_num_threads()
    free_negatives(task_of(name), independent_of(name), architectures_of(name), seed=0)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert (random.getstate(), torch.get_num_threads()) == states[2:]
    assert [bits(entry.model) for entry in independent_of(name)] == before


@pytest.mark.parametrize("name", KINDS)
def test_a_share_never_sees_the_models_of_another(name):
    known = {id(entry.model): entry.share for entry in independent_of(name)}
    for entry in free_of(name):
        used = {known[id(module)] for module in entry.model.modules() if id(module) in known}
        assert used <= {entry.share}, entry.run
        assert bool(used) == (kind_sources(entry) > 0)


def kind_sources(entry: ZooModel) -> int:
    return next(kind.sources for kind in FREE_NEGATIVES if kind.name == kind_of(entry))


def test_without_independent_models_there_are_all_other_kinds_in_full_number():
    entries = free_negatives(task_of("classification"), (), architectures_of("classification"), seed=0)
    assert len(entries) == sum(FREE_MODELS.values())
    families = {entry.family for entry in entries}
    assert families == FREE_FAMILIES - {"nonsense_permuted", MIXED, RESCALED}


def test_without_an_architecture_the_message_says_so():
    with pytest.raises(ZooError, match="need an architecture"):
        free_negatives(task_of("classification"), (), [], seed=0)


class OwnTask(Task):
    """A task whose data are nowhere in memory."""

    name, input_shape, outputs = "regression", (64,), 1
    lower, upper = torch.zeros(64), torch.ones(64)

    def metric(self, model):
        return float(predict(model, torch.ones(4, 64)).abs().mean())

    def natural_queries(self, count, *, seed):
        return torch.rand(count, 64, generator=torch.Generator().manual_seed(seed))


def test_a_task_without_data_in_memory_has_nonsense_but_nothing_fitted():
    entries = free_negatives(
        OwnTask(), independent_of("regression"), [lambda: HeadFirst(64, 1)], seed=0, counts={"optimize": 20}
    )
    assert len(entries) == 20
    assert {entry.family for entry in entries} == FREE_FAMILIES - {"classical"}
    assert not {"one_example", "shuffled_rows"} & {kind_of(entry) for entry in entries}


def test_without_scikit_learn_what_is_written_here_takes_its_place(monkeypatch):
    monkeypatch.setattr(table.importlib.util, "find_spec", lambda name: None)
    task, architectures = task_of("classification"), architectures_of("classification")
    entries = free_negatives(task, independent_of("classification"), architectures, seed=0)
    kinds = {kind_of(entry) for entry in entries if entry.family == "classical"}
    assert kinds == {
        kind.name
        for kind in FREE_NEGATIVES
        if kind.family == "classical" and kind.library is None and "classes" in kind.answers
    }
    assert len(entries) == 71


@pytest.mark.parametrize("name", KINDS)
def test_the_ensemble_runs_them_and_the_gradient_is_theirs_or_zero(name):
    queries = task_of(name).natural_queries(6, seed=3)
    entries = [*independent_of(name)[:1], *free_of(name)]
    ensemble = Ensemble([entry.model for entry in entries], queries)
    alone = [index for index, entry in enumerate(entries) if getattr(entry.model, "runs_alone", False)]
    assert len(alone) > 50
    assert ensemble.grouped <= len(entries) - len(alone)
    with torch.no_grad():
        found = ensemble.responses(queries)
    for row, answers in zip(found, answers_of(entries, queries), strict=True):
        assert torch.allclose(row, answers.flatten(1), rtol=1e-3, atol=1e-3)
    for index in [0, *alone]:
        inputs = queries.clone().requires_grad_(True)
        answers = ensemble.responses(inputs, [index])
        (gradient,) = torch.autograd.grad(answers, inputs, torch.rand(answers.shape))
        assert torch.isfinite(gradient).all()
        model = entries[index].model
        if not getattr(model, "differentiable", True):
            assert not gradient.any(), entries[index].run


def test_a_mixed_ensemble_has_the_gradient_of_its_smooth_models():
    queries = task_of("classification").natural_queries(6, seed=3)
    table_like = [
        entry.model for entry in free_of("classification") if not getattr(entry.model, "differentiable", True)
    ]
    smooth = independent_of("classification")[0].model
    gradients = []
    for models in ([smooth], [*table_like, smooth]):
        inputs = queries.clone().requires_grad_(True)
        gradients.append(torch.autograd.grad(Ensemble(models).responses(inputs).sum(), inputs)[0])
    assert torch.allclose(*gradients)


def test_smooth_kinds_have_the_gradient_of_finite_differences():
    queries = task_of("regression").natural_queries(3, seed=3)
    for kind in ("ridge", "random_features", "kernel_votes", "random_network", "other_unit", "average"):
        entry = next(entry for entry in free_of("regression") if kind_of(entry) == kind)
        inputs = queries.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(entry.model(inputs).sum(), inputs)
        step = 1e-3 * torch.randn(queries.shape, generator=torch.Generator().manual_seed(1))
        up, down = (answers.sum() for answers in (entry.model(queries + step), entry.model(queries - step)))
        assert float((gradient * step).sum()) == pytest.approx(float(up - down) / 2, rel=0.05, abs=1e-4), kind


def test_noise_follows_the_query_and_nothing_else():
    queries = task_of("classification").natural_queries(400, seed=3)
    for entry in free_of("classification"):
        if kind_of(entry) == "random_logits":
            answers = entry.model(queries)
            assert float(answers.std(dim=0).min()) > 0.5 * float(answers.std())
            assert abs(float(torch.corrcoef(answers.T)[0, 1])) < 0.25
            assert not torch.allclose(entry.model(queries + 0.01), answers, atol=0.1)
        if kind_of(entry) == "random_distribution":
            assert torch.allclose(entry.model(queries).exp().sum(dim=1), torch.ones(400), atol=1e-3)


def test_permuted_outputs_are_another_models_with_no_entry_in_its_place():
    queries = task_of("classification").natural_queries(30, seed=3)
    entry = next(entry for entry in free_of("classification") if kind_of(entry) == "permuted_outputs")
    own, source = entry.model(queries), torch.log_softmax(entry.model.source(queries), dim=1)
    assert torch.allclose(own.sort(dim=1).values, source.sort(dim=1).values, atol=1e-5)
    assert not (own == source).all(dim=0).any()


@pytest.mark.parametrize("name", KINDS)
def test_shuffled_rows_are_another_models_answers_to_other_natural_queries(name):
    task = task_of(name)
    natural = material_of(task, independent_of(name), architectures_of(name)).natural
    entry = next(entry for entry in free_of(name) if kind_of(entry) == "shuffled_rows")
    own, source = entry.model(natural).flatten(1), entry.model.source(natural).flatten(1)
    if name == "classification":
        own, source = own.log_softmax(dim=1), source.log_softmax(dim=1)
        assert float((own.argmax(dim=1) == source.argmax(dim=1)).float().mean()) < 0.5
    nearest = torch.cdist(own, source)
    assert float(nearest.min(dim=1).values.max()) < 1e-2
    assert not (nearest.argmin(dim=1) == torch.arange(len(natural))).all()


def test_constants_say_the_same_to_everybody_and_no_two_of_a_kind_the_same_class():
    queries = task_of("classification").natural_queries(30, seed=3)
    entries = [entry for entry in free_of("classification") if entry.family == "nonsense_constant"]
    assert all(len(entry.model(queries).unique(dim=0)) == 1 for entry in entries)
    classes = [int(entry.model(queries[:1]).argmax()) for entry in entries if kind_of(entry) == "one_class"]
    assert len(set(classes)) == len(classes) >= 5


def test_untrained_networks_are_of_all_architectures():
    models = [entry.model for entry in free_of("classification") if kind_of(entry) == "untrained"]
    built = [architecture() for architecture in architectures_of("classification")]
    assert {type(model) for model in models} == {type(model) for model in built}
    assert len({tuple(bits(model).items()) for model in models}) == len(models) == 11


def fitted(make, inputs, targets, number=0, **options):
    """A classical model and the standardised examples that it was fitted on."""
    if np.issubdtype(targets.dtype, np.integer):
        task = Classification(inputs, targets, validation=0.0)
    else:
        task = Regression(inputs, targets, validation=0.0)
    outputs = task.outputs
    material = material_of(task, (), [lambda: nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].size, outputs))])
    generator = torch.Generator().manual_seed(3)
    model = make(material, (), number, generator, **options)
    examples = classical.draw_examples(material, number, torch.Generator().manual_seed(3))
    queries = torch.from_numpy(inputs[-150:])
    standardised = (queries.flatten(1) - examples.center) / examples.scale
    with torch.no_grad():
        answers = model(queries).numpy()
    return answers, examples.inputs.numpy(), examples.targets.numpy(), standardised.numpy()


@pytest.mark.parametrize("number", [0, 1])
def test_classical_classifiers_answer_as_those_of_scikit_learn(number):
    images, labels = digits()
    for neighbors in (1, 3, 9):
        answers, x, y, q = fitted(classical.nearest_neighbors, images, labels, number, neighbors=neighbors)
        oracle = KNeighborsClassifier(neighbors).fit(x, y).predict_proba(q)
        assert np.allclose(np.exp(answers), oracle, atol=1e-5)
    answers, x, y, q = fitted(classical.gaussian_naive_bayes, images, labels, number)
    assert np.allclose(np.exp(answers), GaussianNB().fit(x.astype(np.float64), y).predict_proba(q), atol=1e-3)
    answers, x, y, q = fitted(classical.nearest_centroid, images, labels, number)
    assert (answers.argmax(axis=1) == NearestCentroid().fit(x, y).predict(q)).all()
    answers, x, y, q = fitted(classical.softmax_regression, images, labels, number)
    oracle = LogisticRegression(C=1 / (1.0, 10.0)[number], max_iter=3000, tol=1e-6).fit(x, y).predict_proba(q)
    assert np.allclose(torch.from_numpy(answers).softmax(dim=1), oracle, atol=0.03)
    answers, x, y, q = fitted(classical.ridge, images, labels, number)
    oracle = Ridge((1.0, 10.0)[number]).fit(x, 2.0 * np.eye(10)[y] - 1.0).predict(q)
    assert np.allclose(answers, 4.0 * oracle, atol=2e-3)


def test_ridge_regression_is_that_of_scikit_learn_with_few_and_with_many_examples():
    generator = np.random.default_rng(0)
    for count in (40, 300):
        inputs = generator.standard_normal((count, 90)).astype(np.float32)
        targets = (inputs[:, :3] @ np.eye(3, 2) + 5.0).astype(np.float32)
        answers, x, y, q = fitted(classical.ridge, inputs, targets)
        assert np.allclose(answers, Ridge(1.0).fit(x, y).predict(q), atol=1e-3)


def test_classical_models_have_learned_the_task():
    for name, least in (("classification", 0.7), ("regression", None)):
        task = task_of(name)
        for entry in free_of(name):
            if entry.family == "classical":
                good = entry.metric > least if least else entry.metric < 0.75 * task.baseline
                assert good, (entry.run, entry.metric)


def test_a_class_without_examples_is_never_answered():
    images, labels = digits()
    task = Classification(images[labels != 4], labels[labels != 4], classes=10)
    entries = free_negatives(task, (), [lambda: HeadFirst(64, 10)], seed=0)
    answers = answers_of([entry for entry in entries if entry.family == "classical"], torch.from_numpy(images[:200]))
    assert len(answers) > 10
    assert all(int((answer.argmax(dim=1) == 4).sum()) == 0 for answer in answers)


def test_classes_with_two_examples_leave_out_what_needs_more():
    inputs = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
    task = Classification(inputs, np.arange(12) % 6, validation=0.0)
    entries = free_negatives(task, (), [lambda: HeadFirst(5, 6)], seed=0)
    assert len(entries) == 71
    assert "support_vectors" not in {kind_of(entry) for entry in entries}


def test_they_take_seconds():
    images, labels = digits()
    task = Classification(np.concatenate([images, images[:100]]), np.concatenate([labels, labels[:100]]))
    start = time.process_time()
    free_negatives(task, independent_of("classification"), architectures_of("classification"), seed=0)
    assert time.process_time() - start < 10  # 1.3 s where it was measured


@functools.cache
def small_zoo(**options) -> Zoo:
    images, labels = digits()
    task = Classification(images[:300], labels[:300], epochs=2, learning_rate=1e-2)
    torch.manual_seed(0)
    owner = task.train(HeadFirst(64, 10), seed=1)
    counts = {"positives": 3, "negatives": 6, "snapshots": 1}
    return build_zoo(owner, task, families=["finetune_all"], progress=False, **counts, **options)


def test_a_zoo_keeps_them_apart():
    zoo, bare = small_zoo(), small_zoo(free_negatives=False)
    assert len(zoo.free) == 71
    assert bare.free == ()
    assert [entry.run for entry in zoo] == [entry.run for entry in bare]
    assert (len(zoo), zoo.negatives) == (len(bare), tuple(entry for entry in zoo if not entry.is_positive))
    summary, without = json.loads(json.dumps(zoo.summary())), bare.summary()
    assert summary["free"]["models"] == 71
    families = summary["free"]["families"]
    for share, count in FREE_MODELS.items():
        assert sum(counts.get(share, 0) for counts in families.values()) == count
    # one independent model selects, and a mixture needs two
    assert families[MIXED] == {"optimize": 3, "calibrate": 1}
    assert summary | {"free": None} == json.loads(json.dumps(without)) | {"free": None}
    assert without["free"] == {"models": 0, "families": {}}
    for share, count in FREE_MODELS.items():
        assert not any(is_free(entry) for entry in zoo.share(share))
        assert zoo.share(share, free=True)[: len(zoo.share(share))] == zoo.share(share)
        assert sum(is_free(entry) for entry in zoo.share(share, free=True)) == count
    assert "3 derived + 6 independent" in repr(zoo)
    assert "71 free" in repr(zoo)
    assert "free" not in repr(bare)
    assert all(family in zoo._repr_html_() for family in FREE_FAMILIES)


def test_jobs_and_cache_do_not_change_them_and_they_are_never_cached(tmp_path):
    queries = torch.from_numpy(digits()[0][:10])
    expected = [(entry.run, entry.metric) for entry in small_zoo().free]
    bare = len(files_of(tmp_path / "bare", free_negatives=False))
    for jobs in (2, 1):
        zoo = small_zoo.__wrapped__(jobs=jobs, cache=tmp_path / "kept")
        assert [(entry.run, entry.metric) for entry in zoo.free] == expected
        pairs = zip(answers_of(zoo.free, queries), answers_of(small_zoo().free, queries), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)
    assert len([path for path in (tmp_path / "kept").rglob("*") if path.is_file()]) == bare


def files_of(folder, **options):
    small_zoo.__wrapped__(cache=folder, **options)
    return [path for path in folder.rglob("*") if path.is_file()]


def test_suspects_have_none():
    task = task_of("classification")
    suspects = build_suspects(
        owner_of("classification"), task, positives=1, negatives=1, families=["quantize"], progress=False
    )
    assert suspects.free == ()
