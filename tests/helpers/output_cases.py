"""Forms of outputs, inputs, tasks and data, with what a user writes and a trial of each: the rows of what_works.md."""

from __future__ import annotations

import collections
import copy
import functools
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import metav
from metav.models.stored_tensors import StoredTensor
from metav.support.randomness import isolated_rng

FEATURES, CLASSES = 6, 3
OPTIONS = metav.OptimizationOptions(queries=8, steps=2, repeats=1, refit_steps=10, verifier="local", sampled=2)
ZOO = {"positives": 3, "negatives": 7, "snapshots": 0, "free_negatives": False, "architectures": []}
LIGHT = ("weight_noise", "finetune_last")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: what a user has, what it takes, and a trial that returns what happens ("works", or a message)."""

    has: str
    write: str = ""
    trial: Callable[[], str]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def vectors() -> np.ndarray:
    return random(80, FEATURES)


@functools.cache
def classes() -> np.ndarray:
    return (vectors() @ random(FEATURES, CLASSES, seed=1)).argmax(axis=1)


@functools.cache
def images() -> np.ndarray:
    return random(48, 1, 8, 8, seed=2)


@functools.cache
def masks() -> np.ndarray:
    return (images()[:, 0] > 0).astype(int) + (images()[:, 0] > 1)


def classification(**options: Any) -> metav.Classification:
    return metav.Classification(
        vectors(), classes(), **{"epochs": 2, "learning_rate": 2e-2, "batch_size": 16, **options}
    )


# Trials --------------------------------------------------------------------------------------------------------------


def fingerprint_of(owner: nn.Module, task: Any, families: tuple[str, ...] | None = LIGHT, **options: Any) -> Any:
    """A fingerprint of an owner's model that `task.train` has trained, from the smallest zoo."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sizes = {**ZOO, "positives": 3 if families else 14}
        zoo = metav.build_zoo(owner, task, families=families, **sizes, **options)
        return metav.fingerprint(owner, task, zoo=zoo, options=OPTIONS, target_fpr=0.4)


def owner_and_suspect(
    build: Callable[[], nn.Module], task: Any = None, *, trains: bool = True, families: Any = LIGHT, **options: Any
) -> str:
    """Makes a fingerprint, and verifies the owner's own model as a suspect: the score has to be the one that it had."""
    task = classification() if task is None else task
    with isolated_rng(0):
        owner = build()
    if trains:
        task.train(owner, seed=0)
    fp = fingerprint_of(owner, task, families, **options)
    verdict = metav.verify(fp, owner, **options)
    assert verdict.score == pytest.approx(fp.check["owner_score"], abs=1e-4), verdict
    return "works"


def refusal(call: Callable[[], Any]) -> str:
    """The message of the error that a call raises."""
    with pytest.raises(metav.MetavError) as caught:
        call()
    return str(caught.value)


def as_suspect(fp: Any, suspect: Any, **options: Any) -> str:
    """Verifies a suspect that answers what the owner answers, in another form: it has to be scored."""
    verdict = metav.verify(fp, suspect, **options)
    assert verdict.score is not None, verdict
    return "works"


def same_task(made: Any, plain: Any) -> str:
    """A task from another form of the same data has to be the same task."""
    assert made.digest() == plain.digest()
    return "works"


# Models --------------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    features: Tensor
    logits: Tensor


@dataclass
class Record:
    logits: Tensor
    features: Tensor | None = None


@dataclass
class Output(collections.OrderedDict):
    """As transformers' ModelOutput: a dataclass that is an ordered dictionary."""

    logits: Tensor | None = None
    states: Any = field(default=None)

    def __post_init__(self) -> None:
        for name in ("logits", "states"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)


class Net(nn.Module):
    """A small network; `answer` makes its answer from (model, features, scores)."""

    def __init__(
        self, answer: Callable[[Any, Tensor, Tensor], Any] | None = None, outputs: int = CLASSES, inputs: int = FEATURES
    ) -> None:
        super().__init__()
        self.body, self.head, self.answer = nn.Linear(inputs, 16), nn.Linear(16, outputs), answer

    def forward(self, inputs: Tensor) -> Any:
        features = torch.relu(self.body(inputs.flatten(1)))
        scores = self.head(features)
        return scores if self.answer is None else self.answer(self, features, scores)


