"""The Trainer of transformers: equal to the bit, the right weights, the same training as recipe."""

from __future__ import annotations

import copy

import pytest
import torch
from small_trainings import (
    CLASSES,
    EPOCHS,
    FEATURES,
    RATE,
    TINY,
    Network,
    arrays,
    bits,
    fingerprint_of,
    random_state,
    repeated,
    seed_all,
    task,
)
from torch import nn

import metav

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed, which the Trainer needs")
from metav.integrations.huggingface import FingerprintCallback  # noqa: E402
from metav.integrations.huggingface_recipe import HuggingFaceRecipe  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class Configuration(transformers.PretrainedConfig):
    model_type = "metav_tests"


class Model(transformers.PreTrainedModel):
    config_class = Configuration

    def __init__(self, config):
        super().__init__(config)
        self.net = Network()
        self.post_init()

    def forward(self, inputs, labels=None):
        logits = self.net(inputs)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return transformers.modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)


def make():
    return Model(Configuration())


def rows():
    inputs, labels = arrays()
    return [{"inputs": torch.tensor(one), "labels": int(label)} for one, label in zip(inputs, labels, strict=True)]


def trainer(folder, *, seed=3, model=None, model_init=None, callbacks=None, train=True, **options):
    """A trainer that has trained, unless told otherwise."""
    seed_all(seed)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "run"),
        **{"num_train_epochs": EPOCHS, "learning_rate": RATE, "per_device_train_batch_size": 32},
        **{"save_strategy": "no", **options},
        seed=seed,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="epoch",
    )
    given = {"model": model} if model is not None else {"model_init": model_init or make}
    found = transformers.Trainer(
        **given, args=arguments, train_dataset=rows(), eval_dataset=rows()[:40], callbacks=callbacks
    )
    if train:
        found.train()
    return found


def with_callback(folder, **options):
    """A trainer that has trained with metav's callback, and the callback."""
    own = {name: options.pop(name) for name in list(options) if name in ("recipe", "every", "weights", "part", "build")}
    found = trainer(folder, train=False, **options)
    callback = FingerprintCallback(folder / "o.metav", task(), trainer=found, **{**TINY, **own})
    found.add_callback(callback)
    found.train()
    return found, callback


def losses(found):
    return [entry["loss"] for entry in found.state.log_history if "loss" in entry]


def recipe_of(folder, *, build=None, **options):
    return HuggingFaceRecipe.of(trainer(folder, train=False, **options), build, None, None)


def test_weights_losses_and_random_state_are_those_without_metav(tmp_path):
    plain = trainer(tmp_path)
    expected = random_state()
    found, callback = with_callback(tmp_path)
    assert bits(found.model) == bits(plain.model)
    assert losses(found) == losses(plain)
    assert len(losses(plain)) == EPOCHS
    assert random_state() == expected
    assert callback.fingerprint.zoo["standing"]["recipe"] == "told"
    assert metav.load(tmp_path / "o.metav").commitment == callback.fingerprint.commitment


@pytest.mark.slow
def test_fingerprints_between_epochs_change_no_training(tmp_path):
    plain = trainer(tmp_path)
    expected = random_state()
    found, callback = with_callback(tmp_path, every=2)
    assert (bits(found.model), losses(found), random_state()) == (bits(plain.model), losses(plain), expected)
    assert sorted(callback.fingerprints) == [2]


@pytest.mark.parametrize("options", [{}, {"lr_scheduler_type": "cosine", "gradient_accumulation_steps": 2}])
def test_the_recipe_gives_what_the_same_training_gives_with_another_seed(tmp_path, options):
    recipe = recipe_of(tmp_path, **options)
    by_hand = trainer(tmp_path, seed=11, **options)
    assert bits(repeated(recipe, 11)) == bits(by_hand.model)
    assert bits(repeated(recipe, 12)) != bits(by_hand.model)


@pytest.mark.slow
def test_a_model_that_was_given_is_drawn_anew_from_its_configuration_or_built(tmp_path):
    recipe = recipe_of(tmp_path, model=make())
    assert bits(repeated(recipe, 1)) != bits(repeated(recipe, 2))
    assert bits(repeated(recipe, 1)) == bits(repeated(recipe, 1))
    recipe = recipe_of(tmp_path, model=make(), build=make)
    assert bits(repeated(recipe, 11)) == bits(trainer(tmp_path, seed=11).model)
    plain = recipe_of(tmp_path, model=_Plain())
    assert bits(repeated(plain, 1)) != bits(repeated(plain, 2))


