"""ONNX files to test with, and ONNX Runtime as the oracle."""

import numpy as np
import pytest

from fastjac.models.files import load

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

rng = np.random.default_rng(0)
TOLERANCES = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}


def runtime(path, x):
    """Return what ONNX Runtime makes of a batch: its one output of floats."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for y in session.run(None, {session.get_inputs()[0].name: x}):
        if isinstance(y, list):  # a ZipMap's
            return np.array([list(row.values()) for row in y])
        if y.dtype.kind == "f":
            return y
    raise AssertionError("no output of floats")


def assert_as_runtime(path, x):
    net = load(path)
    assert net.dtype == x.dtype
    expected = runtime(path, x)
    y, _ = net.value_and_jacobian(x.reshape(len(x), -1))
    np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCES[x.dtype] * np.abs(expected).max())
    return net


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def save(path, nodes, constants, *, shape=("batch", 4), kind=TensorProto.FLOAT, opset=20, outputs=None):
    """Write a model whose input is ``x`` and whose output is ``y``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        outputs or [helper.make_tensor_value_info("y", kind, None)],
        constants,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def w(*shape, dtype=np.float32):
    return rng.normal(size=shape).astype(dtype)


def node(op, inputs, output="y", **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)
