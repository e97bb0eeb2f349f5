"""How near honest models come to an owner whose recipe is not told, and what a place beyond them costs: a table.

    python tests/benchmarks/kin_places.py --data FOLDER [--zoos 1] [--told]

The places of `metav.statistics.kin` were chosen by such a table. Six development owners, none of them in any
experiment: Fashion-MNIST at 8x8 pixels, two sets of classes, three training loops in plain PyTorch; two zoos each, no
recipe told. A place is where a logit lies between the threshold, 0, and the owner's own logit, 1. A line of each
fingerprint tells how far the owner's answers lie outside of the independent models' (`outlyingness`), the place that
follows, and how far its kin come. With --told the recipe is told, so that the threshold alone decides, and students
taught by labels are among the derived models. --cache keeps the zoos, for another run.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_models import pruned, trained
from torch import Tensor, nn
from torch.nn import functional

import metav
from metav.statistics.kin import kin_place

CLASS_SETS = ((1, 2, 3, 5, 7, 8, 9), (0, 1, 5, 8, 9))
RECIPES: dict[str, dict[str, Any]] = {
    "adam": {"epochs": 15, "rate": 2e-3, "batch": 32},
    "sgd": {"momentum": 0.9, "rate": 0.03, "epochs": 40, "decay": 5e-4, "batch": 64},
    "soft": {"epochs": 45, "rate": 1e-3, "smoothing": 0.1, "is_shifted": True, "batch": 32},
}
"""Training loops by name: options of `trained`."""
PLACES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
OWNER_SEED = 11


class SmallCNN(nn.Module):
    """The owner's architecture."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.third = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.hidden = nn.Linear(8 * width, 40)
        self.last = nn.Linear(40, classes)

    def forward(self, images: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.third):
            images = functional.relu(layer(images))
        return self.last(functional.relu(self.hidden(images.flatten(1))))


