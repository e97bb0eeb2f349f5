"""Run by test_extension_points.py against a build that has the view `power` and the verifier kind `linear`."""

import sys

import numpy as np
import pytest
import torch

import metav
from metav import _core
from metav.verifiers.kinds import VERIFIER_KINDS

assert _core.__file__.startswith(sys.argv[1]), f"this is another build: {_core.__file__}"

assert list(_core.views())[-1] == "power"
assert _core.views()["power"] == {"parameter": True, "reads_classes": False, "reads_labels": False}
assert list(_core.verifier_kinds())[-1] == list(VERIFIER_KINDS)[-1] == "linear"
assert _core.verifier_kinds()["linear"] == {"closed_form": False, "preferred": False, "pairs_with_owner": True}
assert _core.parameter_shapes("linear", 4, 3) == {"weight": (4, 3), "bias": (1,), "shift": (4, 3), "scale": (3,)}

generator = np.random.default_rng(0)
responses = generator.normal(size=(6, 4, 3)).astype(np.float32)
np.testing.assert_allclose(_core.apply_view(responses, "power(3)"), responses**3, rtol=1e-5)
ones = np.ones_like(responses)
np.testing.assert_allclose(_core.view_gradient(responses, ones, "power(3)"), 3 * responses**2, rtol=1e-5)
for view, message in {"power(4)": "out of range", "powers(1)": r"use .*tempered or power\(k\)"}.items():
    with pytest.raises(ValueError, match=message):
        _core.apply_view(responses, view)

roles = bytes([2, 1, 1, 0, 0, 0])
verifier = _core.Verifier("linear", 4, 3, view="power(2)")
verifier.standardize(responses)
assert (verifier.scores(responses) == np.float32(1 / (1 + np.exp(-0.5)))).all()
losses = [verifier.step(responses, roles, learning_rate=0.05) for _ in range(200)]
assert losses[-1] < 0.5 * losses[0]

own = verifier.parameters()
z = ((responses**2 - own["shift"]) / own["scale"]).reshape(6, -1)
logits = z @ own["weight"].ravel() + own["bias"]
np.testing.assert_allclose(verifier.logits(responses), logits, rtol=1e-4, atol=1e-5)
gradient = np.empty_like(responses)
verifier.step(responses, roles, gradient=gradient, update=False)
targets = np.array([1, 1, 1, 0, 0, 0])
by_logit = (1 / (1 + np.exp(-logits)) - targets) / np.array([1, 2, 2, 3, 3, 3])
expected = by_logit[:, None, None] * own["weight"] / own["scale"] * 2 * responses
np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-6)

copy = _core.Verifier("linear", 4, 3, view="power(2)", seed=1)
copy.load_parameters(own)
np.testing.assert_array_equal(copy.scores(responses), verifier.scores(responses))

# and as users have them: named in the options, stored in the file, asked for a verdict
options = metav.OptimizationOptions(queries=6, view="power(2)", verifier="linear", steps=4, refit_steps=50, repeats=2)
inputs = generator.normal(size=(60, 3)).astype(np.float32)
task = metav.Regression(inputs, inputs @ np.ones((3, 1), np.float32), epochs=3)
owner = task.train(torch.nn.Linear(3, 1), seed=0)
zoo = metav.build_zoo(owner, task, positives=6, negatives=6, families=["weight_noise", "finetune_all"], snapshots=0)
made = metav.fingerprint(owner, task, zoo=zoo, options=options, target_fpr=0.4)
made.save("power.metav")
again = metav.load("power.metav")
assert again.task.view == "power(2)"
assert {kind.partition(":")[0] for kind in again.meta_verifier.kinds} == {"linear"}
assert metav.verify(again, owner).score == metav.verify(made, owner).score
