"""The attacks of the test suspects: each does what its paper says, and leaves the given model alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from small_models import HeadFirst, ResidualCNN, bits, digits, owner_of, task_of
from torch import Tensor, nn

from metav.errors import InputError, MetavError, ObfuscationError
from metav.experiments.attacks.extraction import double_distill, jbda, knockoff
from metav.experiments.attacks.neuron_channels import channel_groups
from metav.experiments.attacks.registry import ATTACKS, STACKS, stacked, supported_stacks
from metav.experiments.attacks.removal import fine_prune, removal_net, unlearn_fingerprint
from metav.experiments.attacks.structure import (
    MappedLatent,
    permute_latent,
    permute_neurons,
    rescale_neurons,
    rotate_latent,
)
from metav.experiments.scenarios.architectures import digits as digits_architectures
from metav.experiments.scenarios.architectures import fashion as fashion_architectures
from metav.experiments.scenarios.architectures import warfarin as warfarin_architectures
from metav.models.running import predict
from metav.obfuscations.registry import OBFUSCATIONS
from metav.support.randomness import isolated_rng
from metav.tasks.classification import Classification
from metav.tasks.data_variations import varied
from metav.tasks.generation import Generation
from metav.zoo.architectures import plain_architectures

TASKS = ("classification", "regression", "generation")
CASES = [
    pytest.param(name, family, id=f"{name}-{family}")
    for name in TASKS
    for family, entry in ATTACKS.items()
    if entry.supports(task_of(name)) and entry.own_architecture
]


def needs(name: str, family: str) -> dict[str, object]:
    """What an attack needs besides model and task."""
    entry, options = ATTACKS[family], {}
    if entry.needs_other and name != "generation":
        options["other"] = varied(task_of(name), 5)
    if entry.needs_queries:
        options["queries"] = leaked(name)
    return options


def leaked(name: str) -> Tensor:
    """Queries that look like no natural input, as optimised ones do."""
    task, generator = task_of(name), torch.Generator().manual_seed(2)
    return task.lower + (task.upper - task.lower) * torch.rand(20, *task.input_shape, generator=generator)


def agreement(model: nn.Module, owner: nn.Module, task: Classification) -> float:
    inputs = task.examples[task.validation_indices]
    return float((predict(model, inputs).argmax(1) == predict(owner, inputs).argmax(1)).float().mean())


def randomized(model: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own, as after training."""
    generator = torch.Generator().manual_seed(9)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize(("name", "family"), CASES)