class Masked(nn.Module):
    """A network of several inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, CLASSES)

    def forward(self, mask: Tensor, values: Tensor, scale: float = 1.0) -> Tensor:
        return self.body(values * mask) * scale


class Dense(nn.Module):
    """A small convolutional network with an answer for each pixel, or each step of a sequence."""

    def __init__(self, outputs: int, *, axes: int = 2, stride: int = 1, last: nn.Module | None = None) -> None:
        super().__init__()
        layer = {1: nn.Conv1d, 2: nn.Conv2d}[axes]
        self.body = layer(1, 6, 3, padding=1, stride=stride)
        self.head, self.last = layer(6, outputs, 1), last or nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.head(torch.relu(self.body(inputs))))


def vision_transformer() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=CLASSES, **sizes))


def text_transformer() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": FEATURES, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=5, num_labels=CLASSES, **sizes))


def token_transformer() -> nn.Module:
    from transformers import BertConfig, BertForTokenClassification

    sizes = {"hidden_size": FEATURES, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return BertForTokenClassification(BertConfig(vocab_size=5, num_labels=CLASSES, **sizes))


class TwoHeads(nn.Module):
    """As the segmentation models of torchvision: an ordered dictionary of two maps, at half the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 6, 3, padding=1, stride=2)
        self.out, self.aux = nn.Conv2d(6, 3, 1), nn.Conv2d(6, 3, 1)

    def forward(self, inputs: Tensor) -> Any:
        features = torch.relu(self.body(inputs))
        return collections.OrderedDict(out=self.out(features), aux=self.aux(features))


def image_task() -> Any:
    return metav.Classification(images(), masks()[:, 4, 4], epochs=1, batch_size=16, classes=CLASSES)


def sentence_task() -> Any:
    sentences = random(48, 4, FEATURES, seed=3)
    return metav.Classification(sentences, sentences.sum(axis=(1, 2)) > 0, classes=CLASSES, epochs=1, batch_size=16)


# Tables --------------------------------------------------------------------------------------------------------------

OUTPUTS = [
    Case(has="one tensor", trial=lambda: owner_and_suspect(Net)),
    Case(
        has="dictionary, one part fits",
        trial=lambda: owner_and_suspect(lambda: Net(lambda _, f, z: {"features": f, "scores": z}), families=None),
    ),
    Case(has="tuple, one part fits", trial=lambda: owner_and_suspect(lambda: Net(lambda _, f, z: (z, f)))),
    Case(has="list, one part fits", trial=lambda: owner_and_suspect(lambda: Net(lambda _, f, z: [f, z]))),
    Case(has="named tuple, one part fits", trial=lambda: owner_and_suspect(lambda: Net(lambda _, f, z: Pair(f, z)))),
    Case(has="dataclass, one part fits", trial=lambda: owner_and_suspect(lambda: Net(lambda _, f, z: Record(z, f)))),
    Case(
        has="`ModelOutput` of transformers (an ordered dictionary and dataclass)",
        trial=lambda: owner_and_suspect(lambda: Net(lambda _, f, z: Output(z, (f, f)))),
    ),
    Case(
        has="`ViTForImageClassification`",
        trial=lambda: owner_and_suspect(vision_transformer, image_task()),
    ),
    Case(
        has="dictionary in a dictionary",
        trial=lambda: owner_and_suspect(lambda: Net(lambda _, f, z: {"heads": {"a": z, "b": f}, "f": f})),
    ),
    Case(
        has="one tensor in eval mode, a tuple in training mode",
        trial=lambda: owner_and_suspect(lambda: Net(lambda m, f, z: (z, f) if m.training else z)),
    ),
    Case(
        has="several that fit, by name",
        write='`output="second"`',
        trial=lambda: owner_and_suspect(
            lambda: Net(lambda _, f, z: {"first": z * 0, "second": z}), trains=False, output="second"
        ),
    ),
    Case(
        has="several that fit, by number",
        write="`output=1`",
        trial=lambda: owner_and_suspect(lambda: Net(lambda _, f, z: (z * 0, z)), trains=False, output=1),
    ),
    Case(
        has="several that fit, by a function",
        write='`output=lambda answer: answer["steps"].mean(1)`',
        trial=lambda: owner_and_suspect(
            lambda: Net(lambda _, f, z: {"steps": z[:, None].expand(-1, 4, -1), "other": z}),
            output=lambda answer: answer["steps"].mean(1),
        ),
    ),
    Case(
        has="several that fit, chosen once for all calls",
        write='`metav.adapt_model(model, output="second")`',
        trial=lambda: owner_and_suspect(
            lambda: metav.adapt_model(Net(lambda _, f, z: {"first": f, "second": z, "third": -z}), output="second")
        ),
    ),
    Case(
        has="several that fit, nothing said",
        trial=lambda: refusal(lambda: owner_and_suspect(lambda: Net(lambda _, f, z: {"a": z, "b": -z}), trains=False)),
    ),
    Case(
        has="none that fits",
        trial=lambda: refusal(lambda: owner_and_suspect(lambda: Net(lambda _, f, z: {"f": f}), trains=False)),
    ),
    Case(
        has="a name that is not there",
        write='`output="scores"`',
        trial=lambda: refusal(
            lambda: owner_and_suspect(lambda: Net(lambda _, f, z: {"a": z, "b": f}), trains=False, output="scores")
        ),
    ),
]

