"""skorch: equal to the bit, the right weights, the same training as recipe."""

from __future__ import annotations

import pytest
import torch
from small_trainings import (
    EPOCHS,
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

pytest.importorskip("skorch", reason="skorch is not installed")
from skorch import NeuralNetClassifier
from skorch.callbacks import Checkpoint, EarlyStopping, LRScheduler
from skorch.helper import predefined_split

from metav.integrations.skorch import FingerprintCallback
from metav.integrations.skorch_recipe import SkorchRecipe

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def fit(callbacks, *, seed=3, module=Network, **options):
    """A net fitted to the data."""
    seed_all(seed)
    net = NeuralNetClassifier(
        module() if module is not Network else module,
        **{
            "max_epochs": EPOCHS,
            "lr": RATE,
            "batch_size": 32,
            "iterator_train__shuffle": True,
            "verbose": 0,
            **options,
        },
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        callbacks=callbacks,
    )
    return net.fit(*arrays())


def test_weights_losses_and_random_state_are_those_without_metav(tmp_path):
    plain = fit([])
    expected = random_state()
    callback = FingerprintCallback(tmp_path / "o.metav", task(), **TINY)
    net = fit([callback])
    assert bits(net.module_) == bits(plain.module_)
    assert net.history[:, ("train_loss", "valid_loss")] == plain.history[:, ("train_loss", "valid_loss")]
    assert random_state() == expected
    assert callback.fingerprint.zoo["standing"]["recipe"] == "told"
    assert metav.load(tmp_path / "o.metav").commitment == callback.fingerprint.commitment


def recipe_of(callbacks=(), **options):
    """The recipe that the callback makes of a training."""
    build = options.pop("build", None)
    kept = []

    class Watched(FingerprintCallback):
        def on_train_end(self, net, X=None, y=None, **given):
            kept.append(self._recipe)

    fit([*callbacks, Watched("o.metav", task(), build=build)], **options)
    return kept[0]


def test_the_recipe_gives_what_the_same_training_gives_with_another_seed():
    def scheduled():
        return [LRScheduler(policy="StepLR", step_size=1, gamma=0.5)]

    recipe = recipe_of(scheduled())
    by_hand = fit(scheduled(), seed=11)
    assert bits(repeated(recipe, 11)) == bits(by_hand.module_)
    assert bits(fit([], seed=11).module_) != bits(by_hand.module_), "the schedule has a part in it"


def test_a_module_that_was_given_made_is_drawn_anew_or_built():
    def made():
        return Network()

    recipe = recipe_of(module=made)
    assert bits(repeated(recipe, 1)) != bits(repeated(recipe, 2))
    assert bits(repeated(recipe, 1)) == bits(repeated(recipe, 1))
    recipe = recipe_of(module=made, build=Network)
    assert bits(repeated(recipe, 11)) == bits(fit([], module=made, seed=11).module_)


def test_the_best_weights_ship_and_the_owners_checkpoints_stay(tmp_path):
    def best(folder):
        return [Checkpoint(monitor=lambda net: len(net.history) == 1, dirname=str(folder), load_best=True)]

    callback = FingerprintCallback(tmp_path / "o.metav", task(), **TINY)
    net = fit([*best(tmp_path / "c"), callback])
    saved = (tmp_path / "c" / "params.pt").read_bytes()
    one = bits(repeated(recipe_of(best(tmp_path / "d")), 11))
    first = fit([], max_epochs=1)
    assert bits(net.module_) == bits(first.module_)
    assert one == bits(fit([], max_epochs=1, seed=11).module_)
    assert (
        callback.fingerprint.commitment
        == fingerprint_of(net.module_.eval(), recipe_of(best(tmp_path / "e"))).commitment
    )
    assert (tmp_path / "c" / "params.pt").read_bytes() == saved


def test_what_loads_the_best_weights_must_come_first(tmp_path):
    callback = FingerprintCallback(tmp_path / "o.metav", task(), **TINY)
    with pytest.raises(metav.InputError, match="put the FingerprintCallback last"):
        fit([callback, EarlyStopping(load_best=True)])


def test_an_epoch_is_fingerprinted_as_a_training_that_ends_there(tmp_path):
    callback = FingerprintCallback(tmp_path / "o.metav", task(), every=2, recipe=None, **TINY)
    fit([callback])
    ended = fit([], max_epochs=2)
    assert sorted(callback.fingerprints) == [2]
    assert callback.fingerprints[2].commitment == fingerprint_of(ended.module_.eval()).commitment
    assert bits(repeated(recipe_of().until(2), 11)) == bits(fit([], max_epochs=2, seed=11).module_)


@pytest.mark.parametrize("where", ["in the callback", "in the net"])
def test_the_recipe_of_an_epoch_has_its_weights_even_where_the_best_ones_ship_in_the_end(tmp_path, where):
    options = {"callbacks__keep__load_best": True} if where == "in the net" else {}

    keep = Checkpoint(monitor=lambda net: len(net.history) == 1, dirname=str(tmp_path), load_best=not options)
    recipe = recipe_of([("keep", keep)], **options)
    assert bits(repeated(recipe.until(2), 11)) == bits(fit([], max_epochs=2, seed=11).module_)
    assert bits(repeated(recipe, 11)) == bits(fit([], max_epochs=1, seed=11).module_), "the whole training is as it was"


def test_weights_of_ones_own_and_a_part_ship(tmp_path):
    def zeros(net):
        return {name: torch.zeros_like(value) for name, value in net.module_.state_dict().items()}

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Network()

        def forward(self, X):
            return self.inner(X)

    callback = FingerprintCallback(tmp_path / "o.metav", task(), recipe=None, weights=zeros, part="inner", **TINY)
    net = fit([callback], module=Outer)
    net.module_.load_state_dict(zeros(net))
    assert callback.fingerprint.commitment == fingerprint_of(net.module_.inner.eval()).commitment


@pytest.mark.slow
def test_clones_of_a_net_keep_the_callback_and_its_options(tmp_path):
    from sklearn.base import clone

    callback = FingerprintCallback(tmp_path / "o.metav", task(), recipe=None, **TINY)
    net = NeuralNetClassifier(Network, callbacks=[callback], criterion=nn.CrossEntropyLoss, verbose=0, max_epochs=1)
    twin = clone(net).fit(*arrays())
    assert dict(twin.callbacks_)["FingerprintCallback"].fingerprint is not None


def test_a_training_that_goes_on_cannot_be_repeated(tmp_path):
    callback = FingerprintCallback(tmp_path / "o.metav", task(), **TINY)
    net = fit([])
    net.callbacks_.append(("metav", callback))
    with pytest.raises(metav.InputError, match="partial_fit goes on"):
        net.partial_fit(*arrays())


def test_validation_data_of_ones_own_go_into_the_recipe():
    import cloudpickle
    from small_trainings import dataset

    recipe = recipe_of(train_split=predefined_split(dataset()))
    assert isinstance(cloudpickle.loads(cloudpickle.dumps(recipe)), SkorchRecipe)
    by_hand = fit([], seed=11, train_split=predefined_split(dataset()))
    assert bits(repeated(recipe, 11)) == bits(by_hand.module_)
