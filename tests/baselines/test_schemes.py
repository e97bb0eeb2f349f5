"""The schemes that metav is compared with: each on cases whose answer is known without it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import reference
import torch
from scipy.spatial.distance import jensenshannon
from small_baselines import (
    MARGIN,
    SCHEMES,
    N,
    answers,
    fit,
    fitted,
    fresh,
    scores_of,
    softmax,
    zoo_of,
)
from small_fingerprints import small_owner, small_suspects, small_task, small_zoo
from small_models import task_of
from torch import Tensor, nn

from metav import _core
from metav.baselines import (
    AKH,
    DeepJudge,
    IPGuard,
    LiteGuard,
    MatchedFilter,
    OutputDistance,
    PublishedMetaV,
)
from metav.baselines.boundary import boundary_loss, conferrability
from metav.baselines.correlation import correlation, correlation_distance
from metav.baselines.hardness import lead_of_truth
from metav.baselines.inputs import cutmix, nearest_adversarial, projected_gradient
from metav.baselines.published import _Progress, fit_published
from metav.baselines.similarity import decision_distances, jensen_shannon
from metav.errors import InputError
from metav.suspects import CallableSuspect, RecordedSuspect, Suspect
from metav.tasks.classification import Classification
from metav.zoo.zoo import Zoo

# IPGuard --------------------------------------------------------------------------------------------------------------


def test_the_points_of_ipguard_lie_along_the_boundary() -> None:
    def gaps(queries: np.ndarray) -> np.ndarray:
        ordered = np.sort(answers(small_owner(), queries).double().numpy(), axis=1)
        return ordered[:, -1] - ordered[:, -2]

    found, natural = gaps(fitted("IPGuard").queries), gaps(small_task().natural_queries(N, seed=0).numpy())
    assert np.median(found) < 1.25 * MARGIN < np.median(natural) / 1.5
    assert found.max() < 4 * MARGIN


def test_a_point_that_arrived_is_led_by_its_target_by_the_margin() -> None:
    scheme, owner = IPGuard(margin=MARGIN), small_owner()
    start = small_task().natural_queries(N, seed=3)
    own = answers(owner, start.numpy()).argmax(1)
    pair = torch.stack([own, (own + 1) % 10])
    found = scheme._to_boundary(_Bounds(owner), start, pair)
    logits = answers(owner, found.numpy()).double().numpy()
    first, second = (logits[np.arange(N), row] for row in pair)
    arrived = (second - first >= MARGIN - 1e-4) & (logits.argmax(axis=1) == pair[1].numpy())
    assert arrived.mean() > 0.8
    assert np.median((second - first)[arrived]) == pytest.approx(MARGIN, abs=0.02)


class _Bounds:
    """What IPGuard's search needs of a context."""

    def __init__(self, owner: nn.Module) -> None:
        self.owner = copy.deepcopy(owner).requires_grad_(False)
        self.lower, self.upper = small_task().lower, small_task().upper


def test_the_loss_of_ipguard_is_that_of_its_paper() -> None:
    logits = torch.tensor([[4.0, 1.0, 3.0], [0.0, 2.0, -1.0], [0.0, 1.0, 2.5]])
    pair = torch.tensor([[0, 0, 0], [1, 1, 1]])
    # relu(4 - 1 + 1) + relu(3 - 4); relu(0 - 2 + 1) + relu(-1 - 0); relu(0 - 1 + 1) + relu(2.5 - 0)
    assert boundary_loss(nn.Identity(), logits, pair, 1.0).tolist() == pytest.approx([4.0, 0.0, 2.5], abs=1e-6)
    two = boundary_loss(nn.Identity(), torch.tensor([[3.0, 1.0]]), torch.tensor([[0], [1]]), 1.0)
    assert two.item() == pytest.approx(3.0)


# ConferAE -------------------------------------------------------------------------------------------------------------


def test_conferrable_examples_agree_more_on_derived_than_on_independent_surrogates() -> None:
    scheme = fitted("ConferAE")
    derived, independent = (scores_of(scheme, small_zoo(), kind) for kind in (True, False))
    assert np.mean(derived) > np.mean(independent) + 0.3


