"""ONNX operators that multiply by a matrix of weights."""

from __future__ import annotations

import numpy as np

from fastjac.layers import Activation
from fastjac.models.onnx.elementwise import settled
from fastjac.models.onnx.joins import added
from fastjac.models.onnx.reader import Reader
from fastjac.models.onnx.values import Node, Value
from fastjac.models.onnx.widths import aligned, spread
from fastjac.models.steps import Affine, Step, affine, scale

_TRANSFORMS = {b"NONE": "", b"SOFTMAX": "softmax", b"LOGISTIC": "sigmoid"}


def whole(value: Value, *axes: int) -> list[int]:
    """Return axes as numbers from the front, if all entries of a sample are along them."""
    count = len(value.axes)
    places = [axis + count if axis < 0 else axis for axis in axes]
    others = [size for place, size in enumerate(value.axes) if place not in (*places, value.batch)]
    if value.batch in places or any(size != 1 for size in others) or not all(0 <= p < count for p in places):
        raise ValueError(f"it works along axis {axes[0]} of {value.shape}, expected all of a sample there")
    return places


def matmul(reader: Reader, node: Node, value: Value) -> Value:
    """Follow a product with weights, where samples are the rows of the left or the columns of the right."""
    is_first = node.inputs[0] in reader.values
    w = reader.weight(node.inputs[is_first])
    if w.ndim != 2:
        raise ValueError(f"its weight has shape {w.shape}, expected two axes")
    axis = len(value.axes) - 1 if is_first else max(len(value.axes) - 2, 0)
    axes = list(value.axes)
    axes[axis] = w.shape[1] if is_first else w.shape[0]
    _check_length(value, axis, w.shape[0] if is_first else w.shape[1])
    return value.then(affine(w if is_first else w.T, None, node.where), axes=tuple(axes))


def gemm(reader: Reader, node: Node, value: Value) -> Value:
    """Follow ``alpha A B + beta C``, where the samples are the rows of A or the columns of B."""
    is_first = node.inputs[0] in reader.values
    w = reader.weight(node.inputs[is_first])
    turned = [bool(node.attributes.get(name, 0)) for name in ("transA", "transB")]
    if len(value.axes) != 2 or w.ndim != 2:
        raise ValueError(f"its input has shape {value.shape}, its weight {w.shape}, expected two axes each")
    if is_first:
        axis, w = int(not turned[0]), w.T if turned[1] else w
    else:
        axis, w = int(turned[1]), w if turned[0] else w.T
    _check_length(value, axis, w.shape[0])
    samples, fan_out = value.axes[1 - axis], w.shape[1]
    batch = None if value.batch is None else int(not is_first)
    after = Value(value.base, (samples, fan_out) if is_first else (fan_out, samples), batch)
    alpha, beta = (node.attributes.get(name, 1.0) for name in ("alpha", "beta"))
    b, other = None, None
    if len(node.inputs) > 2 and node.inputs[2] in reader.values:
        other = settled(reader, node.inputs[2])
    elif len(node.inputs) > 2 and node.inputs[2]:
        b, _ = spread(reader, after, reader.constant(node.inputs[2]), repr(node.inputs[2]))
        b = b * beta
    step = affine(w if alpha == 1 else w * alpha, b, node.where)
    result = value.then(step)._replace(axes=after.axes, batch=batch)
    if other is None:
        return result
    (one, two), axes, batch = aligned(reader, [result, other.then(scale(beta, 0.0, node.where))], node.where)
    return Value(added(one, two, node.where), axes, batch)


def _check_length(value: Value, axis: int, length: int) -> None:
    whole(value, axis)
    if value.axes[axis] not in (None, length):
        raise ValueError(f"its weight takes {length} inputs, but its input has shape {value.shape}")


def linear(reader: Reader, node: Node, value: Value) -> Value:
    """Follow scikit-learn's linear models, whose weights are lists among the attributes."""
    coefficients, intercepts = (
        np.asarray(node.attributes.get(name, ()), np.float64) for name in ("coefficients", "intercepts")
    )
    transform = bytes(node.attributes.get("post_transform", b"NONE"))
    rows = node.attributes.get("targets", 1) if node.op == "LinearRegressor" else intercepts.size
    labels = node.attributes.get("classlabels_ints") or node.attributes.get("classlabels_strings") or []
    if transform not in _TRANSFORMS or (labels and len(labels) != rows):
        raise ValueError(f"it has {rows} rows for {len(labels)} classes, and ends in {transform!r}")
    w = coefficients.reshape(rows, -1).T
    axis = len(value.axes) - 1
    _check_length(value, axis, len(w))
    steps: list[Step] = [affine(w, intercepts if intercepts.size else None, node.where)]
    if transform != b"NONE":
        steps.append(Activation(_TRANSFORMS[transform]))
    return value.then(*steps, axes=(*value.axes[:-1], rows))


def normalizer(reader: Reader, node: Node, value: Value) -> Value:
    """Follow the division by the sum, where a classifier's outputs have the sum 1 already."""
    last, is_pair = value.base.step, False
    dense = value.base.before[0].step if value.base.before else None
    if isinstance(dense, Affine) and last == Activation("sigmoid") and dense.b.size == 2:
        is_pair = all(np.array_equal(part[..., 0], -part[..., 1]) for part in (dense.w, dense.b))
    if node.attributes.get("norm") != b"L1" or not (last == Activation("softmax") or is_pair):
        raise ValueError("it divides by the sum of its input, which is not 1")
    return value
