"""What classifiers and linear models of scikit-learn become in ONNX files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.graph.values import Affine, Apply, Concatenate, Scale, Value
from fastjac.layers import Activation
from fastjac.models import steps
from fastjac.models.onnx.proto import Node
from fastjac.models.onnx.samples import Samples, joined, matmul

Array = NDArray[Any]


def linear(node: Node, x: Samples) -> Samples:
    """Follow scikit-learn's linear models, whose weights are lists among the attributes."""
    given = node.attributes.get
    coefficients, intercepts = (np.asarray(given(name, ())) for name in ("coefficients", "intercepts"))
    transform = bytes(given("post_transform", b"NONE"))
    rows = given("targets", 1) if node.op == "LinearRegressor" else intercepts.size
    labels = given("classlabels_ints") or given("classlabels_strings") or []
    if transform not in (b"NONE", b"SOFTMAX", b"LOGISTIC") or (labels and len(labels) != rows):
        raise ValueError(f"it has {rows} rows for {len(labels)} classes, and ends in {transform!r}")
    y = matmul(x, coefficients.reshape(rows, -1).T, node.where)
    y = joined("add", [y, intercepts], node.where) if intercepts.size else y
    if transform == b"SOFTMAX":
        return y.kept(graph.softmax, [-1], node.where)
    return y.activated("sigmoid") if transform == b"LOGISTIC" else y


def normalizer(node: Node, x: Samples) -> Samples:
    """Follow the division by the sum, where a classifier's outputs have the sum 1 already."""
    value, is_pair = x.tensor.flat, False
    if _is_activation(value, "sigmoid") and value.size == 2:
        dense = _dense(value.inputs[0])
        is_pair = dense is not None and all(np.array_equal(part[..., 0], -part[..., 1]) for part in dense[:2])
    if node.attributes.get("norm") != b"L1" or not (is_pair or _is_activation(value, "softmax")):
        raise ValueError("it divides by the sum of its input, which is not 1")
    return x


def _is_activation(value: Value, name: str) -> bool:
    return isinstance(value.operation, Apply) and value.operation.activation.name == name


def _line(value: Value) -> tuple[Any, Any, Value]:
    """Return the factor, the shift and what they are applied to, of a value after some scales."""
    factor, shift = np.ones(value.size), np.zeros(value.size)
    while isinstance(value.operation, Scale):
        factor, shift = factor * value.operation.factor, factor * value.operation.shift + shift
        (value,) = value.inputs
    return factor, shift, value


def _dense(value: Value) -> tuple[Array, Array, Value] | None:
    """Return the weights and the input of a value that is an affine map of another."""
    factor, shift, core = _line(value)
    if not isinstance(core.operation, Affine):
        return None
    w, b = core.operation
    return w * factor, b * factor + shift, core.inputs[0]


def both_columns(value: Value, where: str) -> Value | None:
    """Return 1 - p and p, where p is the sigmoid of a dense layer that a classifier ends in."""
    if not isinstance(value.operation, Concatenate) or len(value.inputs) != 2:
        return None
    factor, shift, core = _line(value.inputs[0])
    p = value.inputs[1]
    if core is not p or np.any(factor != -1) or np.any(shift != 1) or not _is_activation(p, "sigmoid"):
        return None
    if (dense := _dense(p.inputs[0])) is None:
        return None
    layer, activation = steps.both_columns([steps.affine(*dense[:2], where), Activation("sigmoid")], where)
    assert isinstance(layer, steps.Affine) and isinstance(activation, Activation)
    return graph.affine(dense[2], layer.w, layer.b, activation)
