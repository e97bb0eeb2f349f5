"""A user's models on the command line: by the name of a function, with weights. Nothing is ever unpickled."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metav.errors import InputError, ModelError

if TYPE_CHECKING:
    pass

PREFIXES = ("_orig_mod.", "module.")
"""What `torch.compile`, and `DataParallel` with its kin, put in front of all names of a state."""
_SAVING = 'safetensors.torch.save_file(model.state_dict(), "w.safetensors")'


@contextmanager
def importing_from_here() -> Iterator[None]:
    """Put the current folder first on sys.path, for the modules that a user names; then take it away again."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        # the first one only: where it stood before, it stays
        if here in sys.path:
            sys.path.remove(here)


def names_a_builder(text: str) -> bool:
    """Whether a text has the form pkg.module:build."""
    module, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def find_builder(text: str, returns: str = "a fresh model") -> Callable[..., Any]:
    """Return the callable that pkg.module:build names; InputError where there is none, or its module fails.

    returns: what it is expected to return, for the messages.
    """
    module_name, _, name = text.partition(":")
    if not names_a_builder(text):
        raise InputError(
            f"{text!r} names no callable; expected pkg.module:build, a function build in the module pkg.module that "
            f"returns {returns}"
        )
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(
                f"the module {module_name} of {text} needs {error.name}, which cannot be imported"
            ) from error
        raise InputError(
            f"there is no module {error.name} for {text}{_meant(error.name, _modules_here())}; run metav in the folder "
            "that holds it, or install its package"
        ) from error
    # a module that calls sys.exit must not end this program with an exit code that stands for a verdict
    except (Exception, SystemExit) as error:
        raise InputError(f"the module {module_name} of {text} fails ({type(error).__name__}: {error})") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(
                f"the module {module_name} has no {name}{_meant(part, _callables_of(found))}; expected a function or "
                f"class that returns {returns}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{text} is a {type(found).__name__}, expected a callable that returns {returns}")
    return found  # type: ignore[no-any-return]


def _meant(name: str, known: Iterable[str]) -> str:
    """Return the known name that a mistyped one may stand for, as a question; nothing where none is like it."""
    alike = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {alike[0]}?)" if alike else ""


def _modules_here() -> list[str]:
    return [file.stem for file in Path.cwd().glob("*.py")]


def _callables_of(holder: Any) -> list[str]:
    return [name for name in dir(holder) if not name.startswith("_") and callable(getattr(holder, name, None))]


def build_model(text: str, weights: str | None, *, trained: bool = False) -> Any:
    """Return the model that pkg.module:build returns, with its weights from a safetensors file.

    trained: whether build() returns a trained model, so that no weights are needed. A callable that is no module, such
    as a remote model's client, is returned as it is. InputError, ModelError.
    """
    try:
        model = find_builder(text)()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{text}() fails ({type(error).__name__}: {error}); expected a function that needs no arguments"
        ) from error
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        if weights is not None or not callable(model):
            raise ModelError(f"{text}() returned a {type(model).__name__}, expected a torch.nn.Module")
        return model
    if weights is not None:
        load_weights(model, weights)
    elif not trained:
        raise InputError(
            f"{text}() returned a model, and no --weights were given; pass a safetensors file, or --trained if the "
            "model comes with its weights"
        )
    return model


def load_weights(model: Any, path: str) -> None:
    """Fill a module with the weights of a safetensors file; InputError for another file, ModelError for a misfit.

    Names may carry what `torch.compile`, `DataParallel` or `DistributedDataParallel` put in front of them.
    """
    file = Path(path)
    if file.suffix.lower() != ".safetensors":
        raise InputError(
            f"{path} is no .safetensors file, and a file of any other kind may run code when it is loaded; save the "
            f"weights with {_SAVING}"
        )
    if not file.is_file():
        raise InputError(f"there is no file {path}; expected weights, saved with {_SAVING}")
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_model

    from metav.models.copying import unwrapped

    misfit = f"the weights in {path} do not fit {type(model).__qualname__}"
    cure = "pass the weights of this architecture"
    try:
        inner = unwrapped(model)
        with safe_open(path, framework="pt") as content:
            holder = _held_as_named(inner, list(content.keys()))
        missing, unknown = load_model(holder, path, strict=False)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); save the weights again with {_SAVING}") from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"{misfit}: {_first(_misfits(str(error)))}; {cure}") from error
    if missing or unknown:
        raise ModelError(f"{misfit}: it lacks {_first(missing)}, and has no place for {_first(unknown)}; {cure}")


def _held_as_named(model: Any, names: list[str]) -> Any:
    """Return a module in which the model's weights have the names of a file, with the prefixes of wrappers."""
    from torch import nn

    own = list(model.state_dict())
    prefix = next((entry for entry in PREFIXES if names and all(name.startswith(entry) for name in names)), None)
    if prefix is None or any(name.startswith(prefix) for name in own):
        return model
    holder = nn.Module()
    holder.add_module(prefix.rstrip("."), _held_as_named(model, [name.removeprefix(prefix) for name in names]))
    return holder


def _misfits(message: str) -> list[str]:
    """Return what PyTorch says of each weight that does not fit, without its heading."""
    heading, *lines = message.splitlines() or [""]
    return [line.strip().rstrip(".") for line in lines if line.strip()] or [heading]


def _first(names: Iterable[str], count: int = 5) -> str:
    """Return the first few of some names, and how many more there are."""
    listed = sorted(name.strip() for name in names)
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return (", ".join(listed[:count]) or "nothing") + more
