"""What ships is the model without what only training puts around it."""

from __future__ import annotations

import copy

import pytest
import torch
from small_trainings import FEATURES, Network, bits
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

import metav
from metav.integrations.shipped_weights import fresh, shipped, structure_identity

INPUTS = torch.linspace(-1, 1, 5 * FEATURES).reshape(5, FEATURES)


@pytest.fixture
def one_process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def wrappings():
    return {
        "nothing": lambda model: model,
        "compiled": lambda model: torch.compile(model, backend="eager"),
        "parallel": nn.DataParallel,
        "distributed": nn.parallel.DistributedDataParallel,
        "compiled and distributed": lambda model: torch.compile(
            nn.parallel.DistributedDataParallel(model), backend="eager"
        ),
        "averaged": AveragedModel,
        "average of compiled": lambda model: AveragedModel(torch.compile(model, backend="eager")),
    }


@pytest.mark.parametrize("name", wrappings())
def test_wrappers_are_taken_off_and_stay_on_the_model(one_process_group, name):
    model = Network()
    expected = bits(model)
    wrapped = wrappings()[name](model)
    before = {key: value.clone() for key, value in wrapped.state_dict().items()}
    found = shipped(wrapped)
    assert type(found) is Network
    assert bits(found) == expected
    assert not found.training
    assert wrapped.training
    with torch.no_grad():
        next(found.parameters()).zero_()
    assert all(torch.equal(value, before[key]) for key, value in wrapped.state_dict().items())


@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, parametrizations.orthogonal, parametrizations.spectral_norm]
)
def test_computed_weights_become_plain_ones(wrap):
    model = Network()
    wrap(model.body)
    for _ in range(3):
        model(INPUTS)
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = shipped(model)
    assert sorted(found.state_dict()) == sorted(Network().state_dict())
    assert torch.equal(found(INPUTS), model(INPUTS))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_other_weights_ship_by_their_plain_names():
    model, other = Network(), Network()
    expected = bits(other)
    for state in (
        other.state_dict(),
        {f"module._orig_mod.{name}": value for name, value in other.state_dict().items()},
    ):
        assert bits(shipped(model, state)) == expected
    with pytest.raises(metav.ModelError, match=r"do not fit the Network: body\.weight is missing"):
        shipped(model, {name: value for name, value in other.state_dict().items() if name != "body.weight"})
    with pytest.raises(metav.ModelError, match="head"):
        shipped(model, {**other.state_dict(), "head.more": torch.zeros(1)})


def test_a_part_ships():
    model = nn.ModuleDict({"inner": nn.Sequential(Network())})
    assert bits(shipped(model, part="inner.0")) == bits(model["inner"][0])
    with pytest.raises(metav.InputError, match="part='outer' is no submodule of ModuleDict; expected one of inner"):
        shipped(model, part="outer")


def test_weights_in_shards_are_refused(one_process_group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = Network()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(metav.ModelError, match=r"lie in shards on several processes \(DTensor\); gather them"):
        shipped(model)
    with pytest.raises(metav.ModelError, match=r"must be a torch\.nn\.Module, got dict"):
        shipped({})


def test_a_fresh_model_has_new_weights_but_where_nothing_trains():
    model = Network()
    model.body.requires_grad_(False)
    before = bits(model)
    torch.manual_seed(1)
    one = fresh(model)
    assert bits(one.body) == bits(model.body)
    assert not any(entry.requires_grad for entry in one.body.parameters())
    assert bits(one.head) != bits(model.head)
    assert bits(model) == before
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.weight.add_(1.0)
    assert structure_identity(other) == structure_identity(model)
    with torch.no_grad():
        other.body.weight.add_(1.0)
    assert structure_identity(other) != structure_identity(model)
