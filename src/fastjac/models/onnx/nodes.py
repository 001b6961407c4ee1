"""The ONNX operators: each returns the value of its output."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastjac.layers import SELU_ALPHA, SELU_SCALE, Activation
from fastjac.models.onnx.elementwise import TERMWISE, settled, termwise
from fastjac.models.onnx.joins import powered
from fastjac.models.onnx.normalisations import (
    REDUCTIONS,
    batch_normalization,
    instance_normalization,
    layer_normalization,
    reduce,
    scaler,
)
from fastjac.models.onnx.products import gemm, linear, matmul, normalizer, whole
from fastjac.models.onnx.reader import Reader
from fastjac.models.onnx.selections import concat, expand, gather, slice_, split, transpose
from fastjac.models.onnx.shapes import flatten, reshape, squeeze, unsqueeze
from fastjac.models.onnx.values import Limits, Node, Value
from fastjac.models.onnx.widths import spread
from fastjac.models.steps import activation_of, scale


def apply(reader: Reader, node: Node, data: list[str]) -> Value:
    """Return the output of a node, of which the inputs ``data`` depend on the network's input."""
    if node.op != "Split" and node.place != _PLACES.get(node.op, 0):
        raise ValueError(f"fastjac does not compute its output {node.output!r}")
    fewest = _FEWEST_INPUTS.get(node.op, 1)
    if len(node.inputs) < fewest:
        raise ValueError(f"it has {len(node.inputs)} inputs, expected {fewest} or more")
    if node.op in TERMWISE:
        return termwise(reader, node, data)
    if node.op == "Concat":
        return concat(reader, node, data)
    if node.op not in _OPERATORS:
        known = ", ".join((*_OPERATORS, "Concat", *TERMWISE))
        raise ValueError(f"{_REFUSED.get(node.op, 'fastjac does not compute this')}; it knows {known}")
    if len(data) > 1 and not (node.op == "Gemm" and data[1:] == node.inputs[2:]):
        raise ValueError(
            f"it takes {' and '.join(map(repr, data))}, of which fastjac lets one be no constant"
        )
    return _OPERATORS[node.op](reader, node, settled(reader, data[0]))


def _clip(reader: Reader, node: Node, value: Value) -> Value:
    limits = [node.attributes.get("min", -math.inf), node.attributes.get("max", math.inf)]
    for place, name in enumerate(node.inputs[1:3]):
        if name:
            limits[place] = reader.constant(name).item()
    return _limited(value, *limits)


def _min_max(reader: Reader, node: Node, value: Value) -> Value:
    limits = [reader.constant(name).item() for name in node.inputs if name not in reader.values]
    if node.op == "Min":
        return _limited(value, -math.inf, min(limits, default=math.inf))
    return _limited(value, max(limits, default=-math.inf), math.inf)


def _limited(value: Value, low: float, high: float) -> Value:
    if math.isnan(low) or math.isnan(high):
        raise ValueError("it clips to NaN")
    return value.then(Limits(low, high)) if (low, high) != (-math.inf, math.inf) else value


def _softmax(reader: Reader, node: Node, value: Value) -> Value:
    axis, count = node.attributes.get("axis", 1 if reader.opset < 13 else -1), len(value.axes)
    # Before opset 13 it was over all axes from this one on.
    whole(value, *(range(axis + count if axis < 0 else axis, count) if reader.opset < 13 else [axis]))
    return value.then(Activation("softmax" if node.op == "Softmax" else "log_softmax"))


def _gelu(reader: Reader, node: Node, value: Value) -> Value:
    approximate = bytes(node.attributes.get("approximate", b"none"))
    return value.then(Activation("gelu_tanh" if approximate == b"tanh" else "gelu"))


def _dropout(reader: Reader, node: Node, value: Value) -> Value:
    is_training = len(node.inputs) > 2 and node.inputs[2] and reader.constant(node.inputs[2]).any()
    if is_training or (reader.opset < 7 and not node.attributes.get("is_test", 0)):
        raise ValueError("it drops units at random: export the model in eval mode")
    return value


