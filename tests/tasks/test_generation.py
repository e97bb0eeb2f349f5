"""Generation: its training and its latents."""

from __future__ import annotations

from small_models import Generator, digits

from metav.support.randomness import isolated_rng
from metav.tasks.generation import Generation

IMAGES, _ = digits()


def test_adversarial_generator_learns():
    task = Generation(IMAGES[:600], latent=4, objective="adversarial", epochs=12, learning_rate=4e-3)
    with isolated_rng(0):
        model = Generator()
    before = task.metric(model)
    assert task.metric(task.train(model, seed=1)) < 0.5 * before


def test_latent_queries_lie_within_the_bounds():
    queries = Generation(IMAGES[:50], latent=(3, 2), bounds=(-1.0, 0.5)).natural_queries(200, seed=0)
    assert queries.shape == (200, 3, 2)
    assert float(queries.min()) >= -1.0
    assert float(queries.max()) <= 0.5
