"""The ONNX operators: each returns the value of its output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.layers import SELU_ALPHA, SELU_SCALE, Activation
from fastjac.models.onnx.patterns import COMPLEMENT, FUNCTIONS, X, combine, has_factors, is_softplus
from fastjac.models.onnx.reader import Reader
from fastjac.models.onnx.shapes import flatten, reshape, squeeze, transpose, unsqueeze
from fastjac.models.onnx.tensors import FLOATS
from fastjac.models.onnx.values import Base, Limits, Node, Value
from fastjac.models.steps import Affine, Step, activation_of, affine, both_columns, normalisation, scale


def apply(reader: Reader, node: Node, data: list[str]) -> Value:
    """Return the output of a node, of which the inputs ``data`` depend on the network's input."""
    if node.op in _TERMWISE:
        return _termwise(reader, node, data)
    if node.op == "Concat":
        return _concat(reader, node, data)
    if node.op not in _OPERATORS:
        raise ValueError(f"fastjac does not compute this; it knows {', '.join((*_OPERATORS, *_TERMWISE))}")
    if len(data) > 1:
        raise ValueError(
            f"it takes {' and '.join(map(repr, data))}, of which fastjac lets one be no constant"
        )
    return _OPERATORS[node.op](reader, node, reader.settled(data[0]))


def constant(attributes: Mapping[str, Any]) -> Any:
    """Return the value of a Constant node."""
    for name, value in attributes.items():
        if name in ("value_float", "value_floats", "value_int", "value_ints"):
            return np.asarray(value, np.float32 if "float" in name else np.int64)
    if "value" not in attributes:
        raise ValueError("it has no tensor and no number")
    return attributes["value"]