MASK = np.array([[1, 1, 0, 1, 1, 1]], dtype=np.float32)
INPUTS = [
    Case(
        has="several inputs",
        write='`input="values", constants={"mask": mask}`',
        trial=lambda: owner_and_suspect(Masked, trains=False, input="values", constants={"mask": MASK[0]}),
    ),
    Case(
        has="a constant for each query (first axis of 1, repeated)",
        write='`constants={"mask": mask[None], "scale": 2.0}`',
        trial=lambda: owner_and_suspect(
            Masked, trains=False, input="values", constants={"mask": torch.tensor(MASK), "scale": 2.0}
        ),
    ),
    Case(
        has="a text classifier, asked by its embeddings",
        write='`input="inputs_embeds", constants={"attention_mask": mask}`',
        trial=lambda: owner_and_suspect(
            text_transformer,
            sentence_task(),
            trains=False,
            input="inputs_embeds",
            constants={"attention_mask": np.array([[1, 1, 1, 0]])},
        ),
    ),
    Case(
        has="the same, chosen once for all calls",
        write='`metav.adapt_model(model, input="values", constants=...)`',
        trial=lambda: owner_and_suspect(lambda: metav.adapt_model(Masked(), input="values", constants={"mask": MASK})),
    ),
    Case(
        has="several inputs, nothing said",
        trial=lambda: refusal(lambda: owner_and_suspect(Masked, trains=False)),
    ),
    Case(
        has="a name of no input",
        write='`input="x"`',
        trial=lambda: refusal(lambda: owner_and_suspect(Masked, trains=False, input="x")),
    ),
]


def two_classes() -> Any:
    return metav.Classification(vectors(), classes() > 0, epochs=2, learning_rate=2e-2, batch_size=16)


def multi_label(**options: Any) -> Any:
    labels = (vectors() @ random(FEATURES, 4, seed=4) > 0).astype(int)
    return metav.MultiLabelClassification(
        vectors(), labels, **{"epochs": 2, "learning_rate": 2e-2, "batch_size": 16, **options}
    )


def segmentation(**options: Any) -> Any:
    return metav.Segmentation(images(), masks(), **{"epochs": 2, "learning_rate": 2e-2, **options})


def two_regions() -> Any:
    return metav.Segmentation(images(), masks() > 0, epochs=2, learning_rate=2e-2)


def steps() -> Any:
    waves = random(48, 1, 12, seed=5)
    return metav.Segmentation(waves, (waves[:, 0] > 0).astype(int), epochs=2, learning_rate=2e-2, classes=3)


def tokens() -> Any:
    sentences = random(48, 5, FEATURES, seed=6)
    return metav.Segmentation(sentences, (sentences.sum(axis=2) > 0).astype(int), classes=CLASSES, epochs=1)


def depths() -> Any:
    return metav.Regression(images(), images() ** 2, epochs=6, batch_size=16, learning_rate=2e-2)


@functools.cache
def made(name: str) -> tuple[Any, nn.Module]:
    """A fingerprint and its owner's model, by the name of the task."""
    task, owner = {
        "two classes": (two_classes, lambda: Net(outputs=1)),
        "multi-label": (multi_label, lambda: Net(outputs=4)),
        "segmentation": (segmentation, lambda: Dense(3)),
        "names": (lambda: classification(classes=["cat", "dog", "owl"]), Net),
    }[name]
    task = task()
    with isolated_rng(0):
        model = owner()
    task.train(model, seed=0)
    return fingerprint_of(model, task), model