def test_every_attack_gives_a_new_useful_model_and_leaves_the_given_one(name, family):
    task, owner = task_of(name), copy.deepcopy(owner_of(name))
    owner.train()
    next(owner.parameters()).requires_grad_(False)
    before, flags = bits(owner), [parameter.requires_grad for parameter in owner.parameters()]
    options = needs(name, family)
    torch.manual_seed(3)
    state = torch.get_rng_state()

    model = ATTACKS[family].function(owner, task, strength=0.5, seed=4, **options)

    assert torch.equal(torch.get_rng_state(), state)
    assert bits(owner) == before
    assert [parameter.requires_grad for parameter in owner.parameters()] == flags
    assert all(module.training for module in owner.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(module.training for module in model.modules())
    assert not {id(tensor) for tensor in model.parameters()} & {id(tensor) for tensor in owner.parameters()}
    assert bits(model) != before
    halfway = 0.5 * (task.baseline + task.metric(owner))
    assert (task.metric(model) > halfway) if task.higher_is_better else (task.metric(model) < halfway)


@pytest.mark.parametrize("family", [family for family, entry in ATTACKS.items() if entry.own_architecture])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(family):
    name = "generation" if family.endswith("_latent") else "classification"
    task, options = task_of(name).subset(range(150)), needs(name, family)
    first, again, other = (
        bits(ATTACKS[family].function(owner_of(name), task, strength=0.3, seed=seed, **options)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("family", "name"),
    [(family, name) for name in TASKS for family, entry in ATTACKS.items() if not entry.supports(task_of(name))],
)
def test_attacks_that_make_no_sense_say_so(family, name):
    with pytest.raises(ObfuscationError, match=r"needs|makes"):
        ATTACKS[family].function(owner_of(name), task_of(name), strength=0.5, seed=0)


@pytest.mark.parametrize("family", list(ATTACKS))
def test_strength_outside_its_range_is_refused(family):
    name = "generation" if family.endswith("_latent") else "classification"
    with pytest.raises(InputError, match=r"strength must lie in \(0, 1\]"):
        ATTACKS[family].function(owner_of(name), task_of(name), strength=1.5, seed=0, **needs(name, family))


# Structure: the oracle is the model itself, in double precision.

FREE = {
    "digits_cnn": [16, 32, 64],
    "digits_residual": [16, 16],
    "digits_depthwise": [16, 32, 32],
    "digits_mixer": [64, 64],
    "warfarin_normed_mlp": [56, 56],
    "warfarin_residual": [48, 48],
    "fashion_dcgan": [128, 32, 16],
    "fashion_pixel_shuffle": [112, 16, 12],
}


def architecture_of(name: str) -> Callable[[], nn.Module]:
    homes = (digits_architectures, warfarin_architectures, fashion_architectures)
    return next(getattr(home, name) for home in homes if hasattr(home, name))


def inputs_of(name: str) -> tuple[Tensor, object]:
    shape = {"digits": (1, 8, 8), "warfarin": (24,), "fashion": (16,)}[name.split("_")[0]]
    inputs = torch.rand(20, *shape, generator=torch.Generator().manual_seed(0))
    return inputs, Generation(torch.rand(30, 4), latent=shape)


@pytest.mark.parametrize("name", FREE)
def test_permuted_units_give_the_same_answers_from_other_weights_in_every_layer(name):
    with isolated_rng(1):
        model = randomized(architecture_of(name)())
    inputs, task = inputs_of(name)
    assert [group.size for group in channel_groups(model, inputs)] == FREE[name]
    changed = permute_neurons(model, task, strength=1.0, seed=2)
    old, new = copy.deepcopy(model).double()(inputs.double()), copy.deepcopy(changed).double()(inputs.double())
    assert torch.allclose(old, new, rtol=0.0, atol=1e-12)
    weights = dict(model.named_parameters())
    moved = [key for key, value in changed.named_parameters() if not torch.equal(value, weights[key])]
    assert len(moved) >= 2 * len(FREE[name])
    for key, value in changed.named_parameters():
        assert torch.equal(value.flatten().sort().values, weights[key].flatten().sort().values)


@pytest.mark.parametrize(
    "name", ["digits_cnn", "digits_residual", "warfarin_normed_mlp", "warfarin_residual", "fashion_dcgan"]
)
def test_rescaled_relu_units_give_the_same_answers(name):
    with isolated_rng(1):
        model = randomized(architecture_of(name)())
    inputs, task = inputs_of(name)
    changed = rescale_neurons(model, task, strength=1.0, seed=2)
    old, new = copy.deepcopy(model).double()(inputs.double()), copy.deepcopy(changed).double()(inputs.double())
    # Each factor is rounded to single precision once, its inverse once more.
    assert torch.allclose(old, new, rtol=1e-6, atol=1e-6)
    weights = dict(model.named_parameters())
    ratios = [(value / weights[key]).detach() for key, value in changed.named_parameters()]
    scaled = [ratio for ratio in ratios if float(ratio.max() / ratio.min()) > 2.0]
    assert len(scaled) >= 2
    # A weight between two groups takes one factor of up to 4 as a writer and one as a reader.
    assert all(float(ratio.min()) > 1 / 16.1 and float(ratio.max()) < 16.1 for ratio in scaled)


def test_the_strength_is_the_share_of_units_that_move():
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))
    task = Generation(torch.rand(30, 3), latent=6)
    for strength in (0.25, 1.0):
        changed = permute_neurons(model, task, strength=strength, seed=0)
        same = (changed[0].weight == model[0].weight).all(dim=1)
        assert int((~same).sum()) == 40 * strength