def _zip_map(reader: Reader, node: Node, value: Value) -> Value:
    strings = node.attributes.get("classlabels_strings")
    if strings is not None:
        reader.output_names = [str(label, "utf-8") for label in strings]
    else:
        reader.output_names = [str(label) for label in node.attributes["classlabels_int64s"]]
    return value


def _plain(name: str, attribute: str = "", default: float = 0.0) -> Callable[[Reader, Node, Value], Value]:
    """Return the reader of an operator that is one of our activations."""

    def follow(reader: Reader, node: Node, value: Value) -> Value:
        parameter = float(node.attributes.get(attribute, default))
        return value.then(activation_of(name, node.where, parameter))

    return follow


def _selu(reader: Reader, node: Node, value: Value) -> Value:
    given = node.attributes.get("alpha", SELU_ALPHA), node.attributes.get("gamma", SELU_SCALE)
    if np.allclose(given, (SELU_ALPHA, SELU_SCALE), rtol=1e-6, atol=0):
        return value.then(Activation("selu"))
    return value.then(activation_of("elu", node.where, given[0]), scale(given[1], 0.0, node.where))


def _prelu(reader: Reader, node: Node, value: Value) -> Value:
    slopes = reader.constant(node.inputs[1])
    if slopes.size > 1:
        slopes, value = spread(reader, value, slopes, repr(node.inputs[1]))
    return value.then(activation_of("prelu", node.where, np.ravel(slopes)))


def _swish(reader: Reader, node: Node, value: Value) -> Value:
    alpha = float(node.attributes.get("alpha", 1.0))
    steps = scale(alpha, 0.0, node.where), Activation("silu"), scale(1 / alpha, 0.0, node.where)
    return value.then(*(steps if alpha != 1 else steps[1:2]), where=node.where)


def _power(exponent: float) -> Callable[[Reader, Node, Value], Value]:
    def follow(reader: Reader, node: Node, value: Value) -> Value:
        return value._replace(base=powered(value.base, exponent, node.where))

    return follow


# The output of a node that is no first one.
_PLACES = {"LinearClassifier": 1}
# What is not said here has one input, or any number.
_FEWEST_INPUTS = {
    "BatchNormalization": 5,
    "GroupNormalization": 3,
    "InstanceNormalization": 3,
    **dict.fromkeys(("Gemm", "MatMul", "PRelu", "Gather", "Expand", "Reshape"), 2),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), 2),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Greater"), 2),
}
_REFUSED = {"ThresholdedRelu": "it jumps where its input is alpha, so it has no derivative there"}
_OPERATORS: dict[str, Callable[[Reader, Node, Value], Value]] = {
    "Gemm": gemm,
    "MatMul": matmul,
    "LinearClassifier": linear,
    "LinearRegressor": linear,
    "Normalizer": normalizer,
    "BatchNormalization": batch_normalization,
    "Scaler": scaler,
    "Relu": lambda reader, node, value: _limited(value, 0.0, math.inf),
    "Clip": _clip,
    "Min": _min_max,
    "Max": _min_max,
    "LeakyRelu": _plain("leaky_relu", "alpha", 0.01),
    "Elu": _plain("elu", "alpha", 1.0),
    "Gelu": _gelu,
    "PRelu": _prelu,
    "Selu": _selu,
    "Celu": _plain("celu", "alpha", 1.0),
    "Swish": _swish,
    "Sqrt": _power(0.5),
    "Reciprocal": _power(-1.0),
    "Log": lambda reader, node, value: value.then("log", where=node.where),
    "LayerNormalization": layer_normalization,
    "RMSNormalization": layer_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": instance_normalization,
    **dict.fromkeys(REDUCTIONS, reduce),
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "Expand": expand,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Flatten": flatten,
    "Reshape": reshape,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Dropout": _dropout,
    "ZipMap": _zip_map,
}
