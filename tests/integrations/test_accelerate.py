"""accelerate: equal to the bit, the model is unwrapped, and a recipe has an Accelerator of its own."""

from __future__ import annotations

import pytest
import torch
from small_trainings import (
    EPOCHS,
    RATE,
    TINY,
    Network,
    bits,
    fingerprint_of,
    loader,
    quiet,
    random_state,
    seed_all,
    task,
)
from torch import nn

import metav

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
from metav.integrations.accelerate import fingerprinting  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(autouse=True)
def fresh_state():
    """No Accelerator of another test."""
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def train(seed, path=None, *, precision="no", wrap=None, recipe=None, metav_too=True):
    """A loop with accelerate, with metav's context or not; the accelerator, the prepared model, the release."""
    seed_all(seed)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision)
    model = Network()
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    model, optimizer, batches = accelerator.prepare(model, optimizer, loader())
    model = model if wrap is None else wrap(model)

    def loop():
        for _ in range(EPOCHS):
            for inputs, labels in batches:
                optimizer.zero_grad()
                accelerator.backward(nn.functional.cross_entropy(model(inputs), labels))
                optimizer.step()

    if not metav_too:
        loop()
        return accelerator, model, None
    with quiet(), fingerprinting(accelerator, path, task(), recipe=recipe, **TINY) as release:
        loop()
        release.ship(model)
    return accelerator, model, release


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_weights_and_random_state_are_those_without_metav(tmp_path, precision):
    def recipe(seed):
        accelerator, model, _ = train(seed, tmp_path / "o.metav", precision=precision, recipe=recipe)
        return accelerator.unwrap_model(model, keep_fp32_wrapper=False)

    _, plain, _ = train(3, precision=precision, metav_too=False)
    expected = random_state()
    accelerator, model, release = train(3, tmp_path / "o.metav", precision=precision, recipe=recipe)
    assert bits(model) == bits(plain)
    assert random_state() == expected
    assert accelerator.mixed_precision == accelerate.state.AcceleratorState().mixed_precision == precision
    assert release.fingerprint.zoo["standing"]["recipe"] == "told"
    shipped = Network()
    shipped.load_state_dict(model.state_dict())
    assert metav.load(tmp_path / "o.metav").commitment == release.fingerprint.commitment
    assert release.fingerprint.zoo["owner"] == fingerprint_of(shipped.eval()).zoo["owner"]


@pytest.mark.slow
def test_a_recipe_may_choose_another_precision_than_the_owner(tmp_path):
    def recipe(seed):
        accelerator, model, _ = train(seed, precision="bf16", metav_too=False)
        return accelerator.unwrap_model(model, keep_fp32_wrapper=False)

    accelerator, _, release = train(3, tmp_path / "o.metav", recipe=recipe)
    assert release.fingerprint is not None
    assert accelerator.mixed_precision == "no"


def test_wrappers_are_taken_off(tmp_path):
    _, plain, _ = train(3, metav_too=False)
    expected = fingerprint_of(plain.eval()).commitment
    for wrap in (lambda model: torch.compile(model, backend="eager"), nn.DataParallel):
        _, _, release = train(3, tmp_path / "o.metav", wrap=wrap)
        assert release.fingerprint.commitment == expected


def test_another_process_than_the_main_one_makes_none(tmp_path):
    class Second:
        is_main_process = False

        @staticmethod
        def unwrap_model(model, **options):
            raise AssertionError("nothing ships here")

    with fingerprinting(Second(), tmp_path / "o.metav", task(), **TINY) as release:
        release.ship(Network())
    assert release.fingerprint is None
    with pytest.raises(metav.InputError, match=r"must be an accelerate\.Accelerator, got Network"):  # noqa: SIM117
        with fingerprinting(Network(), tmp_path / "o.metav", task()):
            pass
