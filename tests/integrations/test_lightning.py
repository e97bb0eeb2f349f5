"""Lightning under both its names: equal to the bit, the right weights, the same training as recipe."""

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
    bits,
    dataset,
    fingerprint_of,
    loader,
    quiet,
    random_state,
    repeated,
    seed_all,
    task,
    zeroed,
)
from torch import nn

import metav

pytest.importorskip("lightning", reason="lightning is not installed")
from metav.integrations.lightning import FingerprintCallback, LightningRecipe

LIBRARIES = ["lightning.pytorch", "pytorch_lightning"]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def library(name="lightning.pytorch"):
    return pytest.importorskip(name, reason=f"{name} is not installed")


def module_class(pl):
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Network()
            self.losses = []

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, index):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.losses.append(float(loss))
            self.log("loss", loss)
            return loss

        def validation_step(self, batch, index):
            self.log("validation", nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), RATE)
            return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)]

    return Module


def fit(callbacks, *, pl=None, make=None, seed=3, folder=None, data=None, validation=None, **options):
    """A training by Lightning; its module."""
    pl = pl or library()
    seed_all(seed)
    module = (make or module_class(pl))()
    quiet_options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        **{"max_epochs": EPOCHS, "accelerator": "cpu", "enable_checkpointing": False, **quiet_options, **options},
        callbacks=callbacks,
        default_root_dir=folder,
    )
    trainer.fit(module, data or loader(), validation)
    return module


@pytest.mark.parametrize("name", LIBRARIES)
def test_weights_losses_and_random_state_are_those_without_metav(tmp_path, name):
    pl = library(name)
    plain = fit([], pl=pl)
    expected = random_state()
    callback = FingerprintCallback(tmp_path / "o.metav", task(), part="net", **TINY)
    module = fit([callback], pl=pl)
    assert bits(module) == bits(plain)
    assert module.losses == plain.losses
    assert random_state() == expected
    assert metav.load(tmp_path / "o.metav").commitment == callback.fingerprint.commitment
    assert callback.fingerprint.zoo["standing"]["recipe"] == "told"


def recipe_of(**options):
    """The recipe that the callback makes of a training."""
    kept = []

    class Watched(FingerprintCallback):
        def on_fit_start(self, trainer, pl_module):
            kept.append(self._recipe)

        def on_fit_end(self, trainer, pl_module):
            pass

    arguments = {name: options.pop(name) for name in ("weights", "part", "build") if name in options}
    fit([Watched("o.metav", task(), **arguments), *options.pop("callbacks", [])], **options)
    return kept[0]


def built(pl):
    def build():
        return module_class(pl)()

    return build


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_recipe_gives_what_the_same_training_gives_with_another_seed(name):
    pl = library(name)
    recipe = recipe_of(pl=pl, build=built(pl), gradient_clip_val=0.1, accumulate_grad_batches=2)
    by_hand = fit([], pl=pl, seed=11, gradient_clip_val=0.1, accumulate_grad_batches=2)
    assert bits(repeated(recipe, 11)) == bits(by_hand)
    other = fit([], pl=pl, seed=11, accumulate_grad_batches=2)
    assert bits(other) != bits(by_hand), "clipping has a part in it"


def test_the_recipe_draws_new_weights_where_nobody_says_how_to_build():
    recipe = recipe_of()
    first = bits(repeated(recipe, 1))
    assert bits(repeated(recipe, 2)) != first
    assert bits(repeated(recipe, 1)) == first


def test_weights_that_do_not_train_stay_in_the_recipe():
    pl = library()

    class Frozen(pl.Callback):
        def setup(self, trainer, pl_module, stage):
            pl_module.net.body.requires_grad_(False)

    torch.manual_seed(3)
    start = module_class(pl)().net.body.weight.detach().clone()
    recipe = recipe_of(callbacks=[], part="net")
    recipe.template.net.body.requires_grad_(False)
    model = repeated(recipe, 5)
    assert torch.equal(model.body.weight, start)
    assert not torch.equal(model.head.weight, recipe.template.net.head.weight)


