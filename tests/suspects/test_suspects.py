"""Suspects: asked without a trace, and believed only where their answers can be scored."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import copy
import io
import json
import pickle
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_fingerprints import numbers, state_of
from small_models import HeadFirst, ResidualCNN
from torch import nn

from metav.errors import InputError, SuspectError
from metav.support.randomness import isolated_rng
from metav.suspects import CallableSuspect, ModuleSuspect, RecordedSuspect, open_suspect, recordings

QUERIES = numbers(20, 1, 8, 8)
OUTPUTS = 10
WEIGHTS = numbers(64, OUTPUTS, seed=1)
ANSWERS = QUERIES.reshape(20, 64) @ WEIGHTS  # exact: multiples of 1/64


def linear(queries):
    """Plain NumPy."""
    return np.asarray(queries).reshape(len(queries), 64) @ WEIGHTS


def ask(thing, queries=QUERIES, *, outputs=OUTPUTS, accepts=None, **options):
    return open_suspect(thing, accepts=accepts).answer(queries, outputs=outputs, **options)


def cnn() -> nn.Module:
    with isolated_rng(3):
        return ResidualCNN()


# Modules -------------------------------------------------------------------------------------------------------------


def test_a_module_answers_as_in_eval_mode_and_comes_back_as_it_was():
    model = cnn().train()
    model.norm.eval()
    model.head.weight.requires_grad_(False)
    model(torch.ones(2, 1, 8, 8)).sum().backward()
    model.register_forward_hook(lambda *_: None)
    before = state_of(model)
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    answers = ask(model)
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(torch.from_numpy(QUERIES.copy()))
    assert answers.responses == pytest.approx(expected.numpy(), rel=1e-5, abs=1e-6)


def test_a_module_that_is_asked_in_several_threads_answers_as_in_one(untouched_rng, eager_threads):
    """In eval mode until the last one has asked it; as one that trains its caller left it afterwards."""
    with isolated_rng(3):
        layers = (nn.Linear(4, 400), nn.BatchNorm1d(400), nn.Dropout(0.5), nn.Linear(400, 3))
    model = nn.Sequential(nn.Flatten(), *layers).train()
    model[3].eval()
    queries = np.random.default_rng(0).normal(size=(40, 2, 2)).astype(np.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def ask(thread: int) -> set[bytes]:
        start.wait()
        # some take longer than others, so that the last one to end is not the last one to begin
        size = 2 + 10 * (thread % 2)
        return {ModuleSuspect(model).answer(queries, outputs=3, batch_size=size).responses.tobytes() for _ in range(10)}

    start = threading.Barrier(1)
    alone = ask(0) | ask(1)
    start = threading.Barrier(6)
    with ThreadPoolExecutor(6) as pool:
        found = set().union(*pool.map(ask, range(6)))
    assert found == alone
    assert [module.training for module in model] == [True, True, True, False, True]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_module_that_fails_comes_back_as_it_was():
    model = cnn().train()
    before = state_of(model)
    with pytest.raises(SuspectError, match=r"failed on queries of shape \(20, 3\): RuntimeError"):
        ask(model, numbers(20, 3))
    assert state_of(model) == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_module_is_asked_in_its_own_precision(dtype):
    model = cnn().eval()
    reference = ask(model).responses
    answers = ask(copy.deepcopy(model).to(dtype))
    assert answers.responses.dtype == np.float32
    assert answers.responses == pytest.approx(reference, abs=0.2)


def test_an_exported_program_says_what_to_pass_instead():
    exported = torch.export.export(cnn().eval(), (torch.ones(4, 1, 8, 8),)).module()
    with pytest.raises(SuspectError, match=r"cannot be put in eval mode .*; pass a callable that runs it") as caught:
        ask(exported)
    assert caught.value.reason == "failed"
    answers = ask(lambda queries: exported(queries), batch_size=4)
    assert answers.responses == pytest.approx(ask(cnn()).responses, abs=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_traced_module_answers_as_the_module():
    traced = torch.jit.trace(cnn().eval(), torch.ones(2, 1, 8, 8))
    assert ask(traced).responses == pytest.approx(ask(cnn()).responses, abs=1e-5)


def test_a_module_without_parameters_can_be_asked():
    assert np.array_equal(ask(nn.Flatten(), outputs=64).responses, QUERIES.reshape(20, 64))


class Forgetful(nn.Module):
    """Draws from the global generator even in eval mode, as a randomised defence does."""

    def forward(self, inputs):
        return inputs.flatten(1)[:, :10] + torch.randn(len(inputs), 10)


def test_noise_of_a_module_is_measured_and_the_same_each_time():
    first, again = ask(Forgetful()), ask(Forgetful())
    assert first.noise > 0.1
    assert first.responses.tobytes() == again.responses.tobytes()
    assert first.noise == again.noise


def test_a_module_on_an_accelerator_is_asked_there():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = cnn().cuda()
    assert ask(model).responses == pytest.approx(ask(copy.deepcopy(model).cpu()).responses, abs=1e-3)
    assert next(model.parameters()).device.type == "cuda"


# Callables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a,
        lambda a: a.astype(np.float64),
        lambda a: a.tolist(),
        lambda a: list(a),
        lambda a: tuple(torch.from_numpy(row) for row in a),
        lambda a: torch.from_numpy(a),
        lambda a: torch.from_numpy(a).requires_grad_(True),
        lambda a: torch.from_numpy(a).double(),
        lambda a: a.reshape(len(a), 2, 5),
        lambda a: np.asfortranarray(a),
        lambda a: (a * 64).astype(np.int64) / 64,
    ],
    ids=["float32", "float64", "list", "rows", "tensors", "tensor", "gradient", "double", "shape", "order", "integers"],
)
@pytest.mark.parametrize("accepts", ["numpy", None])
def test_any_kind_of_array_is_understood(convert, accepts):
    answers = ask(lambda queries: convert(linear(np.asarray(queries))), accepts=accepts)
    assert answers.responses.dtype == np.float32
    assert np.array_equal(answers.responses, ANSWERS)
    assert answers.noise == 0.0


def test_reduced_precision_and_booleans_are_understood():
    answers = ask(lambda queries: torch.from_numpy(linear(queries)).bfloat16(), accepts="numpy")
    assert answers.responses == pytest.approx(ANSWERS, rel=1e-2)
    assert set(np.unique(ask(lambda queries: linear(queries) > 0, accepts="numpy").responses)) == {0.0, 1.0}


@pytest.mark.parametrize("accepts", ["numpy", "torch", None])
def test_a_callable_gets_what_it_accepts(accepts):
    kinds = set()

    def suspect(queries):
        kinds.add(type(queries))
        return linear(np.asarray(queries))

    ask(suspect, accepts=accepts)
    assert kinds == {np.ndarray if accepts == "numpy" else torch.Tensor}


def strict_numpy(queries):
    if not isinstance(queries, np.ndarray):
        raise ValueError("expected numpy.ndarray")
    return linear(queries)


@pytest.mark.parametrize("suspect", [strict_numpy, lambda q: q.astype(np.float64).reshape(-1, 64) @ WEIGHTS])
def test_a_callable_that_takes_arrays_only_gets_them(suspect):
    assert np.array_equal(ask(suspect, batch_size=7).responses, ANSWERS)


def test_a_callable_that_takes_tensors_only_gets_them():
    with isolated_rng(1):
        layer = nn.Linear(64, 10)
    answers = ask(lambda queries: layer(queries.flatten(1)))
    assert not any(p.grad is not None for p in layer.parameters())
    assert answers.responses == pytest.approx(layer(torch.from_numpy(QUERIES.copy()).flatten(1)).detach().numpy())


def test_both_failures_of_a_callable_are_told():
    def suspect(queries):
        raise ValueError(f"no {type(queries).__name__}")

    with pytest.raises(SuspectError, match=r"a tensor \(ValueError: no Tensor\) .* array \(ValueError: no ndarray\)"):
        ask(suspect)


@pytest.mark.parametrize("accepts", ["numpy", "torch"])
def test_a_suspect_cannot_change_the_queries(accepts):
    queries = QUERIES.copy()

    def suspect(batch):
        answer = linear(np.asarray(batch).copy())
        batch *= 0
        return answer

    answers = ask(suspect, queries, accepts=accepts)
    assert np.array_equal(queries, QUERIES)
    assert np.array_equal(answers.responses, ANSWERS)
    queries.setflags(write=False)
    assert np.array_equal(ask(suspect, queries, accepts=accepts).responses, ANSWERS)


def test_a_suspect_that_reuses_its_memory_is_read_in_time():
    memory = np.zeros((4, OUTPUTS), np.float32)

    def suspect(batch):
        memory[:] = linear(batch)
        return memory

    assert np.array_equal(ask(suspect, accepts="numpy", batch_size=4).responses, ANSWERS)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_every_query_is_asked_once_in_batches_and_a_few_twice(count, batch_size):
    batches = []

    def suspect(queries):
        batches.append(queries[:, 0].astype(int).tolist())
        return queries

    queries = np.arange(count, dtype=np.float32)[:, None]
    answers = ask(suspect, queries, outputs=1, accepts="numpy", batch_size=batch_size)
    asked = [query for batch in batches for query in batch]
    assert np.array_equal(answers.responses, queries)
    assert max(map(len, batches)) <= batch_size
    assert asked[:count] == list(range(count))
    assert len(asked) == count + min(8, count)
    assert len(set(asked[count:])) == min(8, count)


def test_noise_is_the_largest_difference_in_standard_deviations():
    calls = []

    def suspect(queries):
        calls.append(len(queries))
        answer = linear(queries)
        if len(calls) > 1:
            answer[2, 3] += 5
        return answer

    answers = ask(suspect, accepts="numpy")
    expected = 5 / np.sqrt(ANSWERS.astype(np.float64).var(axis=0).mean())
    assert answers.noise == pytest.approx(expected)
    assert np.array_equal(answers.responses, ANSWERS)


def test_a_suspect_of_a_fixed_batch_size_is_read_without_measuring_noise():
    def suspect(queries):
        if len(queries) != 5:
            raise ValueError(f"Got: {len(queries)} Expected: 5")
        return linear(queries)

    answers = ask(suspect, accepts="numpy", batch_size=5)
    assert np.array_equal(answers.responses, ANSWERS)
    assert answers.noise is None
    with pytest.raises(SuspectError, match="Got: 20 Expected: 5"):
        ask(suspect, accepts="numpy")


def test_a_suspect_whose_second_answers_cannot_be_scored_is_not_believed():
    first = iter([True])
    with pytest.raises(SuspectError, match="80 of 80 numbers with NaN") as caught:
        ask(lambda q: linear(q) if next(first, False) else linear(q) * np.nan, accepts="numpy")
    assert caught.value.reason == "not_finite"


def test_noise_of_a_constant_suspect_is_zero_and_of_a_flickering_one_infinite():
    assert ask(lambda q: np.ones((len(q), OUTPUTS)), accepts="numpy").noise == 0.0
    values = iter([1.0, 2.0])
    flickering = ask(lambda q: np.full((len(q), OUTPUTS), next(values)), accepts="numpy")
    assert flickering.noise == np.inf


class Odd:
    def __call__(self, queries):
        return linear(np.asarray(queries))


def test_suspects_are_described():
    assert open_suspect(cnn()).description == "module ResidualCNN"
    assert open_suspect(linear).description == "callable linear"
    assert open_suspect(Odd()).description == "callable Odd"
    assert open_suspect(ANSWERS).description == "recorded answers"


# Answers that cannot be scored ---------------------------------------------------------------------------------------


def raising(error):
    def suspect(queries):
        raise error

    return suspect


def spoiled(value, dtype=np.float64):
    def suspect(queries):
        answer = linear(queries).astype(dtype)
        answer[1, 2] = value
        return answer

    return suspect


BAD = {
    "raises": (raising(KeyError("no such layer")), "failed", r"\(20, 1, 8, 8\): KeyError: 'no such layer'"),
    "out of memory": (raising(MemoryError("too much")), "failed", "MemoryError: too much"),
    "NaN": (spoiled(np.nan), "not_finite", "1 of 200 numbers with NaN or infinity"),
    "infinity": (spoiled(-np.inf), "not_finite", "1 of 200"),
    "too large for float32": (spoiled(1e300), "not_finite", "1 of 200"),
    "fewer rows": (lambda q: linear(q)[1:], "wrong_rows", r"20 queries with shape \(19, 10\), expected \(20, ...\)"),
    "one row": (lambda q: linear(q)[0], "wrong_rows", r"shape \(10,\)"),
    "a number": (lambda q: 3.0, "wrong_rows", r"shape \(\)"),
    "nothing": (lambda q: [], "wrong_rows", r"shape \(0,\)"),
    "fewer outputs": (lambda q: linear(q)[:, :9], "wrong_outputs", "answers 9 numbers per query .* expected 10"),
    "more outputs": (lambda q: np.repeat(linear(q), 2, axis=1), "wrong_outputs", "answers 20 numbers per query"),
    "labels": (lambda q: linear(q).argmax(axis=1), "wrong_outputs", "answers 1 numbers per query"),
    "no outputs": (lambda q: linear(q)[:, :0], "wrong_outputs", "answers 0 numbers per query"),
    "text": (lambda q: ["cat"] * len(q), "not_numeric", "list of <U3, expected real numbers"),
    "None": (lambda q: None, "not_numeric", "NoneType of object"),
    "dictionary": (lambda q: {"logits": linear(q)[:, 1:]}, "wrong_outputs", r"dict with logits \(20, 9\), expected"),
    "two that fit": (
        lambda q: {"first": linear(q), "second": -linear(q)},
        "wrong_outputs",
        r"several parts of the answer fit: first \(20, 10\), second \(20, 10\); name one with output=",
    ),
    "empty dictionary": (lambda q: {}, "not_numeric", "dict of object"),
    "complex": (lambda q: linear(q) * 1j, "not_numeric", "complex"),
    "complex tensor": (lambda q: torch.from_numpy(linear(q)) * 1j, "not_numeric", "complex"),
    "objects": (lambda q: linear(q).astype(object), "not_numeric", "object"),
    "sparse": (lambda q: torch.from_numpy(linear(q)).to_sparse(), "not_numeric", "no array of numbers"),
    "ragged": (lambda q: [[1.0] * (1 + i % 2) for i in range(len(q))], "ragged", "no rectangular array"),
    "several outputs": (lambda q: (torch.zeros(20, 9), torch.zeros(20, 3)), "wrong_outputs", r"1 \(20, 3\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_answers_that_cannot_be_scored_say_why(name):
    suspect, reason, message = BAD[name]
    with pytest.raises(SuspectError, match=message) as caught:
        ask(suspect, accepts="numpy")
    assert caught.value.reason == reason


def test_a_suspect_that_fails_later_is_noticed():
    def suspect(queries):
        if float(queries.flat[0]) == float(QUERIES[15].flat[0]):
            return np.full((len(queries), OUTPUTS), np.nan)
        return linear(queries)

    with pytest.raises(SuspectError, match="10 of 50 numbers") as caught:
        ask(lambda q: np.where(np.arange(len(q))[:, None] == 2, np.nan, linear(q)), accepts="numpy", batch_size=5)
    assert caught.value.reason == "not_finite"
    with pytest.raises(SuspectError, match="NaN or infinity"):
        ask(suspect, accepts="numpy", batch_size=5)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("accepts", ["numpy", "torch", None])
def test_the_user_can_always_stop(error, accepts):
    with pytest.raises(error):
        ask(raising(error()), accepts=accepts)


@pytest.mark.parametrize("labels", [[0, 9, 3] * 4, [0.0, 9.0, 3.0] * 4, [[0], [9], [3]] * 4])
def test_labels_stand_for_one_hot_answers_where_they_may(labels):
    answers = ask(labels, numbers(12, 2), labels=True)
    assert np.array_equal(answers.responses, np.eye(10)[np.ravel(labels).astype(int)])


@pytest.mark.parametrize("label", [-1, 10, 0.5, float("nan")])
def test_labels_of_no_class_are_refused(label):
    with pytest.raises(SuspectError, match=r"expected class numbers in 0\.\.9"):
        ask([0, 1, label], numbers(3, 2), labels=True)


# Recorded answers ----------------------------------------------------------------------------------------------------


def write_csv(path, heading=()):
    path.write_text("\n".join([*heading, *(",".join(map(repr, row.tolist())) for row in ANSWERS)]))


WRITERS = {
    "answers.npy": lambda path: np.save(path, ANSWERS),
    "one.npz": lambda path: np.savez(path, anything=ANSWERS),
    "named.npz": lambda path: np.savez_compressed(path, answers=ANSWERS, queries=QUERIES),
    "plain.csv": write_csv,
    "heading.CSV": lambda path: write_csv(path, [",".join(f"class {i}" for i in range(OUTPUTS))]),
    "list.json": lambda path: path.write_text(json.dumps(ANSWERS.tolist())),
    "object.json": lambda path: path.write_text(json.dumps({"answers": ANSWERS.tolist(), "model": "x"})),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["text", "path"])
def test_recorded_answers_are_read_from_files(name, kind, tmp_path):
    WRITERS[name](tmp_path / name)
    answers = ask(kind(tmp_path / name))
    assert np.array_equal(answers.responses, ANSWERS)
    assert answers.noise is None
    assert open_suspect(tmp_path / name).description == f"recorded answers {name}"


@pytest.mark.parametrize(
    "recorded", [ANSWERS, ANSWERS.tolist(), torch.from_numpy(ANSWERS), ANSWERS.reshape(20, 5, 2), tuple(ANSWERS)]
)
def test_recorded_answers_are_taken_from_memory(recorded):
    assert np.array_equal(ask(recorded).responses, ANSWERS)


@pytest.mark.parametrize(
    ("recorded", "reason"),
    [
        (ANSWERS[:19], "wrong_rows"),
        (ANSWERS[:, :4], "wrong_outputs"),
        (ANSWERS * np.nan, "not_finite"),
        ([[1.0], [1.0, 2.0]], "ragged"),
        ([["a"] * 10] * 20, "not_numeric"),
        (np.array([None] * 20), "not_numeric"),
    ],
)
def test_recorded_answers_are_checked_like_any(recorded, reason):
    with pytest.raises(SuspectError, match="suspect") as caught:
        ask(recorded)
    assert caught.value.reason == reason


class Bomb:
    def __reduce__(self):
        return (sys.exit, (99,))


def pickled_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"nothing", r"a\.npy cannot be read \(.*; expected plain numbers in a \.npy file"),
        ("pickled.npy", pickled_array(), "allow_pickle=False"),
        ("pickle.npy", pickle.dumps(Bomb()), "cannot be read"),
        ("a.npz", b"PK\x03\x04", "cannot be read"),
        ("a.json", b"[1, 2", "cannot be read"),
        ("a.json", b"[" * 100_000, "cannot be read"),
        ("a.json", b'{"predictions": []}', 'without the key "answers"'),
        ("a.csv", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_suspect(tmp_path / name)


def test_several_arrays_need_a_name(tmp_path):
    np.savez(tmp_path / "a.npz", x=ANSWERS, y=ANSWERS)
    same = ask(tmp_path / "a.npz").responses
    assert np.array_equal(same, ANSWERS)  # under two names, but one answer
    np.savez(tmp_path / "a.npz", x=ANSWERS, y=-ANSWERS, queries=QUERIES)
    with pytest.raises(SuspectError, match=r"several parts of the answer fit: x \(20, 10\), y \(20, 10\)"):
        ask(tmp_path / "a.npz")
    second = open_suspect(tmp_path / "a.npz", output="y").answer(QUERIES, outputs=OUTPUTS).responses
    assert np.array_equal(second, -ANSWERS)


def test_files_that_are_or_unpack_to_more_than_allowed_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "LARGEST_FILE", 2**16)
    np.savez_compressed(tmp_path / "bomb.npz", np.zeros(2**20))
    assert (tmp_path / "bomb.npz").stat().st_size < 2**16
    np.save(tmp_path / "large.npy", np.zeros(2**14))
    (tmp_path / "large.json").write_text("[" + "0," * 2**16 + "0]")
    for name in ("bomb.npz", "large.npy", "large.json"):
        with pytest.raises(InputError, match=r"more than 64\.0 KiB"):
            open_suspect(tmp_path / name)


def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    content = (tmp_path / "a.npy").read_bytes()
    assert content.count(b"(4, 4), }     ") == 1
    (tmp_path / "a.npy").write_bytes(content.replace(b"(4, 4), }     ", b"(400000, 4), }"))
    with pytest.raises(InputError, match="cannot be read"):
        open_suspect(tmp_path / "a.npy")


# What is no suspect --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ("https://example.org/model", r"https://example\.org/model does not tell its protocol; .* write a template"),
        ("HTTP://example.org/model", "does not tell its protocol"),
        ("ftp://example.org/model", "unknown ending"),
        ("model.pt", r"looks like a pickle, and loading it would run its code; .* pickles are never read"),
        ("model.PTH", "unpickling a suspect would run its code"),
        ("model.pkl", "unpickling a suspect would run its code"),
        (
            "model.h5",
            r"unknown ending; expected an address, or one of \.npy, \.npz, \.csv, \.json, \.jsonl, \.tsv, \.onnx",
        ),
        ("model.safetensors", r"holds weights alone; .* in Python load them into the model and pass that"),
        ("", "unknown ending"),
        ("nowhere.npy", "there is no file nowhere.npy; .* check the path"),
        (ResidualCNN, "is the class ResidualCNN, expected a trained model: pass an instance"),
        (None, "suspect of type NoneType cannot be asked; expected a torch.nn.Module"),
        (3, "suspect of type int"),
        ({"answers": "text"}, "suspect of type dict"),
        (b"model.npy", "suspect of type bytes"),
    ],
)
def test_what_is_no_suspect_is_refused_with_what_would_be(thing, message):
    with pytest.raises(InputError, match=message):
        open_suspect(thing)


@pytest.mark.parametrize("accepts", ["tensorflow", 1, True])
def test_unknown_kinds_of_array_are_refused(accepts):
    with pytest.raises(InputError, match='accepts must be "numpy", "torch" or None'):
        open_suspect(linear, accepts=accepts)
    with pytest.raises(InputError, match='accepts must be "numpy", "torch" or None'):
        CallableSuspect(linear, accepts=accepts)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, None])
def test_batch_sizes_are_checked(batch_size):
    with pytest.raises(InputError, match="batch_size must be a whole number from 1"):
        ask(linear, batch_size=batch_size)


def test_a_suspect_is_opened_once():
    suspect = RecordedSuspect(ANSWERS)
    assert open_suspect(suspect) is suspect
    assert isinstance(open_suspect(HeadFirst(64, 10)), ModuleSuspect)


def test_without_torch_callables_get_arrays_and_tensors_are_refused():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from metav.errors import MissingDependencyError
from metav.suspects import open_suspect
answers = open_suspect(lambda q: q * 2).answer(np.ones((3, 2), np.float32), outputs=2)
assert (answers.responses == 2).all()
try:
    open_suspect(len, accepts="torch")
except MissingDependencyError as error:
    assert 'install the extra "torch"' in str(error)
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "refused\n", done.stderr
