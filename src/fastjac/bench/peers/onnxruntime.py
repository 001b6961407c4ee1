"""ONNX Runtime: the output without its Jacobian, as a deployed ONNX model computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernelError

from fastjac.bench.problem import VALUE_ALONE, Call, NotApplicableError, Problem
from fastjac.layers import ACTIVATIONS, Layer

# Name -> ONNX operator, but for the activations that `_activate` writes in another way.
_OPERATORS = {
    "identity": "Identity",
    "relu": "Relu",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "gelu": "Gelu",
    "gelu_tanh": "Gelu",
    "selu": "Selu",
    "celu": "Celu",
    "hard_sigmoid": "HardSigmoid",
    "hard_swish": "HardSwish",
    "mish": "Mish",
    "softsign": "Softsign",
    "exp": "Exp",
    "abs": "Abs",
    "sin": "Sin",
    "cos": "Cos",
    "softmax": "Softmax",
    "log_softmax": "LogSoftmax",
}
_CLIPS = {"relu6": (0, 6), "hard_tanh": (-1, 1)}
_OPSET, _IR_VERSION = 20, 9  # the first with Gelu


def model(problem: Problem) -> bytes:
    """Return the network as an ONNX file: a Gemm and an activation for each layer."""
    kind, count = helper.np_dtype_to_tensor_dtype(problem.dtype), problem.batch or 1
    arrays: dict[str, Any] = {}
    nodes, a = [], "x"
    for i, layer in enumerate(problem.layers):
        arrays |= {f"w{i}": layer.w, f"b{i}": layer.b}
        nodes.append(helper.make_node("Gemm", [a, f"w{i}", f"b{i}"], [f"z{i}"]))
        a = f"a{i}"
        nodes += _activate(layer, f"z{i}", a)
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", kind, [count, problem.sizes[0]])],
        [helper.make_tensor_value_info(a, kind, [count, problem.sizes[-1]])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = helper.make_opsetid("", _OPSET)
    made = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    return bytes(made.SerializeToString())


def _activate(layer: Layer, z: str, a: str) -> list[Any]:
    """Return the nodes from the pre-activation ``z`` to the value ``a``."""
    name, parameter = layer.activation
    if name in _CLIPS:
        bounds = [numpy_helper.from_array(np.array(bound, layer.w.dtype)) for bound in _CLIPS[name]]
        names = [f"low of {z}", f"high of {z}"]
        nodes = [helper.make_node("Constant", [], names[i : i + 1], value=bounds[i]) for i in (0, 1)]
        return [*nodes, helper.make_node("Clip", [z, *names], [a])]
    if name == "silu":
        s = f"sigmoid of {z}"
        return [helper.make_node("Sigmoid", [z], [s]), helper.make_node("Mul", [z, s], [a])]
    if name == "square":
        return [helper.make_node("Mul", [z, z], [a])]
    if name == "prelu":
        slopes = numpy_helper.from_array(np.array(parameter, layer.w.dtype))
        constant = helper.make_node("Constant", [], [f"slopes of {z}"], value=slopes)
        return [constant, helper.make_node("PRelu", [z, f"slopes of {z}"], [a])]
    attributes: dict[str, Any] = {"approximate": "tanh"} if name == "gelu_tanh" else {}
    if name == "hard_sigmoid":
        attributes = {"alpha": 1 / 6, "beta": 0.5}
    if ACTIVATIONS[name] is not None:
        attributes["alpha"] = parameter
    return [helper.make_node(_OPERATORS[name], [z], [a], **attributes)]


def start(problem: Problem, code: bytes) -> Any:
    """Return a session of an ONNX file on one thread."""
    if problem.dtype == np.float64 and any(layer.activation.name == "gelu_tanh" for layer in problem.layers):
        raise NotApplicableError("its gelu_tanh has float32's accuracy in float64")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(code, options, ["CPUExecutionProvider"])
    except (NoKernelError, InvalidGraph) as error:  # Some operators are defined for float32 alone.
        raise NotApplicableError(f"{problem.dtype}: {str(error).split(' : ')[-1]}") from None


def session(problem: Problem) -> Call:
    """Return a session's ``run``."""
    running = start(problem, model(problem))
    given = {"x": problem.x if problem.batch is not None else problem.x[None]}
    single = problem.batch is None

    def call() -> tuple[Any, Any]:
        (y,) = running.run(None, given)
        return y[0] if single else y, None

    return call


PEERS = {f"onnxruntime, {VALUE_ALONE}": session}
