"""What ships: the model without what only training puts around it, in a copy of its own, or a fresh one of its kind."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from metav.errors import InputError, ModelError
from metav.models.architectures import redraw
from metav.models.copying import COMPILED, duplicate, state_names, unwrapped
from metav.models.identity import architecture_identity, tensor_digest

WRAPPERS = (COMPILED, "module.")
"""What `torch.compile`, `DataParallel` with its kin and averages put into the names of a state."""
_AUTOCAST = ("forward", "_original_forward")
_SHARDED = ("FullyShardedDataParallel", "DTensor", "DeepSpeedEngine")


def shipped(model: nn.Module, weights: Mapping[str, Tensor] | None = None, *, part: str | None = None) -> nn.Module:
    """Return a private copy of the model that ships, in eval mode.

    Left away are `DistributedDataParallel` and `DataParallel`, `torch.compile`, the average's own wrapper
    (`AveragedModel`) and parametrisations, whose computed weights become plain ones.

    weights: that ship instead of the model's own, such as a moving average or those of the best checkpoint, by name.
    part: name of the submodule that ships, such as "net" or "model.encoder"; None for the whole model.

    Raises ModelError for a model that cannot be copied, whose weights lie in shards, or that others do not fit.
    """
    inner = _unwrapped(model)
    _check_whole(inner)
    clone = duplicate(inner).eval()
    if weights is not None:
        _load(clone, weights)
    return _without_parametrizations(_part(clone, part)).eval()


def fresh(template: nn.Module) -> nn.Module:
    """Return a copy of a model with new weights, drawn from the global generator.

    Parameters that do not train (`requires_grad=False`) stay as they are: a frozen body is no result of the training.
    """
    clone = duplicate(template)
    with torch.no_grad():
        redraw(clone)
    fix_as_in(template, clone)
    return clone


def fix_as_in(template: nn.Module, model: nn.Module) -> None:
    """Give a model the parameters of a template of its kind that do not train, and let them train no more here."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, entry in _fixed(template).items():
            if name in own:
                own[name].requires_grad_(False).copy_(entry)


def structure_identity(template: nn.Module) -> str:
    """Return a digest of what `fresh` copies share: the structure, and the parameters that do not train."""
    return f"{architecture_identity(template)} {tensor_digest(_fixed(template))}"


def _fixed(template: nn.Module) -> dict[str, nn.Parameter]:
    return {name: entry for name, entry in template.named_parameters() if not entry.requires_grad}


def _unwrapped(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ModelError(f"what ships must be a torch.nn.Module, got {type(model).__name__}; pass the trained model")
    found = unwrapped(model)
    while isinstance(found, AveragedModel):
        found = unwrapped(found.module)
    return _in_full_precision(found)


def _in_full_precision(model: nn.Module) -> nn.Module:
    """Return the model without the autocast that accelerate puts around its forward; it itself keeps it."""
    if "_original_forward" not in vars(model):
        return model
    plain = type(model).__new__(type(model))
    vars(plain).update({name: value for name, value in vars(model).items() if name not in _AUTOCAST})
    return plain


def _check_whole(model: nn.Module) -> None:
    names = [type(part).__name__ for part in model.modules()] + [type(entry).__name__ for entry in model.parameters()]
    for name in _SHARDED:
        if name in names:
            raise ModelError(
                f"the weights of the {type(model).__name__} lie in shards on several processes ({name}); gather them "
                "into one state dict and ship a plain model with these weights"
            )


def _part(model: nn.Module, name: str | None) -> nn.Module:
    if name is None:
        return model
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        known = ", ".join(child for child, _ in model.named_children())
        raise InputError(f"part={name!r} is no submodule of {type(model).__name__}; expected one of {known}") from error


def _load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    given = {_plain_name(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    given.pop("n_averaged", None)  # the counter of an average
    own = state_names(model)
    unlike = [name for name in own if name not in given or given[name].shape != own[name].shape]
    unlike += [name for name in given if name not in own]
    if unlike:
        raise ModelError(
            f"the weights that are to ship do not fit the {type(model).__name__}: {unlike[0]} is missing, unknown or "
            "of another shape; pass a state dict of this model"
        )
    model.load_state_dict(given, strict=False)


def _plain_name(name: str) -> str:
    name = name.replace(COMPILED, "")
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _without_parametrizations(model: nn.Module) -> nn.Module:
    """Return the model with computed weights as plain ones: what is exported, and what worker processes can be sent.

    PyTorch's own `remove_parametrizations` would change the class that copies share with their original.
    """
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        computed = [
            (name, getattr(module, name).detach().clone(), any(True for _ in entry.parameters(recurse=False)))
            for name, entry in module.parametrizations.items()  # type: ignore[operator, union-attr]
        ]
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, value, trains in computed:
            if trains:
                module.register_parameter(name, nn.Parameter(value))
            else:
                module.register_buffer(name, value)
    return model
