"""ONNX files as suspects: asked as they declare, and looked at before they are run."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from small_fingerprints import numbers

from metav.errors import InputError, MissingDependencyError, SuspectError
from metav.suspects import OnnxSuspect, open_suspect

pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')
onnx = pytest.importorskip("onnx", reason='needs the extra "onnx"')

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from small_onnx import OPSET, info, linear, save, with_external_weights  # noqa: E402

QUERIES = numbers(20, 1, 8, 8)
WEIGHTS = numbers(64, 10, seed=1)
ANSWERS = QUERIES.reshape(20, 64) @ WEIGHTS  # exact: multiples of 1/64


def ask(path, queries=QUERIES, *, outputs=10, batch_size=256, **options):
    return open_suspect(path, **options).answer(queries, outputs=outputs, batch_size=batch_size).responses


# Asked as they declare -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(("n", 1, 8, 8), id="any number of queries"),
        pytest.param((7, 1, 8, 8), id="seven queries"),
        pytest.param((1, 1, 8, 8), id="one query"),
        pytest.param((32, 1, 8, 8), id="more than there are"),
        pytest.param(("n", "c", "h", "w"), id="any sizes"),
        pytest.param(("n", 64), id="flat"),
    ],
)
@pytest.mark.parametrize("batch_size", [256, 3])
def test_the_answers_are_the_models_for_any_declared_shape(tmp_path, shape, batch_size):
    path = linear(tmp_path / "m.onnx", WEIGHTS, shape=shape)
    assert np.array_equal(ask(path, batch_size=batch_size), ANSWERS)


def test_channels_are_moved_last_where_the_model_declares_them_there(tmp_path):
    queries = numbers(5, 3, 4, 6)
    path = linear(tmp_path / "m.onnx", numbers(72, 10), shape=("n", 4, 6, 3), channels_last=True)
    assert np.array_equal(ask(path, queries), queries.reshape(5, 72) @ numbers(72, 10))


def test_a_layout_is_stated_where_the_shape_leaves_it_open(tmp_path):
    queries = numbers(5, 3, 3, 3)
    path = linear(tmp_path / "m.onnx", numbers(27, 10), shape=("n", 3, 3, 3), channels_last=True)
    expected = queries.reshape(5, 27) @ numbers(27, 10)
    assert np.array_equal(ask(path, queries, layout="NHWC"), expected)
    assert not np.array_equal(ask(path, queries), expected)
    with pytest.raises(InputError, match='layout must be "NCHW", "NHWC", "flat" or None'):
        ask(path, queries, layout="HWC")


@pytest.mark.parametrize(("dtype", "error"), [(TensorProto.FLOAT16, 2e-3), (TensorProto.DOUBLE, 0)])
def test_a_model_is_asked_in_its_own_precision(tmp_path, dtype, error):
    path = linear(tmp_path / "m.onnx", WEIGHTS, dtype=dtype)
    assert ask(path) == pytest.approx(ANSWERS, rel=error, abs=error * float(np.abs(ANSWERS).max()))


def test_whole_numbers_are_given_to_a_model_of_whole_numbers_only_where_the_queries_are_such(tmp_path):
    nodes = [helper.make_node("Cast", ["image"], ["scores"], to=TensorProto.FLOAT)]
    path = save(tmp_path / "m.onnx", nodes, [info("image", ("n", 4), TensorProto.UINT8)], [info("scores", ("n", 4))])
    whole = np.array([[0, 1, 254, 255]], np.float32)
    assert np.array_equal(ask(path, whole, outputs=4), whole)
    for wrong in (whole + 0.5, whole - 1, whole + 1):
        with pytest.raises(SuspectError, match="image takes uint8, the queries are no such whole numbers"):
            ask(path, wrong, outputs=4)


def test_the_only_output_of_real_numbers_is_judged_or_the_named_one(tmp_path):
    two = linear(tmp_path / "two.onnx", WEIGHTS, outputs=("scores", "class"))
    assert np.array_equal(ask(two), ANSWERS)
    assert np.array_equal(ask(two, outputs=1, output="class").ravel(), ANSWERS.argmax(axis=1))
    three = linear(tmp_path / "three.onnx", WEIGHTS, outputs=("scores", "class", "negative"))
    assert np.array_equal(ask(three, output="negative"), -ANSWERS)
    assert np.array_equal(ask(three, output=2), -ANSWERS)
    with pytest.raises(InputError, match=r"has 3 outputs; choose one .* scores float32 \(n, 10\); class int64 \(n\)"):
        ask(three)
    with pytest.raises(InputError, match="has no output 'logits'; it has scores"):
        ask(three, output="logits")


def test_further_inputs_take_constants(tmp_path):
    nodes = [
        helper.make_node("Mul", ["image", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["scores"]),
    ]
    inputs = [info("scale", ("n", 1)), info("image", ("n", 4)), info("offset", (4,))]
    path = save(tmp_path / "m.onnx", nodes, inputs, [info("scores", ("n", 4))])
    queries, offset = numbers(5, 4), [0, 1, 2, 3]
    given = {"input": "image", "constants": {"scale": 2.0, "offset": offset}}
    assert np.array_equal(ask(path, queries, outputs=4, **given), 2 * queries + np.array(offset))
    with pytest.raises(InputError, match=r"has 3 inputs; choose one by its name with input=: scale float32 \(n, 1\)"):
        ask(path, queries, outputs=4)
    with pytest.raises(InputError, match=r"further inputs, whose values are not given: offset float32 \(4\)"):
        ask(path, queries, outputs=4, input="image", constants={"scale": 1})
    with pytest.raises(InputError, match="has no further input 'shift'"):
        ask(path, queries, outputs=4, input="image", constants={"scale": 1, "offset": offset, "shift": 0})
    with pytest.raises(InputError, match="is no number or list of numbers"):
        ask(path, queries, outputs=4, input="image", constants={"scale": "two", "offset": offset})


def test_scores_by_class_as_scikit_learns_exporter_writes_them_are_read(tmp_path):
    nodes = [
        helper.make_node("Identity", ["x"], ["scores"]),
        helper.make_node("ZipMap", ["scores"], ["named"], domain="ai.onnx.ml", classlabels_int64s=[2, 0, 1]),
    ]
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    named = helper.make_value_info("named", helper.make_sequence_type_proto(kind))
    opset = [*OPSET, helper.make_opsetid("ai.onnx.ml", 3)]
    path = save(tmp_path / "m.onnx", nodes, [info("x", ("n", 3))], [named], opset=opset)
    queries = numbers(4, 3)
    assert np.array_equal(ask(path, queries, outputs=3), queries[:, [1, 2, 0]])


def test_a_model_of_another_task_fails_with_both_shapes(tmp_path):
    path = linear(tmp_path / "m.onnx", WEIGHTS)
    with pytest.raises(SuspectError, match=r"takes inputs of shape \(n, 1, 8, 8\), the queries have \(n, 5\)"):
        ask(path, numbers(3, 5))


def test_weights_in_the_models_own_folder_are_read(tmp_path):
    path = with_external_weights(tmp_path / "m.onnx", WEIGHTS, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(WEIGHTS.tobytes())
    assert np.array_equal(ask(path), ANSWERS)


def test_operators_that_the_file_itself_defines_are_run(tmp_path):
    twice = helper.make_function("own", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], OPSET)
    nodes = [helper.make_node("Twice", ["x"], ["y"], domain="own")]
    opset = [*OPSET, helper.make_opsetid("own", 1)]
    path = save(
        tmp_path / "m.onnx", nodes, [info("x", ("n", 4))], [info("y", ("n", 4))], opset=opset, functions=[twice]
    )
    assert np.array_equal(ask(path, numbers(3, 4), outputs=4), 2 * numbers(3, 4))


@pytest.mark.slow
def test_a_file_from_pytorchs_exporter_answers_like_the_module(tmp_path):
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    import torch

    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(72, 10))
    example, path = torch.zeros(2, 1, 8, 8), tmp_path / "m.onnx"
    torch.onnx.export(model.eval(), (example,), path, dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False)
    expected = open_suspect(model).answer(QUERIES, outputs=10).responses
    assert ask(path) == pytest.approx(expected, abs=1e-5)


# Looked at before they are run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    ["../weights.bin", "/etc/hostname", "folder/../../weights.bin", "..\\weights.bin", "C:\\weights.bin", ""],
)
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "weights.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "model" / "folder").mkdir(parents=True)
    path = with_external_weights(tmp_path / "model" / "m.onnx", WEIGHTS, location)
    with pytest.raises(InputError, match="outside its own folder"):
        ask(path)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_out_of_the_folder_are_refused(tmp_path, linked):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "model").mkdir()
    if linked == "file":
        os.symlink(tmp_path / "elsewhere" / "weights.bin", tmp_path / "model" / "weights.bin")
    else:
        os.symlink(tmp_path / "elsewhere", tmp_path / "model" / "inner")
    location = "weights.bin" if linked == "file" else "inner/weights.bin"
    path = with_external_weights(tmp_path / "model" / "m.onnx", WEIGHTS, location)
    with pytest.raises(InputError, match="outside its own folder"):
        ask(path)


def test_weights_outside_are_found_wherever_they_stand(tmp_path):
    """In a graph within a graph, and in an attribute of a node."""
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "c")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../weights.bin")
    branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "b", [], [info("c", (4,))])
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["c"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [info("x", ("n", 4))], [info("y", ("n", 4))])
    with pytest.raises(InputError, match="outside its own folder"):
        ask(path)


@pytest.mark.parametrize(
    "entries", [{"offset": "8"}, {"length": "100000"}, {"offset": "-8"}, {"length": "many"}, {"offset": "9" * 30}]
)
def test_weights_beyond_their_file_are_refused(tmp_path, entries):
    (tmp_path / "weights.bin").write_bytes(WEIGHTS.tobytes())
    entries = {"length": str(WEIGHTS.nbytes), **entries}
    path = with_external_weights(tmp_path / "m.onnx", WEIGHTS, "weights.bin", **entries)
    with pytest.raises(InputError, match="beyond the end of that file"):
        ask(path)


def test_weights_in_no_file_are_refused(tmp_path):
    path = with_external_weights(tmp_path / "m.onnx", WEIGHTS, "weights.bin")
    with pytest.raises(InputError, match="which is no file; copy it beside the model"):
        ask(path)
    os.mkfifo(tmp_path / "weights.bin")
    with pytest.raises(InputError, match="which is no file"):
        ask(path)


@pytest.mark.parametrize(
    ("operator", "domain"), [("Run", "evil\x1b[2J"), ("EPContext", "com.microsoft"), ("PyOp", "ai.onnx.contrib")]
)
def test_operators_from_elsewhere_are_refused(tmp_path, operator, domain):
    nodes = [helper.make_node(operator, ["x"], ["y"], domain=domain)]
    opset = [*OPSET, helper.make_opsetid(domain, 1)]
    path = save(tmp_path / "m.onnx", nodes, [info("x", ("n", 4))], [info("y", ("n", 4))], opset=opset)
    with pytest.raises(InputError, match="needs a library of custom operators; none is loaded") as raised:
        ask(path)
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\x80" * 100, b"<html>not found</html>", b"\x00" * 1000])
def test_what_is_no_onnx_file_is_refused(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match="is no ONNX file"):
        ask(tmp_path / "m.onnx")


def test_a_truncated_file_is_refused(tmp_path):
    path = linear(tmp_path / "m.onnx", WEIGHTS)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"is no ONNX file|cannot be loaded"):
        ask(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*; expected an ONNX model"):
        ask(tmp_path / "m.onnx")


def test_graphs_nested_without_end_are_refused(tmp_path):
    def constant():
        return helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(np.ones(4, np.float32)))

    def nested(levels):
        graph = helper.make_graph([constant()], "g", [], [info("y", (4,))])
        other = helper.make_graph([constant()], "g", [], [info("y", (4,))])
        for _ in range(levels):
            node = helper.make_node("If", ["yes"], ["y"], then_branch=graph, else_branch=other)
            graph = helper.make_graph([node], "g", [], [info("y", (4,))])
        yes = [numpy_helper.from_array(np.array(True), "yes")]
        nodes = [*graph.node, helper.make_node("Add", ["x", "y"], ["z"])]
        return save(tmp_path / "m.onnx", nodes, [info("x", ("n", 4))], [info("z", ("n", 4))], initializers=yes)

    assert np.array_equal(ask(nested(3), numbers(3, 4), outputs=4), numbers(3, 4) + 1)
    with pytest.raises(InputError, match="nests its graphs more than 60 levels deep"):
        ask(nested(25), numbers(3, 4), outputs=4)


def endless(path, steps=2**60):
    """A loop that adds one to its input, for ages."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["again"]),
            helper.make_node("Add", ["state", "one"], ["next"]),
        ],
        "body",
        [info("step", (), TensorProto.INT64), info("condition", (), TensorProto.BOOL), info("state", ("n", 4))],
        [info("again", (), TensorProto.BOOL), info("next", ("n", 4))],
    )
    values = [
        numpy_helper.from_array(np.array(steps, np.int64), "steps"),
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.ones(1, np.float32), "one"),
    ]
    nodes = [helper.make_node("Loop", ["steps", "yes", "x"], ["y"], body=body)]
    return save(path, nodes, [info("x", ("n", 4))], [info("y", ("n", 4))], initializers=values)