def _termwise(reader: Reader, node: Node, data: list[str]) -> Value:
    """Return the output of an elementwise node: terms if its constants are single numbers, else a scale."""
    arrays = {name: reader.constant(name) for name in node.inputs if name not in reader.values}
    values = [reader.values[name] for name in data]
    plain = all(array.size == 1 and array.ndim <= len(values[0].axes) for array in arrays.values())
    if not plain and len(node.inputs) == 2 and len(data) == 1 and node.op in ("Add", "Sub", "Mul", "Div"):
        return _scaled(reader, node, reader.settled(data[0]), *arrays.values())
    if not plain:
        shapes = " and ".join(f"{name!r} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"it takes {shapes}, expected single numbers")
    if node.op == "Cast" and node.attributes.get("to") not in FLOATS:
        raise ValueError("it casts to something else than floats")
    spelled = node.op == "Tanh" and is_softplus(values[0].terms)
    if node.op in FUNCTIONS and has_factors(values[0].terms) and not spelled:
        values = [reader.settled(data[0])]
    first = values[0]
    if any(value.base is not first.base or value[1:3] != first[1:3] for value in values):
        raise ValueError(f"{' and '.join(map(repr, data))} meet here in no activation that fastjac has")
    inputs = [
        reader.values[name].terms if name in reader.values else float(arrays[name].item())
        for name in node.inputs
    ]
    if node.op == "HardSigmoid":
        # As a function of what goes from -3 to 3; 6 times a sixth in float32 is not 1.
        slope, shift = (
            node.attributes.get(name, default) for name, default in (("alpha", 0.2), ("beta", 0.5))
        )
        slope = 1.0 if math.isclose(6 * slope, 1, rel_tol=1e-6) else 6 * slope
        inputs = [combine("Add", [combine("Mul", [inputs[0], slope]), 6 * shift - 3])]
    return first._replace(terms=combine(node.op, inputs))


def _scaled(reader: Reader, node: Node, value: Value, array: NDArray[Any]) -> Value:
    """Return the output of Add, Sub, Mul or Div with one constant input."""
    is_second = node.inputs[0] in reader.values
    name = node.inputs[is_second]
    if reader.opset < 7 and "axis" in node.attributes:
        # Then a constant's axes began at this one.
        array = array.reshape(array.shape + (1,) * (len(value.axes) - node.attributes["axis"] - array.ndim))
    constants, value = reader.spread(value, array, repr(name))
    if node.op == "Mul":
        return value.then(scale(constants, 0.0, node.where))
    if node.op == "Div":
        if not is_second:
            raise ValueError("it divides by the input")
        return value.then(scale(1 / constants, 0.0, node.where))
    minus = -1.0 if node.op == "Sub" else 1.0
    factor, shift = (1.0, minus * constants) if is_second else (minus, constants)
    return value.then(scale(factor, shift, node.where))


def _concat(reader: Reader, node: Node, data: list[str]) -> Value:
    """Return 1 - p and p, the two columns of a classifier whose last unit is a sigmoid."""
    values = [reader.values[name] for name in data]
    if [value.terms for value in values] != [COMPLEMENT, X] or values[0].base is not values[1].base:
        raise ValueError("fastjac reads this only where it joins 1 - p and p")
    value = values[1]
    (place,) = _whole(value, node.attributes.get("axis", 0))
    axes = list(value.axes)
    axes[place] = 2 * (value.size or 0)
    steps = both_columns(list(value.base.path()), node.where)
    return Value(Base(None, tuple(steps)), tuple(axes), value.batch)


def _whole(value: Value, *axes: int) -> list[int]:
    """Return axes as numbers from the front, if all entries of a sample are along them."""
    count = len(value.axes)
    places = [axis + count if axis < 0 else axis for axis in axes]
    others = [size for place, size in enumerate(value.axes) if place not in (*places, value.batch)]
    if value.batch in places or any(size != 1 for size in others) or not all(0 <= p < count for p in places):
        raise ValueError(f"it works along axis {axes[0]} of {value.shape}, expected all of a sample there")
    return places


def _matmul(reader: Reader, node: Node, value: Value) -> Value:
    is_first = node.inputs[0] in reader.values
    w = reader.weight(node.inputs[is_first])
    if w.ndim != 2:
        raise ValueError(f"its weight has shape {w.shape}, expected two axes")
    axis = len(value.axes) - 1 if is_first else max(len(value.axes) - 2, 0)
    axes = list(value.axes)
    axes[axis] = w.shape[1] if is_first else w.shape[0]
    _check_length(value, axis, w.shape[0] if is_first else w.shape[1])
    return value.then(affine(w if is_first else w.T, None, node.where), axes=tuple(axes))


def _gemm(reader: Reader, node: Node, value: Value) -> Value:
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
    b = None
    if len(node.inputs) > 2 and node.inputs[2]:
        b, _ = reader.spread(after, reader.constant(node.inputs[2]), repr(node.inputs[2]))
        b = b * beta
    step = affine(w if alpha == 1 else w * alpha, b, node.where)
    return value.then(step)._replace(axes=after.axes, batch=batch)


def _check_length(value: Value, axis: int, length: int) -> None:
    _whole(value, axis)
    if value.axes[axis] not in (None, length):
        raise ValueError(f"its weight takes {length} inputs, but its input has shape {value.shape}")


def _linear(reader: Reader, node: Node, value: Value) -> Value:
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


def _normalizer(reader: Reader, node: Node, value: Value) -> Value:
    """Follow the division by the sum, where a classifier's outputs have the sum 1 already."""
    *_, dense, last = (None, None, *value.base.path())
    is_pair = False
    if isinstance(dense, Affine) and last == Activation("sigmoid") and dense.b.size == 2:
        is_pair = all(np.array_equal(part[..., 0], -part[..., 1]) for part in (dense.w, dense.b))
    if node.attributes.get("norm") != b"L1" or not (last == Activation("softmax") or is_pair):
        raise ValueError("it divides by the sum of its input, which is not 1")
    return value


def _batch_normalization(reader: Reader, node: Node, value: Value) -> Value:
    given = node.attributes.get
    is_fixed = given("is_test", 0) if reader.opset < 7 else not given("training_mode", 0)
    if not is_fixed or not given("spatial", 1) or len(value.axes) < 2 or value.batch not in (0, None):
        raise ValueError("it does not normalise samples with fixed statistics")
    parts = []
    for name in node.inputs[1:5]:
        channels = reader.constant(name).reshape((-1,) + (1,) * (len(value.axes) - 2))
        part, value = reader.spread(value, channels, repr(name))
        parts.append(part)
    gamma, beta, mean, variance = parts
    return value.then(normalisation(mean, variance, given("epsilon", 1e-5), gamma, beta, node.where))


def _scaler(reader: Reader, node: Node, value: Value) -> Value:
    offset, factor = (np.asarray(node.attributes[name], np.float64) for name in ("offset", "scale"))
    return value.then(scale(factor, -offset * factor, node.where))


def _clip(reader: Reader, node: Node, value: Value) -> Value:
    limits = [node.attributes.get("min", -math.inf), node.attributes.get("max", math.inf)]
    for place, name in enumerate(node.inputs[1:3]):
        if name:
            limits[place] = reader.constant(name).item()
    return _limited(value, *limits)


def _min_max(reader: Reader, node: Node, value: Value) -> Value:
    (name,) = (name for name in node.inputs if name not in reader.values)
    limit = reader.constant(name).item()
    return _limited(value, *((-math.inf, limit) if node.op == "Min" else (limit, math.inf)))


def _limited(value: Value, low: float, high: float) -> Value:
    if math.isnan(low) or math.isnan(high):
        raise ValueError("it clips to NaN")
    return value.then(Limits(low, high)) if (low, high) != (-math.inf, math.inf) else value


def _softmax(reader: Reader, node: Node, value: Value) -> Value:
    axis, count = node.attributes.get("axis", 1 if reader.opset < 13 else -1), len(value.axes)
    # Before opset 13 it was over all axes from this one on.
    _whole(value, *(range(axis + count if axis < 0 else axis, count) if reader.opset < 13 else [axis]))
    return value.then(Activation("softmax" if node.op == "Softmax" else "log_softmax"))


def _gelu(reader: Reader, node: Node, value: Value) -> Value:
    approximate = bytes(node.attributes.get("approximate", b"none"))
    return value.then(Activation("gelu_tanh" if approximate == b"tanh" else "gelu"))


def _selu(reader: Reader, node: Node, value: Value) -> Value:
    given = node.attributes.get("alpha", SELU_ALPHA), node.attributes.get("gamma", SELU_SCALE)
    if np.allclose(given, (SELU_ALPHA, SELU_SCALE), rtol=1e-6, atol=0):
        return value.then(Activation("selu"))
    return value.then(activation_of("elu", node.where, given[0]), scale(given[1], 0.0, node.where))


def _prelu(reader: Reader, node: Node, value: Value) -> Value:
    slopes = reader.constant(node.inputs[1])
    if slopes.size > 1:
        slopes, value = reader.spread(value, slopes, repr(node.inputs[1]))
    return value.then(activation_of("prelu", node.where, np.ravel(slopes)))


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


_TERMWISE = (*FUNCTIONS, "Add", "Sub", "Mul", "Div", "Neg", "Pow", "Identity", "Cast", "Greater", "Where")
_TRANSFORMS = {b"NONE": "", b"SOFTMAX": "softmax", b"LOGISTIC": "sigmoid"}
_OPERATORS: dict[str, Callable[[Reader, Node, Value], Value]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LinearClassifier": _linear,
    "LinearRegressor": _linear,
    "Normalizer": _normalizer,
    "BatchNormalization": _batch_normalization,
    "Scaler": _scaler,
    "Relu": lambda reader, node, value: _limited(value, 0.0, math.inf),
    "Clip": _clip,
    "Min": _min_max,
    "Max": _min_max,
    "LeakyRelu": _plain("leaky_relu", "alpha", 0.01),
    "Elu": _plain("elu", "alpha", 1.0),
    "Celu": _plain("celu", "alpha", 1.0),
    "Selu": _selu,
    "PRelu": _prelu,
    "Gelu": _gelu,
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