class Twice(nn.Module):
    """Uses one layer twice, ties another's weight, and cannot be traced as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.tied = nn.Linear(6, 12)
        self.tied.weight = self.first.weight
        self.tail = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > 0:  # a stand-in has no length
            inputs = inputs + 0.0
        hidden = torch.relu(self.first(inputs) + self.tied(inputs))
        hidden = self.second(torch.relu(self.second(hidden)))
        return self.tail(self.last(hidden))


class Looped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.first(inputs))
        for _ in range(3):
            hidden = hidden + torch.tanh(self.again(hidden))
        return self.last(hidden)


class Uneven(nn.Module):
    """Adds 24 single units to 24 that another layer reads as 4 channels of 6."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.last = nn.Linear(6, 24), nn.Linear(6, 24), nn.Linear(24, 3)
        self.read = nn.Conv1d(4, 3, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.coarse(inputs).reshape(-1, 4, 6)
        return self.last(torch.relu(self.fine(inputs) + maps.flatten(1))) + self.read(maps).flatten(1)


@pytest.mark.parametrize(("build", "sizes"), [(Twice, [9]), (Looped, [12]), (Uneven, [4])])
def test_layers_used_twice_or_sharing_weights_or_channels_stay_exact(build, sizes):
    with isolated_rng(3):
        model = build().eval()
    task = Generation(torch.rand(30, 3), latent=6)
    assert [group.size for group in channel_groups(model, task.natural_queries(2, seed=0))] == sizes
    changed, queries = permute_neurons(model, task, strength=1.0, seed=0), task.natural_queries(20, seed=1)
    assert torch.allclose(changed(queries), model(queries), atol=1e-6)


def test_plain_networks_and_the_test_models_are_reached():
    for name in TASKS:
        task = task_of(name)
        for model in (owner_of(name), plain_architectures(owner_of(name), task)[1]()):
            assert channel_groups(model.eval(), task.natural_queries(2, seed=0))
    task = task_of("classification")
    groups = channel_groups(owner_of("classification"), task.natural_queries(2, seed=0))
    assert [group.size for group in groups] == [8]  # one residual stream of two convolutions
    with pytest.raises(ObfuscationError, match="finds no hidden unit"):
        permute_neurons(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), task, strength=0.5, seed=0)


@pytest.mark.parametrize("attack", [rotate_latent, permute_latent])
@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5)),
        lambda: nn.Sequential(nn.Unflatten(1, (6, 1, 1)), nn.ConvTranspose2d(6, 5, 2), nn.Flatten()),
        lambda: nn.Sequential(nn.Tanh(), nn.Linear(6, 5)),
    ],
    ids=["linear", "transposed", "wrapped"],
)
def test_another_latent_space_is_an_orthogonal_map_of_the_old_one(attack, build):
    with isolated_rng(0):
        model = build().eval()
    task = Generation(torch.rand(30, *model(torch.zeros(2, 6)).shape[1:]), latent=6)
    changed = attack(model, task, strength=0.9, seed=1)
    # The map is found from the outside: where the wrapper is not needed, from the first layer's weights.
    if isinstance(changed, MappedLatent):
        matrix = changed.matrix
    else:
        old, new = (next(iter(m.parameters())).detach() for m in (model, changed))
        old, new = (w.flatten(1) if w.ndim > 2 else w.T for w in (old, new))
        matrix = torch.linalg.lstsq(old.T, new.T).solution if old.shape[1] >= 6 else None
    assert matrix is not None
    assert torch.allclose(matrix @ matrix.T, torch.eye(6), atol=1e-5)
    latents = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(changed(latents), model(latents @ matrix.T), atol=1e-5)
    assert not torch.allclose(changed(latents), model(latents), atol=1e-2)
    if attack is permute_latent:
        assert sorted(matrix.round().flatten().tolist()) == [0.0] * 30 + [1.0] * 6


def test_a_rotated_generator_draws_as_good_samples():
    task, owner = task_of("generation"), owner_of("generation")
    for attack in (rotate_latent, permute_latent):
        changed = attack(owner, task, strength=1.0, seed=0)
        assert abs(task.metric(changed) - task.metric(owner)) < 0.15 * (task.baseline - task.metric(owner))


# Removal.