def test_a_model_that_runs_for_ages_is_stopped(tmp_path):
    assert np.array_equal(ask(endless(tmp_path / "m.onnx", 3), numbers(3, 4), outputs=4), numbers(3, 4) + 3)
    before = time.monotonic()
    with pytest.raises(SuspectError, match=r"took more than 0\.2 seconds for one batch") as raised:
        ask(endless(tmp_path / "m.onnx"), numbers(3, 4), outputs=4, timeout=0.2)
    assert raised.value.reason == "timeout"
    assert time.monotonic() - before < 30  # it ends at all


def test_constants_are_not_unfolded_while_loading(tmp_path):
    """A few bytes stand for a tebibyte; the model is loaded, and fails where it is run."""
    nodes = [
        helper.make_node("Constant", [], ["size"], value=numpy_helper.from_array(np.array([2**38], np.int64))),
        helper.make_node("ConstantOfShape", ["size"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [info("x", ("n", 4))], [info("y", ("n", 4))])
    suspect = OnnxSuspect(path)
    assert suspect.description == "ONNX model m.onnx"


def test_names_from_the_file_are_shown_harmlessly(tmp_path):
    names = ("a\x1b[31m\u202e\nMATCH", "<script>", "b")
    path = linear(tmp_path / "m.onnx", WEIGHTS, outputs=names)
    with pytest.raises(InputError) as raised:
        ask(path)
    assert r"a\x1b[31m\u202e MATCH float32" in str(raised.value)


@pytest.mark.parametrize("provider", ["tpu", "CPUExecutionProvider"])
def test_unknown_providers_are_refused(tmp_path, provider):
    path = linear(tmp_path / "m.onnx", WEIGHTS)
    with pytest.raises(InputError, match="provider must be one of cpu, cuda"):
        ask(path, provider=provider)


def test_a_provider_that_is_not_installed_is_no_reason_to_take_another(tmp_path):
    import onnxruntime

    path = linear(tmp_path / "m.onnx", WEIGHTS)
    assert np.array_equal(ask(path, provider="cpu"), ANSWERS)
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(MissingDependencyError, match="install onnxruntime-gpu in its place"):
        ask(path, provider="cuda")


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "1", True])
def test_time_limits_are_checked(tmp_path, timeout):
    with pytest.raises(InputError, match="timeout must be a number of seconds above 0"):
        ask(linear(tmp_path / "m.onnx", WEIGHTS), timeout=timeout)


def test_without_the_extra_the_message_says_how_to_install_it(tmp_path):
    path = linear(tmp_path / "m.onnx", WEIGHTS)
    code = f"""
import sys
sys.modules["onnxruntime"] = None
from metav.errors import MissingDependencyError
from metav.suspects import open_suspect
try:
    open_suspect({str(path)!r})
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "an ONNX suspect needs onnxruntime, which is not installed" in done.stdout, done.stderr
    assert '".[onnx]"' in done.stdout
