"""Small ONNX files, built node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = [helper.make_opsetid("", 17)]


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], **parts: Any) -> Path:
    """Write a model. parts: initializers, opset, functions."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, parts.get("initializers", []))
    model = helper.make_model(
        graph, opset_imports=parts.get("opset", OPSET), ir_version=9, functions=parts.get("functions", [])
    )
    path.write_bytes(model.SerializeToString())
    return path


def info(name: str, shape: Any, dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def linear(
    path: Path,
    weights: np.ndarray,
    *,
    shape: Any = ("n", 1, 8, 8),
    dtype: int = TensorProto.FLOAT,
    outputs: tuple[str, ...] = ("scores",),
    channels_last: bool = False,
) -> Path:
    """A linear model of flattened queries; a second output holds the class, a third one the negative scores."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    nodes = [helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes += [
        helper.make_node("Flatten", ["first" if channels_last else "image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], [outputs[0]]),
    ]
    rows = shape[0]
    results = [info(outputs[0], [rows, weights.shape[1]], dtype)]
    if len(outputs) > 1:
        nodes.append(helper.make_node("ArgMax", [outputs[0]], [outputs[1]], axis=1, keepdims=0))
        results.append(info(outputs[1], [rows], TensorProto.INT64))
    if len(outputs) > 2:
        nodes.append(helper.make_node("Neg", [outputs[0]], [outputs[2]]))
        results.append(info(outputs[2], [rows, weights.shape[1]], dtype))
    values = [numpy_helper.from_array(weights.astype(kind), "weights")]
    return save(path, nodes, [info("image", shape, dtype)], results, initializers=values)


def with_external_weights(path: Path, weights: np.ndarray, location: str, **entries: str) -> Path:
    """The linear model, its weights said to lie in another file; that file is not written."""
    linear(path, weights)
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path