def test_a_loader_with_a_generator_of_its_own_is_shuffled_by_the_seed():
    loaders = [loader(generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    pl = library()
    recipe = recipe_of(data=loaders[0], build=built(pl))
    by_hand = fit([], data=loader(generator=torch.Generator().manual_seed(11)), seed=11)
    assert bits(repeated(recipe, 11)) == bits(by_hand)


def test_averaged_weights_ship(tmp_path):
    averaging = library("lightning.pytorch.callbacks").EMAWeightAveraging
    plain, commitments = fit([]), set()
    for order in (1, -1):
        callback = FingerprintCallback(tmp_path / "o.metav", task(), part="net", recipe=None, every=EPOCHS, **TINY)
        averaged = fit([callback, averaging(decay=0.9)][::order])
        assert bits(averaged) != bits(plain)
        # after the last epoch the average is what ships, before Lightning has put it into the module
        commitments |= {callback.fingerprints[EPOCHS].commitment, callback.fingerprint.commitment}
    assert commitments == {fingerprint_of(averaged.net.eval()).commitment}


def test_the_best_checkpoint_ships_and_the_recipe_takes_its_own_best(tmp_path):
    checkpoint = library("lightning.pytorch.callbacks").ModelCheckpoint

    def watcher(folder):
        return checkpoint(dirpath=folder, monitor="validation", mode="max")  # the worst: never the last one

    validation = torch.utils.data.DataLoader(dataset(), 80)
    callback = FingerprintCallback(tmp_path / "o.metav", task(), part="net", weights="best", recipe=None, **TINY)
    watch, options = watcher(tmp_path / "c"), {"validation": validation, "enable_checkpointing": True}
    last = fit([callback, watch], folder=tmp_path, **options)
    best = torch.load(watch.best_model_path, weights_only=True)["state_dict"]
    assert any(not torch.equal(best[name], value) for name, value in last.state_dict().items())
    model = copy.deepcopy(last)
    model.load_state_dict(best)
    assert callback.fingerprint.commitment == fingerprint_of(model.net.eval()).commitment
    files = sorted(path.name for path in (tmp_path / "c").iterdir())
    recipe = recipe_of(
        callbacks=[watcher(tmp_path / "d")], weights="best", build=built(library()), folder=tmp_path, **options
    )
    model = repeated(recipe, 11)
    again = watcher(tmp_path / "e")
    fit([again], seed=11, folder=tmp_path, **options)
    state = torch.load(again.best_model_path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == files, "the owner's checkpoints are untouched"


def zeros(trainer, module):
    return {name: torch.zeros_like(value) for name, value in module.state_dict().items()}


def test_weights_of_ones_own_ship(tmp_path):
    callback = FingerprintCallback(tmp_path / "o.metav", task(), recipe=None, part="net", weights=zeros, **TINY)
    module = fit([callback])
    assert bits(module.net) != bits(zeroed(Network()))
    assert callback.fingerprint.commitment == fingerprint_of(zeroed(Network())).commitment


@pytest.mark.slow
def test_a_compiled_module_ships_without_the_compiler(tmp_path):
    def compiled():
        module = module_class(library())()
        module.net = torch.compile(module.net, backend="eager")
        return module

    plain = fit([])
    for part in ("net", None):
        callback = FingerprintCallback(tmp_path / "o.metav", task(), part=part, recipe=None, **TINY)
        module = fit([callback], make=compiled)
        assert bits(module) == bits(plain)
        owner = plain.net if part else copy.deepcopy(plain)
        assert callback.fingerprint.commitment == fingerprint_of(owner.eval()).commitment


@pytest.mark.slow
def test_a_training_with_ddp_ships_the_plain_module_and_repeats_elsewhere(tmp_path):
    callback = FingerprintCallback(tmp_path / "o.metav", task(), part="net", **TINY)
    try:
        plain = fit([], strategy="ddp", devices=1)
        module = fit([callback], strategy="ddp", devices=1)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert bits(module) == bits(plain)
    recipe = recipe_of(part="net")
    assert callback.fingerprint.commitment == fingerprint_of(plain.net.eval(), recipe).commitment


def test_an_epoch_is_fingerprinted_as_a_training_that_ends_there(tmp_path):
    callback = FingerprintCallback(tmp_path / "o.metav", task(), part="net", every=EPOCHS, **TINY)
    fit([callback])
    assert sorted(callback.fingerprints) == [3]
    assert metav.load(tmp_path / "o-epoch3.metav").commitment == callback.fingerprint.commitment
    pl = library()
    recipe = recipe_of(build=built(pl)).until(1)

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    by_hand = fit([Stop()], seed=11)
    assert bits(repeated(recipe, 11)) == bits(by_hand)


def test_the_recipe_of_an_epoch_ships_weights_of_ones_own_but_not_the_best_ones(tmp_path):
    pl = library()
    recipe = recipe_of(build=built(pl), weights=zeros, part="net").until(1)
    assert bits(repeated(recipe, 11)) == bits(zeroed(Network()))
    keep = library("lightning.pytorch.callbacks").ModelCheckpoint(tmp_path / "c", monitor="loss", mode="max")
    options = {"enable_checkpointing": True, "folder": tmp_path}
    recipe = recipe_of(build=built(pl), weights="best", callbacks=[keep], **options).until(EPOCHS)
    assert bits(repeated(recipe, 11)) == bits(fit([], seed=11))


def test_no_fingerprint_of_a_trial_run_or_inside_a_recipe(tmp_path):
    callback = FingerprintCallback(tmp_path / "o.metav", task(), **TINY)
    fit([callback], fast_dev_run=True)
    assert callback.fingerprint is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "best"}, "needs a ModelCheckpoint"),
        ({"part": "body"}, "part='body' is no submodule of Module; expected one of net"),
        ({"weights": "last"}, "weights must be 'final', 'best' or a function"),
        ({"recipe": "once"}, "recipe must be a function, 'again' or None"),
        ({"independent": [nn.Linear(FEATURES + 1, CLASSES)]}, r"independent\[0\] does not fit the task"),
        ({"families": "distill_other", "architectures": []}, "distill_other needs another architecture"),
    ],
)
def test_what_would_fail_afterwards_fails_before_the_training(tmp_path, options, message):
    trained = []

    class Watch(library().Callback):
        def on_train_start(self, trainer, pl_module):
            trained.append(True)

    with pytest.raises(metav.MetavError, match=message):
        fit([FingerprintCallback(tmp_path / "o.metav", task(), **{**TINY, **options}), Watch()])
    assert not trained


def test_a_model_that_does_not_fit_the_task_is_found_before_the_training(tmp_path):
    inputs = torch.zeros(40, FEATURES + 1)
    wrong = metav.Classification(inputs, torch.arange(40) % CLASSES, epochs=1)
    with pytest.raises(metav.MetavError), quiet():
        fit([FingerprintCallback(tmp_path / "o.metav", wrong, **TINY)])


def test_the_recipe_goes_to_worker_processes():
    import cloudpickle

    recipe = recipe_of(part="net")
    assert isinstance(cloudpickle.loads(cloudpickle.dumps(recipe)), LightningRecipe)