def read(data: Path, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return images (n, 1, 8, 8) in [0, 1] and labels of some classes, in random order."""
    with np.load(data / "fashion_mnist_20k.npz") as found:
        images, labels = torch.tensor(found["train_images"]), torch.tensor(found["train_labels"].astype(np.int64))
    wanted = torch.isin(labels, torch.tensor(classes))
    small = functional.adaptive_avg_pool2d(images[wanted][:, None].float() / 255, (8, 8))
    order = torch.randperm(len(small), generator=torch.Generator().manual_seed(3))
    return small[order], torch.searchsorted(torch.tensor(classes), labels[wanted])[order]


def honest(
    name: str, fresh: Callable[[int], nn.Module], parts: dict[str, tuple[Tensor, Tensor]]
) -> Iterator[nn.Module]:
    """Yield honest models: kin, kin on other data, and those of the other recipes."""
    for seed in range(100, 114):
        yield trained(fresh(seed), *parts["owner"], seed, **RECIPES[name])
    for seed in range(200, 206):
        yield trained(fresh(seed), *parts["thief"], seed, **RECIPES[name])
    for other in RECIPES.keys() - {name}:
        for seed in range(300, 306):
            yield trained(fresh(seed), *parts["owner"], seed, **RECIPES[other])


def derived(
    owner: nn.Module, fresh: Callable[[int], nn.Module], parts: dict[str, tuple[Tensor, Tensor]], by_labels: bool
) -> Iterator[Any]:
    """Yield copies of the owner's model: fine-tuned, fine-tuned hard, pruned, and students."""
    for seed in range(600, 606):
        yield trained(copy.deepcopy(owner), *parts["thief"], seed, epochs=3, rate=5e-4, batch=32)
        yield trained(copy.deepcopy(owner), *parts["thief"], seed, epochs=8, rate=2e-3, batch=32)
        yield pruned(owner, 0.2 + 0.07 * (seed - 600))
        for tells_labels in (False, True) if by_labels else (False,):
            student: dict[str, Any] = {"teacher": owner, "tells_labels": tells_labels, "batch": 32}
            yield trained(fresh(seed), *parts["thief"], seed, epochs=30, rate=2e-3, **student)


def places(number: int, name: str, options: argparse.Namespace) -> Iterator[tuple[bool, float, bool]]:
    """Yield (derived, place, whether it matches) of every suspect beside every fingerprint of one owner.

    number: of its set of classes. name: of its training loop.
    """
    classes = CLASS_SETS[number]
    images, labels = read(options.data, classes)
    parts = {"owner": (images[:800], labels[:800]), "thief": (images[800:1900], labels[800:1900])}

    def fresh(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return SmallCNN(len(classes))

    def recipe(seed: int) -> nn.Module:
        return trained(fresh(seed), *parts["owner"], seed, **RECIPES[name])

    owner = recipe(OWNER_SEED)
    suspects = [(False, model) for model in honest(name, fresh, parts)]
    suspects += [(True, model) for model in derived(owner, fresh, parts, options.told)]
    told: dict[str, Any] = {"recipe": recipe} if options.told else {}
    task = metav.Classification(*parts["owner"], bounds=(0.0, 1.0))
    size = {"positives": options.size, "negatives": options.size, "jobs": -1, "progress": False}
    for seed in range(1, options.zoos + 1):
        tag = f"{number}{name}{seed}{'told' if options.told else 'untold'}"
        cache = None if options.cache is None else options.cache / tag
        zoo = metav.build_zoo(owner, task, seed=seed, cache=cache, **size, **told)
        fp = metav.fingerprint(owner, task, zoo=zoo, seed=seed, progress=False)
        queries, threshold = torch.tensor(fp.queries), fp.calibration.threshold
        with torch.no_grad():
            answers = np.stack([model(queries).numpy() for model in (owner, *(model for _, model in suspects))])
        logits = fp.logits(answers)
        found = [float((logit - threshold) / (logits[0] - threshold)) for logit in logits[1:]]
        place = 0.0 if options.told else kin_place(fp.check["outlyingness"], apart=fp.check["standing"]["apart"])
        nearest = max(value for (is_derived, _), value in zip(suspects, found, strict=True) if not is_derived)
        print(
            f"classes {number + 1}, {name}, zoo {seed}: outlyingness {fp.check['outlyingness']:.2f}, "
            f"place {place:.2f}, the nearest honest model {nearest:.2f}",
            flush=True,
        )
        for (is_derived, _), value in zip(suspects, found, strict=True):
            yield is_derived, value, value >= place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with fashion_mnist_20k.npz")
    parser.add_argument("--zoos", type=int, default=2, help="of each owner")
    parser.add_argument("--size", type=int, default=48, help="surrogates of each class")
    parser.add_argument("--told", action="store_true", help="tell the recipe, and ask students taught by labels, too")
    parser.add_argument("--cache", type=Path, help="folder of trained zoos, to continue from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # each zoo says that no recipe was told
    found: list[tuple[bool, float, bool]] = []
    for number in range(len(CLASS_SETS)):
        for name in RECIPES:
            found += places(number, name, options)
    for place in PLACES:
        print(f"place {place:.1f}: {rates((entry[0], entry[1] >= place) for entry in found)}", flush=True)
    print(f"verdicts: {rates((entry[0], entry[2]) for entry in found)}", flush=True)


def rates(entries: Iterable[tuple[bool, bool]]) -> str:
    """Return how many honest models match and how many derived ones, of (derived, whether it matches)."""
    kinds: dict[bool, list[bool]] = {False: [], True: []}
    for is_derived, matches in entries:
        kinds[is_derived].append(matches)
    shown = [f"{sum(values)} of {len(values)} ({sum(values) / len(values):.1%})" for values in kinds.values()]
    return f"honest accused {shown[0]}, derived found {shown[1]}"


if __name__ == "__main__":
    main()