def answers(name: str, change: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """The owner's model as a function whose answers are changed."""
    model = made(name)[1]
    return lambda queries: change(model(queries))


TASKS = [
    Case(
        has="two classes, one logit",
        write="`metav.Classification`",
        trial=lambda: owner_and_suspect(lambda: Net(outputs=1), two_classes(), families=None),
    ),
    Case(
        has="two classes, one chance (sigmoid)",
        write="`metav.Classification`",
        trial=lambda: owner_and_suspect(lambda: Net(lambda _, f, z: z[:, 0].sigmoid(), 1), two_classes()),
    ),
    Case(
        has="several labels each, logits",
        write="`metav.MultiLabelClassification`",
        trial=lambda: owner_and_suspect(lambda: Net(outputs=4), multi_label(), families=None),
    ),
    Case(
        has="several labels each, chances",
        write="`metav.MultiLabelClassification`",
        trial=lambda: owner_and_suspect(lambda: Net(lambda _, f, z: z.sigmoid(), 4), multi_label()),
    ),
    Case(
        has="a class for each pixel, logits",
        write="`metav.Segmentation`",
        trial=lambda: owner_and_suspect(lambda: Dense(3), segmentation(), families=None),
    ),
    Case(
        has="a class for each pixel, probabilities",
        write="`metav.Segmentation`",
        trial=lambda: owner_and_suspect(lambda: Dense(3, last=nn.Softmax(dim=1)), segmentation()),
    ),
    Case(
        has="a class for each pixel, at half the resolution",
        write="`metav.Segmentation`",
        trial=lambda: owner_and_suspect(lambda: Dense(3, stride=2), segmentation()),
    ),
    Case(
        has="two classes for each pixel, one logit",
        write="`metav.Segmentation`",
        trial=lambda: owner_and_suspect(lambda: Dense(1), two_regions()),
    ),
    Case(
        has="two classes for each pixel, one chance",
        write="`metav.Segmentation`",
        trial=lambda: owner_and_suspect(lambda: Dense(1, last=nn.Sigmoid()), two_regions()),
    ),
    Case(
        has="a class for each step of a sequence",
        write="`metav.Segmentation`",
        trial=lambda: owner_and_suspect(lambda: Dense(3, axes=1), steps()),
    ),
    Case(
        has="a class for each step, behind it, as `BertForTokenClassification` answers",
        write="`metav.Segmentation`",
        trial=lambda: owner_and_suspect(token_transformer, tokens(), trains=False, input="inputs_embeds"),
    ),
    Case(
        has="two heads for each pixel, one of them judged",
        write='`metav.Segmentation`, `output="out"`',
        trial=lambda: owner_and_suspect(TwoHeads, segmentation(), trains=False, families=None, output="out"),
    ),
    Case(
        has="a number for each pixel (depth)",
        write="`metav.Regression`",
        trial=lambda: owner_and_suspect(lambda: Dense(1), depths(), families=None),
    ),
    Case(
        has="suspect: one chance, or percent, where the owner's answers a logit",
        trial=lambda: as_suspect(made("two classes")[0], answers("two classes", lambda z: 100 * z.sigmoid())),
    ),
    Case(
        has="suspect: chances of several labels",
        trial=lambda: as_suspect(
            made("multi-label")[0], answers("multi-label", lambda z: z.sigmoid().round(decimals=2))
        ),
    ),
    Case(
        has="suspect: several labels alone",
        trial=lambda: as_suspect(made("multi-label")[0], answers("multi-label", lambda z: (z > 0).int())),
    ),
    Case(
        has="suspect: a mask of classes",
        trial=lambda: as_suspect(made("segmentation")[0], answers("segmentation", lambda z: z.argmax(dim=1))),
    ),
    Case(
        has="suspect: pixels, channels last, as probabilities",
        trial=lambda: as_suspect(
            made("segmentation")[0], answers("segmentation", lambda z: z.softmax(dim=1).movedim(1, -1))
        ),
    ),
    Case(
        has="suspect: names of classes",
        trial=lambda: as_suspect(
            made("names")[0],
            answers("names", lambda z: [["cat", "dog", "owl"][place] for place in z.argmax(dim=1).tolist()]),
        ),
    ),
    Case(
        has="a view that reads one class, where each answer has several",
        write='`OptimizationOptions(view="label")`',
        trial=lambda: refusal(
            lambda: metav.fingerprint(Net(outputs=4), multi_label(), options=metav.OptimizationOptions(view="label"))
        ),
    ),
    Case(
        has="more numbers than can be kept",
        write="`metav.Regression`",
        trial=lambda: refusal(
            lambda: metav.fingerprint(Dense(1), metav.Regression(*(np.zeros((9, 1, 512, 512), np.float32),) * 2))
        ),
    ),
    Case(
        has="labels of several columns as classes",
        write="`metav.Classification`",
        trial=lambda: refusal(lambda: metav.Classification(vectors(), np.ones((80, 3), dtype=int))),
    ),
]


class Items(torch.utils.data.Dataset):
    """A data set of pairs, or of whatever `item` makes of (input, label)."""

    def __init__(self, item: Callable[[Tensor, int], Any] = lambda x, y: (x, y), length: int = 80) -> None:
        self.item, self.length = item, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if index >= self.length:
            raise IndexError(index)
        return self.item(torch.from_numpy(vectors()[index % 80]), int(classes()[index % 80]))


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self) -> Any:
        return iter(list(zip(torch.from_numpy(vectors()), classes().tolist(), strict=True)))