def test_conferrability_counts_the_models_that_say_so() -> None:
    def says(*classes: int) -> nn.Module:
        model = nn.Linear(1, 3)
        with torch.no_grad():
            model.weight.zero_()
            model.bias.copy_(torch.tensor([float(label in classes) for label in range(3)]))
        return model

    derived, independent = [says(0), says(0), says(1), says(0)], [says(0), says(2)]
    # class 0: 3/4 of the derived, 1/2 of the others do not; class 1: 1/4, and none of the others
    assert conferrability(torch.zeros(2, 1), derived, independent).tolist() == [0.375, 0.375]


def test_conferrable_examples_stay_within_epsilon_of_a_natural_input() -> None:
    examples = small_task().examples.flatten(1)
    distances = torch.cdist(torch.from_numpy(fitted("ConferAE").queries).flatten(1), examples, p=torch.inf)
    assert float(distances.amin(dim=1).max()) <= 0.15 + 1e-5


# AKH ------------------------------------------------------------------------------------------------------------------


def test_akh_asks_for_the_natural_mistakes_of_the_owner_first() -> None:
    scheme, task = AKH().fit(small_owner(), small_task(), small_zoo(), queries=200, seed=0), small_task()
    wrong = answers(small_owner(), task.examples.numpy()).argmax(1) != task.targets
    assert 0 < scheme.natural_mistakes == int(wrong.sum()) < scheme.mistakes
    asked = {query.tobytes() for query in scheme.queries[: scheme.natural_mistakes]}
    assert asked == {image.tobytes() for image in task.examples[wrong].numpy()}


