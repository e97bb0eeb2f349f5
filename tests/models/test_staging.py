"""Copies between host and CUDA: as few as there can be, through pinned memory, and no wait that nobody needs.

Without a GPU a device is imitated (`imitated_cuda`): the numbers are real, and all copies are counted.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from imitated_cuda import Copies, OnCuda, copies
from small_fingerprints import small_options, small_owner, small_task, small_zoo
from small_models import Generator, HeadFirst, ResidualCNN, task_of
from torch import Tensor, nn

import metav
from metav.models import staging, training
from metav.models.ensembles import Ensemble
from metav.models.read_models import class_log_probabilities
from metav.models.running import predict
from metav.models.staging import HOST, MOST_STAGED, on_device
from metav.models.training import TrainingOptions, fit, shuffled_batches
from metav.obfuscations.registry import OBFUSCATIONS
from metav.optimization.joint_optimization import JointOptimization
from metav.optimization.options import OptimizationOptions
from metav.optimization.settings import resolve_settings
from metav.optimization.shares import ask_models
from metav.support.arithmetic import fixed_arithmetic
from metav.tasks.classification import Classification
from metav.zoo.zoo import Zoo

__all__ = ["copies"]


@pytest.fixture(scope="module", autouse=True)
def made_before() -> None:
    """The zoo is trained where it is asked for the first time: on the host."""
    small_zoo()


needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device; copies were counted on an imitated one"
)
CUDA = torch.device("cuda", 0)


def joint(sampled: int, owner: nn.Module | None = None, zoo: Zoo | None = None) -> JointOptimization:
    """A joint optimisation of five queries on the small zoo."""
    owner, zoo = owner or small_owner(), zoo or small_zoo()
    options = OptimizationOptions(queries=5, sampled=sampled, adaptive=1.0, steps=6)
    settings = resolve_settings(options, small_task(), zoo)
    start = small_task().natural_queries(5, seed=2).numpy()
    return JointOptimization(owner, small_task(), zoo, start, settings=settings, seed=1)


def test_a_tensor_that_is_there_is_not_copied():
    values = torch.rand(3)
    assert on_device(values, HOST) is values


def test_values_and_gradients_cross_unchanged(copies: Copies):
    values = torch.rand(4, 3, requires_grad=True)
    there = on_device(values, CUDA)
    assert isinstance(there, OnCuda)
    assert on_device(there, CUDA) is there
    back = on_device(there * 2.0, HOST)
    assert not isinstance(back, OnCuda)
    (gradient,) = torch.autograd.grad(back.square().sum(), values)
    assert torch.equal(gradient.as_subclass(Tensor), 8.0 * values.detach())
    assert copies == Copies(to_cuda=[(4, 3), (4, 3)], to_host=[(4, 3)], waits=1)


def test_what_is_large_is_not_kept_in_pinned_memory(copies: Copies):
    large = torch.zeros(1).expand(MOST_STAGED)
    on_device(large.to(torch.uint8), CUDA)
    on_device(torch.zeros(MOST_STAGED // 4 + 1), CUDA)
    assert (copies.to_cuda, copies.unstaged) == ([(MOST_STAGED,)], ["to cuda"])


@pytest.mark.parametrize("sampled", [2, 5])
def test_a_step_copies_each_way_twice_whatever_the_number_of_models(sampled: int, monkeypatch, copies: Copies):
    optimization = joint(sampled)
    returned: list[torch.device] = []
    monkeypatch.setattr(
        "metav.models.staging.on_device", lambda values, device: returned.append(device) or on_device(values, device)
    )
    for name in ("to_cuda", "to_host", "unstaged"):
        getattr(copies, name).clear()
    copies.waits = 0
    optimization._step()
    places = [shape for shape in copies.to_cuda if len(shape) == 1]
    assert len(places) <= 1  # which models of a group are asked
    assert [shape for shape in copies.to_cuda if shape not in places] == [(5, 1, 8, 8), (2 * sampled + 1, 5, 10)]
    assert copies.to_host == [(2 * sampled + 1, 5, 10)]
    assert returned == [CUDA, HOST]  # the gradient goes in, and comes out at the queries
    # autograd hands gradients out as plain tensors, so that the imitation does not see the wait for that of the queries
    assert (copies.unstaged, copies.waits) == ([], 1)


def test_an_optimisation_on_a_device_finds_what_it_finds_without(copies: Copies):
    with fixed_arithmetic():
        there, _, _ = joint(3).run(False)
    assert copies.to_host
    with pytest.MonkeyPatch.context() as patch:
        for module in ("running", "ensembles"):
            patch.setattr(f"metav.models.{module}.device_of", lambda model: HOST)
        with fixed_arithmetic():
            here, _, _ = joint(3).run(False)
    assert np.array_equal(here, there)


def test_queries_go_to_many_models_once(copies: Copies):
    models = [entry.model for entry in small_zoo()][:6]
    ask_models(models, small_task().natural_queries(7, seed=1).numpy())
    assert copies.to_cuda == [(7, 1, 8, 8)]
    assert copies.to_host == [(7, 10)] * 6
    Ensemble(models).responses(small_task().natural_queries(7, seed=1))
    assert copies.to_host[6:] == [(6, 7, 10)]
    assert copies.unstaged == []


def test_models_on_several_devices_answer_in_the_order_in_which_they_are_asked(monkeypatch, copies: Copies):
    models = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(5)]
    queries = torch.rand(2, 4)
    expected = torch.stack([model(queries) for model in models])
    monkeypatch.setattr(
        "metav.models.ensembles.device_of", lambda model: CUDA if model[1].bias[0] > models[0][1].bias[0] else HOST
    )
    ensemble = Ensemble(models)
    for order in ([0, 1, 2, 3, 4], [4, 2, 0]):
        assert torch.allclose(ensemble.responses(queries, order), expected[order])
    assert all(shape[1:] == (2, 3) and shape[0] < 5 for shape in copies.to_host)


@pytest.mark.parametrize("epochs", [1, 3])
def test_training_moves_the_order_of_each_epoch_and_waits_once_for_its_loss(epochs: int, copies: Copies):
    model, rows = nn.Linear(6, 2), torch.rand(50, 6).as_subclass(OnCuda)
    options = TrainingOptions(epochs=epochs, batch_size=10, learning_rate=0.01)
    seen = []

    def batch_loss(indices: Tensor) -> Tensor:
        seen.append(type(indices))
        return model(rows[indices]).square().mean()

    fit(model, batch_loss, count=50, options=options, seed=1, parameters=list(model.parameters()))
    assert seen == [OnCuda] * 5 * epochs
    assert copies == Copies(to_cuda=[(50,)] * epochs, unstaged=["__bool__"] * epochs)


def crossings(family: str, name: str, steps: int, copies: Copies, **options) -> tuple[object, ...]:
    """What crosses to the host while a model is made in so many steps per epoch, and how often the host waits."""
    task = task_of(name)
    small = task.with_data(task.examples[:128], None if task.targets is None else task.targets[:128])
    count = len(small.training_indices)
    small = small._with_options(replace(small.options, epochs=2.0, batch_size=count // steps, **options))
    model = {"classification": ResidualCNN, "generation": Generator}.get(name, lambda: HeadFirst(64, 1))()
    copies.to_host.clear(), copies.unstaged.clear()
    copies.waits = 0
    OBFUSCATIONS[family].function(model, small, strength=0.5, seed=3)
    return sorted(copies.to_host), sorted(copies.unstaged), copies.waits


@pytest.mark.parametrize(
    ("family", "name", "options"),
    [
        ("finetune_all", "classification", {}),
        ("finetune_all", "classification", {"augmentation": "shift"}),
        ("finetune_last", "regression", {"augmentation": "noise"}),
        ("distill_same", "classification", {"augmentation": "noise"}),
        ("extract_labels", "classification", {"augmentation": "shift"}),
        ("adversarial_train", "regression", {}),
        ("finetune_all", "generation", {}),
        ("distill_same", "generation", {}),
    ],
)
def test_no_step_of_a_training_makes_the_host_wait(family: str, name: str, options: dict, copies: Copies):
    few, many = (crossings(family, name, steps, copies, **options) for steps in (2, 6))
    assert few == many


def test_what_a_teacher_tells_a_student_stays_on_the_device(copies: Copies):
    teacher = nn.Linear(6, 2)
    answers = predict(teacher, torch.rand(4, 6).as_subclass(OnCuda), device=CUDA)
    assert isinstance(answers, OnCuda)
    assert copies == Copies()


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.usefixtures("copies")
def test_what_answers_are_is_told_on_a_device_as_on_the_host(kind: str):
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    scores = (scores.softmax(dim=1) if kind == "probabilities" else scores).requires_grad_(True)
    found = []
    for given in (scores, scores.as_subclass(OnCuda)):
        logs = class_log_probabilities(given)
        (gradient,) = torch.autograd.grad(logs[:, 1].sum(), scores)
        found.append((logs.detach().as_subclass(Tensor), gradient.as_subclass(Tensor)))
    assert all(map(torch.equal, *found))


def test_batches_are_the_same_wherever_they_lie(copies: Copies):
    here, there = (shuffled_batches(21, 5, torch.Generator().manual_seed(3), device) for device in (HOST, CUDA))
    assert [batch.tolist() for batch in here] == [batch.as_subclass(Tensor).tolist() for batch in there]
    assert [len(batch) for batch in here] == [5, 5, 5, 5]


@contextlib.contextmanager
def waiting_forbidden():
    """Run the body so that PyTorch raises an error where the host waits for the device without having said so."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@needs_cuda