def mapped() -> Any:
    """The inputs as a map of a file that is gone once the map is."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, vectors())
        file.flush()
        return np.load(file.name, mmap_mode="r")


def above_the_limit(made: Callable[[], list[Any]]) -> str:
    """Tasks whose inputs take more than the limit read them from a file, and train the same model."""
    plain = metav.Classification(vectors(), classes(), epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAV_MEMORY_LIMIT", "1 KiB")
        for task in made():
            assert isinstance(task.examples, StoredTensor)
            with isolated_rng(0):
                first = Net()
            second = copy.deepcopy(first)
            plain.train(first, seed=0)
            task.with_epochs(1).train(second, seed=0)
            assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
            same_task(task.with_epochs(1), plain)
    return "works"


def from_frame(labels: Callable[[Any], Any] = lambda series: series) -> Any:
    import pandas

    frame = pandas.DataFrame(vectors(), columns=[f"sensor {i}" for i in range(FEATURES)])
    return metav.Classification(frame, labels(pandas.Series(classes())))


def named(values: Mapping[int, str] = {0: "owl", 1: "cat", 2: "dog"}) -> np.ndarray:
    return np.array([values[label] for label in classes().tolist()])


def by_names(task: Any, names: tuple[str, ...]) -> str:
    """Labels that are names: in the order told, kept by the task, the artefact and the verdict."""
    assert task.class_names == names
    assert [names[label] for label in task.targets.tolist()] == named().tolist()
    with isolated_rng(0):
        owner = Net()
    task.train(owner, seed=0)
    fp = fingerprint_of(owner, task)
    verdict = metav.verify(fp, owner)
    assert fp.task.class_names == verdict.class_names == names
    assert f"classes: {', '.join(names)}" in str(verdict)
    return "works"


def categories() -> Any:
    import pandas

    series = pandas.Series(pandas.Categorical(named(), categories=["owl", "dog", "cat"]))
    return metav.Classification(vectors(), series, epochs=1)


def byte_images() -> str:
    task = metav.Classification((images() * 30 + 128).clip(0, 255).astype(np.uint8), masks()[:, 0, 0], epochs=1)
    assert (float(task.lower.min()), float(task.upper.max()), task.levels) == (0.0, 255.0, 256)
    owner = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))
    task.train(owner, seed=0)
    queries = fingerprint_of(owner, task).queries
    assert (queries == queries.round()).all()
    assert 0 <= queries.min() <= queries.max() <= 255
    return "works"


def missing_values() -> Any:
    import pandas

    frame = pandas.DataFrame(vectors())
    return metav.Classification(frame.where(frame > -2.0), classes())


def with_texts() -> Any:
    import pandas

    return metav.Classification(pandas.DataFrame(vectors()).assign(city="Rome"), classes())


def sparse() -> Any:
    from scipy import sparse as matrices

    return metav.Classification(matrices.csr_matrix(vectors()), classes())


def loader(**options: Any) -> Any:
    return torch.utils.data.DataLoader(Items(), batch_size=32, **options)


DATA = [
    Case(
        has="arrays of NumPy, tensors, lists",
        write="`metav.Classification(images, labels)`",
        trial=lambda: same_task(metav.Classification(vectors().tolist(), classes().tolist()), plain_task()),
    ),
    Case(
        has="list of tensors",
        trial=lambda: same_task(metav.Classification(list(torch.from_numpy(vectors())), classes()), plain_task()),
    ),
    Case(
        has="`Dataset` of pairs",
        write="`metav.Classification(dataset)`",
        trial=lambda: same_task(metav.Classification(Items()), plain_task()),
    ),
    Case(
        has="`Dataset` of dictionaries",
        trial=lambda: same_task(
            metav.Classification(Items(lambda x, y: {"pixel_values": x, "label": y, "id": 3})), plain_task()
        ),
    ),
    Case(has="`IterableDataset`", trial=lambda: same_task(metav.Classification(Stream()), plain_task())),
    Case(
        has="`DataLoader`",
        write="`metav.Classification(loader)`",
        trial=lambda: same_task(metav.Classification(loader()), plain_task()),
    ),
    Case(has="frame and series of pandas", trial=lambda: same_task(from_frame(), plain_task())),
    Case(has="labels that are texts", trial=lambda: by_names(named_task(named()), ("cat", "dog", "owl"))),
    Case(
        has="labels that are texts, in the order of the outputs",
        write='`classes=["owl", "dog", "cat"]`',
        trial=lambda: by_names(named_task(named(), classes=["owl", "dog", "cat"]), ("owl", "dog", "cat")),
    ),
    Case(has="categories of pandas", trial=lambda: by_names(categories(), ("owl", "dog", "cat"))),
    Case(
        has="one-hot labels",
        trial=lambda: same_task(metav.Classification(vectors(), np.eye(3)[classes()]), plain_task()),
    ),
    Case(
        has="labels that are true or false",
        trial=lambda: same_task(
            metav.Classification(vectors(), classes() > 0), metav.Classification(vectors(), (classes() > 0).astype(int))
        ),
    ),
    Case(has="images of bytes, 0 to 255", trial=byte_images),
    Case(
        has="masked array",
        trial=lambda: refusal(lambda: metav.Classification(np.ma.masked_greater(vectors(), 2.0), classes())),
    ),
    Case(has="sparse matrix", trial=lambda: refusal(sparse)),
    Case(has="frame with missing values", trial=lambda: refusal(missing_values)),
    Case(has="frame with a column of texts", trial=lambda: refusal(with_texts)),
    Case(
        has="soft labels",
        trial=lambda: refusal(lambda: metav.Classification(vectors(), np.full((80, 3), 1 / 3))),
    ),
    Case(
        has="`Dataset` or `DataLoader` above the limit",
        write="`METAV_MEMORY_LIMIT=8GiB`, where 2 GiB is not the limit that you want",
        trial=lambda: above_the_limit(lambda: [metav.Classification(Items()), metav.Classification(loader())]),
    ),
    Case(
        has="`numpy.memmap` above the limit",
        write='`metav.Classification(np.load("images.npy", mmap_mode="r"), labels)`',
        trial=lambda: above_the_limit(lambda: [metav.Classification(mapped(), classes())]),
    ),
    Case(
        has="`Dataset` of images of several sizes",
        trial=lambda: refusal(lambda: metav.Classification(Items(lambda x, y: (torch.zeros(3, 4 + y, 4), y)))),
    ),
    Case(
        has="`Dataset` without labels",
        trial=lambda: refusal(lambda: metav.Classification(Items(lambda x, y: x))),
    ),
    Case(
        has="fewer examples than the queries need",
        write="`metav.fingerprint(..., queries=400)`",
        trial=lambda: refusal(lambda: metav.fingerprint(Net(), classification(), queries=400)),
    ),
]


def plain_task() -> Any:
    return metav.Classification(vectors(), classes())


def named_task(labels: Any, **options: Any) -> Any:
    return metav.Classification(vectors(), labels, epochs=1, **options)


SECTIONS = {
    "Outputs of a model": OUTPUTS,
    "Inputs of a model": INPUTS,
    "Tasks": TASKS,
    "Data": DATA,
}
CASES = {case.has: case for cases in SECTIONS.values() for case in cases}