class FirstFeature(nn.Module):
    """Of two classes the second one, where the first feature is large."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([0.5 - inputs[:, 0], inputs[:, 0] - 0.5], dim=1) * 20


def readable_task(distance: float) -> Classification:
    """The second feature is the class, and stays readable under noise; the first is right by a small distance."""
    truth = np.arange(100) % 2
    first = 0.5 + (2 * truth - 1) * distance * (1 + np.arange(100) / 100)
    return Classification(np.stack([first, truth], axis=1), truth, bounds=(0.0, 1.0))


def test_akh_finds_true_mistakes_on_noisy_inputs_where_natural_ones_lack() -> None:
    scheme = AKH().fit(FirstFeature(), readable_task(0.01), small_zoo(), queries=40, seed=0)
    assert (scheme.natural_mistakes, scheme.mistakes) == (0, 40)
    truth = np.rint(scheme.queries[:, 1])
    assert (answers(FirstFeature(), scheme.queries).argmax(1).numpy() != truth).all()


def test_akh_fills_up_with_the_inputs_nearest_to_a_mistake() -> None:
    scores = torch.tensor([[3.0, 1.0], [0.5, 0.0], [2.0, 2.5]])
    assert lead_of_truth(scores, torch.tensor([0, 0, 0])).tolist() == [2.0, 0.5, -0.5]
    scheme = AKH().fit(FirstFeature(), readable_task(0.2), small_zoo(), queries=5, seed=0)
    assert scheme.mistakes == 0
    assert np.abs(scheme.queries[:, 0] - 0.5) == pytest.approx(0.2 * (1 + np.arange(5) / 100), abs=1e-5)


def test_akh_needs_labelled_examples() -> None:
    unlabelled = copy.copy(small_task())
    unlabelled.targets = None
    with pytest.raises(InputError, match="labelled"):
        AKH().fit(small_owner(), unlabelled, small_zoo(), queries=4, seed=0)
    with pytest.raises(InputError, match=r"1\.\.400"):
        AKH().fit(small_owner(), small_task(), small_zoo(), queries=401, seed=0)


# SAC ------------------------------------------------------------------------------------------------------------------


def test_the_correlation_is_the_cosine_of_the_answers() -> None:
    given = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    half = 0.5**0.5
    assert correlation(given) == pytest.approx(np.array([[1, 0, half], [0, 1, half], [half, half, 1]]))
    assert correlation_distance(given, given) == 0.0
    assert correlation_distance(given[:2], np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(0.5)


def test_the_score_of_sac_is_one_minus_the_mean_difference_of_correlations() -> None:
    scheme, model = fitted("SAC"), small_suspects().models[-2].model
    own, other = (softmax(answers(net, scheme.queries)) for net in (small_owner(), model))
    cosines = [[[a @ b / np.sqrt((a @ a) * (b @ b)) for b in rows] for a in rows] for rows in (own, other)]
    wanted = 1 - np.abs(np.array(cosines[0]) - np.array(cosines[1])).mean()
    assert scheme.score(model) == pytest.approx(wanted, abs=1e-3)


def test_cutmix_puts_a_box_of_one_image_into_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = cutmix(torch.zeros(200, 2, 9, 9), torch.ones(200, 2, 9, 9), generator)
    assert set(mixed.unique().tolist()) == {0.0, 1.0}
    for image in mixed:
        assert torch.equal(image[0], image[1])
        rows, columns = image[0].amax(dim=1), image[0].amax(dim=0)
        assert torch.equal(image[0], torch.outer(rows, columns))
    assert 0.2 < float(mixed.mean()) < 0.5
    flat = cutmix(torch.zeros(200, 30), torch.ones(200, 30), generator)
    assert (flat.diff(dim=1).abs().sum(dim=1) <= 2).all()


# ModelDiff and DeepJudge ----------------------------------------------------------------------------------------------


def test_the_decision_distance_is_one_minus_the_cosine_of_a_pair() -> None:
    natural = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    changed = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert decision_distances(np.concatenate([natural, changed])) == pytest.approx([0, 1, 1 - 0.5**0.5])


def test_a_suspect_that_never_changes_its_answer_has_no_similarity() -> None:
    assert fitted("ModelDiff").score(CallableSuspect(lambda x: np.eye(10)[[4] * len(x)], accepts="numpy")) == 0.0


def test_the_score_of_modeldiff_is_the_cosine_of_the_two_vectors() -> None:
    scheme, model = fitted("ModelDiff"), small_suspects().models[-2].model
    vectors = []
    for net in (small_owner(), model):
        shares = softmax(answers(net, scheme.queries))
        pairs = zip(shares[: N // 2], shares[N // 2 :], strict=True)
        vectors.append(np.array([1 - a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]))
    own, other = vectors
    wanted = own @ other / np.sqrt((own @ own) * (other @ other))
    assert scheme.score(model) == pytest.approx(wanted, abs=1e-3)


def test_an_odd_number_of_queries_makes_whole_pairs() -> None:
    assert len(fit("ModelDiff", queries=9).queries) == 8
    with pytest.raises(InputError, match="from 4"):
        fit("ModelDiff", queries=3)


def test_the_attack_on_a_linear_model_ends_in_the_corner_of_its_ball() -> None:
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]]))
    lower, upper = torch.zeros(3), torch.tensor([1.0, 1.0, 2.0])
    found = projected_gradient(model, torch.tensor([[0.9, 0.05, 1.0]]), lower, upper, epsilon=0.1, steps=10)
    assert found[0].tolist() == pytest.approx([0.8, 0.15, 0.8])


def test_an_attack_grows_until_it_succeeds() -> None:
    model, (lower, upper) = FirstFeature(), (torch.zeros(2), torch.ones(2))
    start = torch.tensor([[0.45, 0.5], [0.2, 0.5], [0.95, 0.5]])
    found = nearest_adversarial(model, start, lower, upper, epsilons=(0.1, 0.4), steps=10)
    assert found[:, 0].tolist() == pytest.approx([0.55, 0.6, 0.55], abs=1e-5)


def test_the_divergence_is_that_of_scipy() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(5), (2, 7))
    wanted = [jensenshannon(a, b) ** 2 for a, b in zip(*shares, strict=True)]
    assert jensen_shannon(*shares) == pytest.approx(np.mean(wanted))
    assert jensen_shannon(np.eye(2), np.eye(2)[::-1]) == pytest.approx(np.log(2))


def test_deepjudge_measures_how_much_better_a_suspect_withstands_the_attack() -> None:
    scheme = fitted("DeepJudge")
    same = scheme.distances(copy.deepcopy(small_owner()))
    assert same.robustness == 0.0
    assert same.jensen_shannon == pytest.approx(0.0, abs=1e-12)
    fooled = answers(small_owner(), scheme.queries).argmax(1).numpy() != scheme._truth
    assert fooled.mean() > 0.9
    immune = scheme.distances(RecordedSuspect(scheme._truth))
    assert immune.robustness == pytest.approx(fooled.mean())
    score = scheme.score(RecordedSuspect(scheme._truth))
    assert score == pytest.approx(1 - (immune.robustness + immune.jensen_shannon / np.log(2)) / 2)


def test_deepjudge_starts_from_the_inputs_that_the_owner_is_surest_of() -> None:
    def sureness(candidates: int) -> float:
        scheme = DeepJudge(epsilons=(1e-6,), steps=1, candidates=candidates)
        found = scheme.fit(small_owner(), small_task(), small_zoo(), queries=N, seed=0)
        return float(softmax(answers(small_owner(), found.queries)).max(axis=1).mean())

    assert sureness(1) < sureness(3) < sureness(9)


def test_the_output_distance_of_a_shifted_regressor_is_its_shift() -> None:
    owner, task = fresh("regression", 0), task_of("regression")
    scheme = OutputDistance().fit(owner, task, zoo_of("regression"), queries=50, seed=0)
    own = answers(owner, scheme.queries).double().numpy()
    assert scheme.score(RecordedSuspect(own + 0.25)) == pytest.approx(1 / (1 + 0.25 / own.std()), rel=1e-4)
    distance = np.sqrt(np.square(own).mean()) / own.std()
    assert scheme.score(RecordedSuspect(2 * own)) == pytest.approx(1 / (1 + distance), rel=1e-4)


# LiteGuard, verifiers on fixed queries, MetaV as published ------------------------------------------------------------


def test_the_local_verifiers_of_liteguard_score_as_those_of_the_core() -> None:
    scheme = fitted("LiteGuard")
    core = _core.Verifier("local", N, 10)
    values = {"weight": scheme.weight.float().numpy(), "bias": scheme.bias.float().numpy()}
    core.load_parameters(core.parameters() | values)
    for entry in small_suspects().models[:4]:
        shares = softmax(answers(entry.model, scheme.queries)).astype(np.float32)
        assert scheme.score(entry.model) == pytest.approx(float(core.scores(shares[None])[0]), abs=1e-4)


def test_the_pairs_of_liteguard_do_not_depend_on_each_other() -> None:
    """With half of the queries, the first half of the pairs comes out as before."""
    whole, part = (
        LiteGuard(steps=20).fit(small_owner(), _same_start(), small_zoo(), queries=n, seed=0) for n in (16, 8)
    )
    assert np.allclose(whole.queries[:8], part.queries, atol=1e-5)
    assert torch.allclose(whole.weight[:8], part.weight, atol=1e-5)


def _same_start() -> Classification:
    """The small task with queries that do not depend on how many are wanted."""
    task = copy.copy(small_task())
    task.natural_queries = lambda count, *, seed: task.examples[:count].clone()
    return task


def test_liteguard_trains_on_snapshots_too() -> None:
    zoo = small_zoo()
    finished = Zoo(
        models=tuple(entry for entry in zoo if entry.fraction == 1.0), owner_digest="", task_digest="", seed=0
    )
    assert len(finished) < len(zoo)
    other = SCHEMES["LiteGuard"]().fit(small_owner(), small_task(), finished, queries=N, seed=0)
    assert other.queries.tobytes() != fitted("LiteGuard").queries.tobytes()


@pytest.mark.parametrize("name", ["fixed-query meta-verifier", "matched filter", "output distance"])
def test_fixed_queries_are_natural_inputs(name: str) -> None:
    examples = {image.tobytes() for image in small_task().examples.numpy()}
    assert all(query.tobytes() in examples for query in fitted(name).queries)


def test_the_verifier_on_fixed_queries_is_the_reference_mlp() -> None:
    scheme = fitted("fixed-query meta-verifier")
    for entry in small_suspects().models[:-1:5]:
        features = reference.apply_view(answers(entry.model, scheme.queries).numpy()[None], small_task().view)
        wanted = reference.logits("mlp", scheme.verifier.parameters(), features)[0]
        assert scheme.score(entry.model) == pytest.approx(1 / (1 + np.exp(-wanted)), abs=1e-3)


def test_the_matched_filter_is_its_closed_form() -> None:
    owner, task, zoo = fresh("regression", 0), task_of("regression"), zoo_of("regression")
    scheme = MatchedFilter().fit(owner, task, zoo, queries=12, seed=0)
    queries = scheme.queries
    given = np.stack([answers(net, queries).double().numpy() for net in (owner, *(e.model for e in zoo.negatives))])
    shift = given.mean(axis=0)
    scale = np.sqrt(np.square(given - shift).mean()) * (1 + 1e-3 * 0) + 1e-6
    z = ((given - shift) / scale).reshape(len(given), -1)
    mean, variance = z[1:].mean(axis=0), z[1:].var(axis=0)
    covariance = np.diag(0.2 * variance + 1e-2 * variance.mean() + 1e-9) + 0.8 * np.cov(z[1:].T, bias=True)
    inverse = np.linalg.inv(covariance)
    direction = z[0] - mean
    for entry in zoo_of("regression", 200):
        x = ((answers(entry.model, queries).double().numpy() - shift) / scale).ravel() - mean
        cosine = direction @ inverse @ x / np.sqrt((direction @ inverse @ direction) * (x @ inverse @ x))
        assert scheme.score(entry.model) == pytest.approx(1 / (1 + np.exp(3 - 10 * cosine)), rel=1e-3, abs=1e-5)


def test_the_matched_filter_needs_no_derived_model() -> None:
    zoo = small_zoo()
    part = Zoo(models=zoo.negatives, owner_digest="", task_digest="", seed=0)
    scheme = MatchedFilter().fit(small_owner(), small_task(), part, queries=N, seed=0)
    model = small_suspects().models[2].model
    assert scheme.score(model) == fitted("matched filter").score(model)


def test_the_verifier_of_metav_as_published_is_one_mlp_on_all_probabilities() -> None:
    scheme = fitted("MetaV as published")
    first, second = scheme.verifier[0], scheme.verifier[2]
    for entry in small_suspects().models[:-1:5]:
        features = softmax(answers(entry.model, scheme.queries)).ravel()
        hidden = np.maximum(first.weight.detach().numpy() @ features + first.bias.detach().numpy(), 0)
        wanted = float((second.weight.detach().numpy() @ hidden + second.bias.detach().numpy())[0])
        assert scheme.score(entry.model) == pytest.approx(1 / (1 + np.exp(-wanted)), abs=1e-3)


def test_metav_as_published_is_judged_by_the_aruc_of_the_state_it_keeps() -> None:
    found = fit_published(small_owner(), small_task(), small_zoo(), queries=8, max_steps=20, target_aruc=1.1)
    assert len(found.history) == 10
    held_out = [entry for entry in small_zoo().share("select") if entry.fraction == 1.0]
    derived, independent = ([found.score(e.model) for e in held_out if e.is_positive is k] for k in (True, False))
    thresholds = (np.arange(20_000) + 0.5) / 20_000
    robust, unique = (np.array(scores)[:, None] >= thresholds for scores in (derived, independent))
    wanted = np.minimum(robust.mean(axis=0), 1 - unique.mean(axis=0)).mean()
    assert found.aruc == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(("values", "kept"), [([0.2, 0.9, 0.5], 1), ([0.9, 0.9], 0), ([np.nan, np.nan], 1)])
def test_metav_as_published_keeps_the_best_state_or_the_last_where_none_is_measured(
    values: list[float], kept: int
) -> None:
    progress = _Progress(queries=torch.tensor(-1.0), verifier=nn.Identity())
    for number, value in enumerate(values):
        progress.record(value, torch.tensor(float(number)), nn.Identity())
    assert progress.queries.item() == kept


def test_metav_as_published_works_without_held_out_models() -> None:
    models = tuple(entry for entry in small_zoo() if entry.share == "optimize")
    part = Zoo(models=models, owner_digest="", task_digest="", seed=0)
    scheme = PublishedMetaV(steps=40).fit(small_owner(), small_task(), part, queries=8, seed=0)
    derived, independent = (scores_of(scheme, part, kind) for kind in (True, False))
    assert min(derived) > 0.5 > sorted(independent)[-2]  # one of the owner's kind is taken for derived
    # no state but the last counts, however often one looks
    again = PublishedMetaV(steps=40, evaluate_every=7).fit(small_owner(), small_task(), part, queries=8, seed=0)
    assert again.queries.tobytes() == scheme.queries.tobytes()


def test_every_suspect_that_verify_takes_can_be_scored() -> None:
    suspect: Suspect = RecordedSuspect(answers(small_owner(), fitted("SAC").queries))
    assert fitted("SAC").score(suspect) == pytest.approx(1.0)
