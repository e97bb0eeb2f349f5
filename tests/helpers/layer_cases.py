"""Models of all kinds of layer, wrapper and precision, for one small task: inputs (4, 6), three classes."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

STEPS, FEATURES, CLASSES = 4, 6, 3
INPUTS = STEPS * FEATURES


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def images(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Unflatten(1, (1, STEPS)), *layers)


class Function(nn.Module):
    """A model whose forward is a function of its parts."""

    def __init__(self, call: Callable[[Function, Tensor], object], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, inputs: Tensor) -> object:
        return self.call(self, inputs)


def recurrent(kind: type[nn.Module], **options: object) -> nn.Module:
    width = 8 * (2 if options.get("bidirectional") else 1)
    body = kind(FEATURES, 8, batch_first=True, **options)
    return Function(lambda self, x: self.head(self.body(x)[0][:, -1]), body=body, head=nn.Linear(width, CLASSES))


def projected() -> nn.Module:
    body = nn.LSTM(FEATURES, 8, batch_first=True, proj_size=4)
    return Function(lambda self, x: self.head(self.body(x)[0][:, -1]), body=body, head=nn.Linear(4, CLASSES))


def recurrent_alone() -> nn.Module:
    return Function(lambda self, x: self.body(x)[0][:, -1], body=nn.LSTM(FEATURES, CLASSES, batch_first=True))


def cell_in_a_loop() -> nn.Module:
    def call(self: Function, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0])

    return Function(call, cell=nn.LSTMCell(FEATURES, 8), head=nn.Linear(8, CLASSES))


def attention() -> nn.Module:
    body = nn.MultiheadAttention(FEATURES, 2, batch_first=True)
    return Function(lambda self, x: self.head(self.body(x, x, x)[0].mean(1)), body=body, head=nn.Linear(6, CLASSES))


def transformer(**options: object) -> nn.Module:
    layer = nn.TransformerEncoderLayer(FEATURES, 2, 12, batch_first=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        body = nn.TransformerEncoder(layer, 1)
    return Function(lambda self, x: self.head(self.body(x).mean(1)), body=body, head=nn.Linear(FEATURES, CLASSES))


def vision_transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(FEATURES, 2, 12, batch_first=True)
    return Function(
        lambda self, x: self.head(self.body(torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places)[:, 0]),
        token=nn.Parameter(torch.randn(1, 1, FEATURES)),
        places=nn.Parameter(torch.randn(1, STEPS + 1, FEATURES)),
        body=layer,
        head=nn.Linear(FEATURES, CLASSES),
    )


def raw_parameters() -> nn.Module:
    return Function(lambda self, x: x.flatten(1) @ self.weights, weights=nn.Parameter(torch.randn(INPUTS, CLASSES)))


def tied() -> nn.Module:
    return Function(
        lambda self, x: self.head(torch.relu(self.body(torch.relu(self.body(x.flatten(1)))))),
        body=nn.Linear(INPUTS, INPUTS),
        head=nn.Linear(INPUTS, CLASSES),
    )


def frozen_body() -> nn.Module:
    model = mlp()
    model[1].requires_grad_(False)
    return model


def each_linear(change: Callable[..., object], *arguments: object, **options: object) -> nn.Module:
    model = mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for index in (1, 3):
            changed = change(model[index], *arguments, **options)
            model[index] = changed if isinstance(changed, nn.Module) else model[index]
    return model


def converted(change: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def convert(model: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return change(model.eval())

    return convert


def part_compiled(model: nn.Module) -> nn.Module:
    model[1] = torch.compile(model[1])
    return model


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def with_lock(model: nn.Module) -> nn.Module:
    model[1].lock = threading.Lock()
    return model


def with_hooks(model: nn.Module) -> nn.Module:
    seen: list[tuple[int, ...]] = []
    model[1].register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape)))
    return model


def on_meta(model: nn.Module) -> nn.Module:
    return model.to("meta")


def averaged(model: nn.Module) -> nn.Module:
    return torch.optim.swa_utils.AveragedModel(model)


def exported(model: nn.Module) -> nn.Module:
    return torch.export.export(model, (torch.zeros(2, STEPS, FEATURES),)).module()


def quantized(model: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def traced(model: nn.Module) -> nn.Module:
    return torch.jit.trace(model, torch.zeros(2, STEPS, FEATURES))


def function_of_mlp(call: Callable[[nn.Module, Tensor], object]) -> nn.Module:
    return Function(lambda self, x: call(self.body, x), body=mlp())


def without_gradient(body: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return body(x)


def tokens() -> nn.Module:
    return Function(
        lambda self, x: self.head(self.table(x.flatten(1).round().long().clamp(0, 9)).mean(1)),
        table=nn.Embedding(10, 8),
        head=nn.Linear(8, CLASSES),
    )


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module] | None]] = {
    "fully connected network": (mlp, None),
    "logistic regression, one `Linear`": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, CLASSES)), None),
    "parameters without a layer": (raw_parameters, None),
    "`Conv2d`, `BatchNorm2d`": (
        lambda: images(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * INPUTS, CLASSES)
        ),
        None,
    ),
    "`Conv1d`, `LayerNorm`": (
        lambda: nn.Sequential(nn.Conv1d(STEPS, 4, 3), nn.LayerNorm(4), nn.GELU(), nn.Flatten(), nn.Linear(16, CLASSES)),
        None,
    ),
    "grouped `Conv1d`, `GroupNorm`": (
        lambda: nn.Sequential(
            nn.Conv1d(STEPS, 8, 3, groups=2), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(32, CLASSES)
        ),
        None,
    ),
    "`ConvTranspose1d`, `InstanceNorm1d`": (
        lambda: nn.Sequential(
            nn.ConvTranspose1d(STEPS, 4, 3), nn.InstanceNorm1d(4), nn.Flatten(), nn.Linear(32, CLASSES)
        ),
        None,
    ),
    "`BatchNorm1d` without running statistics": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(INPUTS, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, CLASSES)
        ),
        None,
    ),
    "`LSTM` with a head": (lambda: recurrent(nn.LSTM), None),
    "`GRU`, two layers, both directions, with a head": (
        lambda: recurrent(nn.GRU, num_layers=2, bidirectional=True),
        None,
    ),
    "`LSTM` with projections and a head": (projected, None),
    "`LSTM` alone": (recurrent_alone, None),
    "`LSTMCell` in a loop": (cell_in_a_loop, None),
    "`MultiheadAttention`": (attention, None),
    "`TransformerEncoder`": (transformer, None),
    "`TransformerEncoder`, norm first, dropout": (lambda: transformer(norm_first=True, dropout=0.3), None),
    "class token and places beside a `TransformerEncoderLayer`": (vision_transformer, None),
    "one layer used twice": (tied, None),
    "frozen first layer": (frozen_body, None),
    "`torch.nn.utils.weight_norm`": (lambda: each_linear(nn.utils.weight_norm), None),
    "`parametrizations.weight_norm`": (lambda: each_linear(parametrizations.weight_norm), None),
    "`torch.nn.utils.spectral_norm`": (lambda: each_linear(nn.utils.spectral_norm), None),
    "`parametrizations.spectral_norm`": (lambda: each_linear(parametrizations.spectral_norm), None),
    "`parametrizations.orthogonal`": (lambda: each_linear(parametrizations.orthogonal), None),
    "`prune.l1_unstructured`": (lambda: each_linear(prune.l1_unstructured, "weight", 0.3), None),
    "`prune.ln_structured`": (lambda: each_linear(prune.ln_structured, "weight", 0.3, n=2, dim=0), None),
    "`torch.compile`": (mlp, torch.compile),
    "`torch.compile` of one part": (mlp, part_compiled),
    "`Module.compile`": (mlp, compiled_in_place),
    "`DataParallel`": (mlp, nn.DataParallel),
    "`AveragedModel`": (mlp, averaged),
    "`torch.jit.script`": (mlp, converted(torch.jit.script)),
    "`torch.jit.trace`": (mlp, converted(traced)),
    "`torch.fx.symbolic_trace`": (mlp, torch.fx.symbolic_trace),
    "module of `torch.export`": (mlp, converted(exported)),
    "`quantize_dynamic`": (mlp, converted(quantized)),
    "half precision": (mlp, lambda model: model.half()),
    "bfloat16": (mlp, lambda model: model.bfloat16()),
    "double precision": (mlp, lambda model: model.double()),
    "forward hooks": (mlp, with_hooks),
    "a lock as an attribute": (mlp, with_lock),
    "weights on the device meta": (mlp, on_meta),
    "`LazyLinear` that has not been run": (
        lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(CLASSES)),
        None,
    ),
    "numbers of tokens, cast and looked up": (tokens, None),
    "inputs cast to integers": (lambda: function_of_mlp(lambda body, x: body(x.long().float())), None),
    "inputs rounded": (lambda: function_of_mlp(lambda body, x: body(x.round())), None),
    "NumPy inside": (
        lambda: function_of_mlp(lambda body, x: body(torch.from_numpy(np.tanh(x.detach().numpy())))),
        None,
    ),
    "`torch.no_grad` inside": (lambda: function_of_mlp(without_gradient), None),
    "complex answers": (lambda: function_of_mlp(lambda body, x: torch.complex(body(x), body(x))), None),
    "answers squeezed": (lambda: function_of_mlp(lambda body, x: body(x).squeeze()), None),
}
"""By name: a function that builds a fresh model, and one that changes it once it is trained; None for no change."""


def examples(count: int = 65) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels that a few steps learn; of 65, a batch size of 16 leaves a last batch of one."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % CLASSES
    inputs = random.normal(size=(count, STEPS, FEATURES)).astype(np.float32)
    inputs[np.arange(count), :, labels] += 2.0
    return inputs, labels


def trained(name: str, seed: int = 0) -> nn.Module:
    """The model of a case, trained for a few steps where it can be."""
    build, change = CASES[name]
    torch.manual_seed(seed)
    model = build()
    inputs, labels = map(torch.as_tensor, examples())
    if not any(nn.parameter.is_lazy(entry) for entry in model.parameters()):
        taught = [entry for entry in model.parameters() if entry.requires_grad]
        optimizer = torch.optim.Adam(taught, lr=2e-2)
        for _ in range(25):
            outputs = model(inputs)
            if not outputs.requires_grad or outputs.is_complex():
                break
            optimizer.zero_grad()
            nn.functional.cross_entropy(outputs, labels).backward()
            optimizer.step()
        model.zero_grad()
    model = model.eval()
    return model if change is None else change(model)