class _Plain(nn.Module):
    """No model of transformers'."""

    def __init__(self):
        super().__init__()
        self.net = Network()

    def forward(self, inputs, labels=None):
        logits = self.net(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits} if labels is not None else logits


def test_weights_that_do_not_train_stay_in_the_recipe(tmp_path):
    model = make()
    model.net.body.requires_grad_(False)
    start = model.net.body.weight.detach().clone()
    found = repeated(recipe_of(tmp_path, model=model), 5)
    assert torch.equal(found.net.body.weight, start)
    assert not torch.equal(found.net.head.weight, model.net.head.weight)


def test_the_best_model_ships_where_it_is_loaded_at_the_end(tmp_path):
    options = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": True,  # the worst: never the last one
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
    }
    last = trainer(tmp_path)
    found, callback = with_callback(tmp_path, recipe=None, **options)
    assert bits(found.model) != bits(last.model)
    assert callback.fingerprint.commitment == fingerprint_of(found.model.eval()).commitment
    by_hand = trainer(tmp_path / "b", seed=11, **options)
    saved = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert bits(repeated(recipe_of(tmp_path, **options), 11)) == bits(by_hand.model)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == saved, "the owner's checkpoints are untouched"


def test_an_epoch_is_fingerprinted_as_a_training_that_ends_there(tmp_path):
    class Stop(transformers.TrainerCallback):
        def on_epoch_end(self, args, state, control, **given):
            control.should_training_stop = True

    by_hand = trainer(tmp_path, seed=11, callbacks=[Stop()])
    assert bits(repeated(recipe_of(tmp_path).until(1), 11)) == bits(by_hand.model)
    assert bits(by_hand.model) != bits(trainer(tmp_path, seed=11).model)


def test_callbacks_of_ones_own_are_part_of_the_recipe(tmp_path):
    class Halve(transformers.TrainerCallback):
        def on_epoch_end(self, args, state, control, model=None, **given):
            with torch.no_grad():
                model.net.head.weight.mul_(0.5)

    by_hand = trainer(tmp_path, seed=11, callbacks=[Halve()])
    assert bits(repeated(recipe_of(tmp_path, callbacks=[Halve()]), 11)) == bits(by_hand.model)


def test_weights_of_ones_own_and_a_part_ship(tmp_path):
    def zeros(model):
        return {name: torch.zeros_like(value) for name, value in model.state_dict().items()}

    found, callback = with_callback(tmp_path, recipe=None, weights=zeros, part="net")
    model = copy.deepcopy(found.model)
    model.load_state_dict(zeros(model))
    assert callback.fingerprint.commitment == fingerprint_of(model.net.eval()).commitment


@pytest.mark.slow
def test_a_model_in_mixed_precision_ships_without_the_autocast(tmp_path):
    found, callback = with_callback(tmp_path, recipe=None, bf16=True, part="net")
    assert callback.fingerprint.commitment == fingerprint_of(copy.deepcopy(found.model.net).eval()).commitment
    _, whole = with_callback(tmp_path, recipe=None, bf16=True)
    plain = make()
    plain.load_state_dict(found.model.state_dict())
    assert whole.fingerprint.commitment == fingerprint_of(plain.eval()).commitment


def test_a_training_from_pretrained_weights_needs_to_say_how_it_starts(tmp_path):
    make().save_pretrained(tmp_path / "base")
    model = Model.from_pretrained(tmp_path / "base")
    with pytest.raises(metav.InputError, match="give the trainer model_init, or the callback build="):
        recipe_of(tmp_path, model=model)
    start = recipe_of(tmp_path, model=model, build=lambda: Model.from_pretrained(tmp_path / "base"))
    by_hand = trainer(tmp_path, seed=11, model_init=lambda: Model.from_pretrained(tmp_path / "base"))
    assert bits(repeated(start, 11)) == bits(by_hand.model)


def test_what_would_fail_afterwards_fails_before_the_training(tmp_path):
    with pytest.raises(metav.InputError, match="pass trainer= and add it"):
        FingerprintCallback(tmp_path / "o.metav", task(), **TINY)
    found = trainer(tmp_path, train=False)
    found.create_optimizer()
    with pytest.raises(metav.InputError, match="an optimizer that is made already"):
        FingerprintCallback(tmp_path / "o.metav", task(), trainer=found, **TINY)
    wrong = metav.Classification(torch.zeros(40, FEATURES + 1), torch.arange(40) % CLASSES, epochs=1)
    found = trainer(tmp_path, train=False)
    found.add_callback(FingerprintCallback(tmp_path / "o.metav", wrong, trainer=found, **TINY))
    with pytest.raises(metav.MetavError):
        found.train()
    assert found.state.global_step == 0