def test_on_cuda_copies_arrive_whole_and_so_do_gradients():
    values = torch.rand(300, 500, requires_grad=True)
    there = on_device(values, CUDA)
    assert there.device == CUDA
    back = on_device(there * 2.0, HOST)
    assert back.is_pinned()
    assert torch.equal(back, 2.0 * values)
    (gradient,) = torch.autograd.grad(back.square().sum(), values)
    assert torch.equal(gradient, 8.0 * values.detach())


@needs_cuda
def test_on_cuda_a_step_waits_for_responses_and_gradient_alone(monkeypatch):
    models = [replace(item, model=copy.deepcopy(item.model).cuda()) for item in small_zoo().models]
    optimization = joint(3, owner=copy.deepcopy(small_owner()).cuda(), zoo=replace(small_zoo(), models=tuple(models)))
    waits, waited = [], staging._wait_for
    monkeypatch.setattr(staging, "_wait_for", lambda device: waits.append(device) or waited(device))
    optimization._step()
    waits.clear()
    with waiting_forbidden():
        optimization._step()
    assert waits == [CUDA, CUDA]
    assert {next(model.parameters()).device for model in optimization.ensemble.models} == {CUDA}


@needs_cuda
@pytest.mark.parametrize("autocast", [None, "bfloat16"])
def test_on_cuda_steps_of_a_training_wait_for_nothing(autocast: str | None, monkeypatch):
    task, plain, checked = task_of("classification").with_epochs(2.0), Classification.loss, training.check_finite
    steps = []

    def loss(self: Classification, outputs: Tensor, targets: Tensor) -> Tensor:
        steps.append(len(targets))
        torch.cuda.set_sync_debug_mode("error")  # once the data of an epoch are there, until its loss is looked at
        return plain(self, outputs, targets)

    def check_finite(*arguments) -> None:
        torch.cuda.set_sync_debug_mode("default")
        checked(*arguments)

    monkeypatch.setattr(Classification, "loss", loss)
    monkeypatch.setattr(training, "check_finite", check_finite)
    try:
        (task if autocast is None else task.with_autocast(autocast)).train(ResidualCNN().cuda(), seed=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(steps) > 10


@needs_cuda
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_on_cuda_a_fingerprint_is_made_and_the_models_stay_there():
    owner, task = copy.deepcopy(small_owner()).cuda(), small_task()
    zoo = metav.build_zoo(owner, task, positives=14, negatives=8, snapshots=0, progress=False, autocast="bfloat16")
    assert {next(entry.model.parameters()).device for entry in zoo} == {CUDA}
    fp = metav.fingerprint(owner, task, zoo=zoo, options=small_options(), progress=False)
    assert fp.check["owner_matches"]
    assert next(owner.parameters()).device == CUDA
    here, there = (metav.verify(fp, suspect) for suspect in (small_owner(), owner))
    assert here.score == pytest.approx(there.score, abs=0.05)