def test_removal_net_moves_the_features_but_keeps_the_accuracy():
    task, owner = task_of("classification"), owner_of("classification")
    model = removal_net(owner, task, strength=0.8, seed=0)
    assert task.metric(model) > task.metric(owner) - 0.05
    inputs = task.examples[task.validation_indices]

    def correlation(other: nn.Module) -> float:
        mine, its = (part.inner(torch.relu(part.norm(part.stem(inputs)))).flatten() for part in (owner, other))
        return float(torch.corrcoef(torch.stack([mine, its]))[0, 1])

    with torch.no_grad():
        kept = correlation(OBFUSCATIONS["finetune_all"].function(owner, task, strength=0.8, seed=0))
        assert correlation(model) < kept - 0.2


def test_fine_pruning_removes_the_channels_that_clean_inputs_leave_dormant():
    task, owner = task_of("classification"), copy.deepcopy(owner_of("classification"))
    # The activity of channel 3 is only read through the sum with the skip connection: silence both ways.
    with torch.no_grad():
        for norm in (owner.norm, owner.inner_norm):
            norm.weight[3], norm.bias[3] = 0.0, 0.0
    model = fine_prune(owner, task, strength=0.5, seed=0)
    gone = (model.inner.weight == 0).flatten(1).all(dim=1)
    assert int(gone.sum()) == 4
    assert bool(gone[3])
    assert bool((model.inner_norm.weight[gone] == 0).all())
    assert bool((model.inner_norm.bias[gone] == 0).all())
    kept = ~gone
    assert not torch.equal(model.inner.weight[kept], owner.inner.weight[kept])
    assert task.metric(model) > 0.8 * task.metric(owner)
    with pytest.raises(ObfuscationError, match="finds no hidden layer"):
        fine_prune(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), task, strength=0.5, seed=0)


@pytest.mark.parametrize("name", TASKS)
def test_unlearning_moves_the_answers_to_leaked_queries_but_not_the_task(name):
    task, owner, queries = task_of(name), owner_of(name), leaked(name)
    model = unlearn_fingerprint(owner, task, strength=0.9, seed=0, queries=queries)
    other = torch.Generator().manual_seed(8)
    fresh = task.lower + (task.upper - task.lower) * torch.rand(20, *task.input_shape, generator=other)

    def moved(inputs: Tensor) -> float:
        return float((predict(model, inputs) - predict(owner, inputs)).square().mean())

    if name == "classification":
        assert float((predict(model, queries).argmax(1) == predict(owner, queries).argmax(1)).float().mean()) < 0.3
        assert task.metric(model) > task.metric(owner) - 0.05
    else:
        natural = task.natural_queries(100, seed=1)
        assert moved(queries) > 2.0 * moved(natural if name == "regression" else fresh)
        gain = task.baseline - task.metric(owner)
        assert task.metric(model) < task.metric(owner) + 0.2 * gain


def test_unlearning_with_a_decoy_moves_the_answers_to_those_of_one_independent_model():
    task, owner, queries = task_of("classification"), owner_of("classification"), leaked("classification")
    # The thief's model for this is the one thing that is trained from scratch.
    trained: list[nn.Module] = []

    class Watched(Classification):
        def train(self, model: nn.Module, **options) -> nn.Module:
            trained.append(super().train(model, **options))
            return trained[-1]

    images, labels = digits()
    watched = Watched(images, labels, epochs=8, bounds=(0.0, 1.0), learning_rate=4e-3)
    model = unlearn_fingerprint(owner, watched, strength=1.0, seed=0, queries=queries, decoy=True)
    (independent,) = trained
    answers = [predict(part, queries).argmax(1) for part in (model, independent, owner)]
    assert float((answers[0] == answers[1]).float().mean()) > 0.7
    assert float((answers[1] == answers[2]).float().mean()) < 0.6
    assert task.metric(model) > task.metric(owner) - 0.05
    assert agreement(model, owner, task) > 0.9


def test_unlearning_refuses_queries_that_do_not_fit():
    task, owner = task_of("classification"), owner_of("classification")
    for queries in (torch.rand(5, 8, 8), torch.rand(1, 1, 8, 8)):
        with pytest.raises(InputError, match="queries must"):
            unlearn_fingerprint(owner, task, strength=0.5, seed=0, queries=queries)


# Extraction.


