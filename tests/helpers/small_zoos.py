"""The small task that zoos of the tests are built for, and what two zoos are compared by."""

from __future__ import annotations

from small_models import bits, digits

from metav.tasks.classification import Classification

INDEPENDENT = "independent_same_data"


def small_task(epochs: float = 6, **options) -> Classification:
    images, labels = digits()
    return Classification(images[:400], labels[:400], epochs=epochs, learning_rate=1e-2, **options)


def contents(zoo):
    return [
        (
            entry.family,
            entry.strength,
            entry.seed,
            entry.run,
            entry.fraction,
            entry.share,
            entry.metric,
            bits(entry.model),
        )
        for entry in zoo
    ]