@pytest.mark.parametrize(
    "attack", ["jbda", "knockoff", "double_distill", "extract_labels_other", "extract_scores_other"]
)
def test_students_of_another_architecture_agree_with_the_model_far_above_chance(attack):
    task, owner = task_of("classification"), owner_of("classification")
    model = ATTACKS[attack].function(
        owner, task, strength=0.5, seed=1, architecture=lambda: HeadFirst(64, 10), **needs("classification", attack)
    )
    assert isinstance(model, HeadFirst)
    assert agreement(model, owner, task) > 0.7


def test_a_knockoff_asks_about_other_data_alone():
    task, owner = task_of("classification"), owner_of("classification")
    images, labels = digits()
    other = task.with_data(torch.from_numpy(1.0 - images[:300]), torch.from_numpy(labels[:300]))
    asked: list[Tensor] = []
    handle = owner.register_forward_pre_hook(lambda _, given: asked.append(given[0].clone()))
    try:
        knockoff(owner, task, strength=1.0, seed=0, other=other, architecture=lambda: HeadFirst(64, 10))
    finally:
        handle.remove()
    pool = {image.numpy().tobytes() for image in other.examples}
    seen = {image.numpy().tobytes() for batch in asked for image in batch}
    assert seen <= pool
    assert len(seen) <= 150
    with pytest.raises(InputError, match="other="):
        knockoff(owner, task, strength=0.5, seed=0)
    with pytest.raises(InputError, match="inputs of shape"):
        knockoff(owner, task, strength=0.5, seed=0, other=task_of("regression"))


def test_jacobian_augmentation_learns_from_labels_of_seeds_and_their_neighbours():
    task, owner = task_of("classification"), owner_of("classification")
    asked: list[Tensor] = []
    handle = owner.register_forward_pre_hook(lambda _, given: asked.append(given[0].clone()))
    try:
        model = jbda(owner, task, strength=1.0, seed=0, architecture=lambda: HeadFirst(64, 10))
    finally:
        handle.remove()
    natural = {image.numpy().tobytes() for image in task.examples}
    seen = {image.numpy().tobytes() for batch in asked for image in batch}
    assert len(seen & natural) == 75
    assert len(seen) > 75 * 8
    assert all(float(batch.min()) >= 0.0 and float(batch.max()) <= 1.0 for batch in asked)
    assert agreement(model, owner, task) > 0.5


def test_a_double_distillation_passes_through_the_class_between():
    task, owner = task_of("classification"), owner_of("classification")
    built = []

    def between() -> nn.Module:
        built.append(HeadFirst(64, 10))
        return built[-1]

    model = double_distill(owner, task, strength=0.5, seed=0, between=between)
    assert len(built) == 1
    assert isinstance(model, ResidualCNN)
    assert agreement(model, owner, task) > 0.8
    moved = (model.head.weight - owner.head.weight).detach().abs().mean() / owner.head.weight.detach().abs().mean()
    assert moved > 0.5


# Two obfuscations in a row.


def test_stacked_obfuscations_leave_the_marks_of_both():
    task, owner = task_of("classification"), owner_of("classification")
    model = stacked(owner, task, first="finetune_all", second="weight_prune", strength=0.5, seed=0)
    zeros = float((model.inner.weight == 0).float().mean())
    assert zeros == pytest.approx(0.3, abs=0.05)
    rest = model.inner.weight != 0
    assert not torch.equal(model.inner.weight[rest], owner.inner.weight[rest])
    assert task.metric(model) > 0.8 * task.metric(owner)


def test_stacks_name_obfuscations_and_pass_the_architecture_on():
    assert all(family in OBFUSCATIONS for pair in STACKS for family in pair)
    assert all(supported_stacks(task_of(name)) for name in TASKS)
    assert ("extract_labels", "finetune_all") not in supported_stacks(task_of("regression"))
    task, owner = task_of("classification"), owner_of("classification")
    model = stacked(
        owner,
        task,
        first="weight_prune",
        second="distill_other",
        strength=0.4,
        seed=0,
        architecture=lambda: HeadFirst(64, 10),
    )
    assert isinstance(model, HeadFirst)
    with pytest.raises(MetavError, match="is no ownership obfuscation"):
        stacked(owner, task, first="finetune_all", second="melt", strength=0.5, seed=0)
