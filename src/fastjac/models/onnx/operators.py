"""The ONNX operators: each returns the tensor of its output."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.layers import SELU_ALPHA, SELU_SCALE, Activation
from fastjac.models import steps, tensors
from fastjac.models.onnx.classifiers import both_columns, linear, normalizer
from fastjac.models.onnx.constants import MOVES, reduced_axes
from fastjac.models.onnx.proto import Node
from fastjac.models.onnx.samples import Operand, Samples, concatenated, joined, matmul
from fastjac.models.onnx.tensors import FLOATS

Array = NDArray[Any]
_Operator = Callable[..., Samples]


def apply(node: Node, operands: Sequence[Operand | None]) -> Samples:
    """Return the output of a node, of whose inputs one or more depend on the network's input.

    Raises
    ------
    ValueError
        If fastjac does not compute it.
    """
    if node.op in MOVES:
        return _moved(node, *(each for each in operands if each is not None))
    if node.place != _PLACES.get(node.op, 0):
        raise ValueError(f"fastjac does not compute its output {node.output!r}")
    if node.op not in OPERATORS:
        known = ", ".join((*OPERATORS, *MOVES))
        raise ValueError(f"{_REFUSED.get(node.op, 'fastjac does not compute this')}; it knows {known}")
    if len(operands) < _FEWEST_INPUTS.get(node.op, 1):
        raise ValueError(f"it has {len(operands)} inputs, expected {_FEWEST_INPUTS[node.op]} or more")
    if node.op not in _MEETING and any(isinstance(each, Samples) for each in operands[1:]):
        raise ValueError("its parameters depend on the input")
    return OPERATORS[node.op](node, *operands)


def _moved(node: Node, x: Operand, *others: Operand) -> Samples:
    """Follow an operator that only moves the entries of its first input, as it moves those of constants."""
    arrays = [each for each in others if not isinstance(each, Samples)]
    if not isinstance(x, Samples) or len(arrays) < len(others):
        raise ValueError("where it takes entries from depends on the input")
    return x.moved(lambda places: MOVES[node.op](node, [places, *arrays], x.budget))


def _joined(name: str) -> _Operator:
    """Return the reader of an operator that meets two or more tensors entry by entry."""

    def follow(node: Node, *operands: Operand) -> Samples:
        if node.opset < 7 and "axis" in node.attributes:
            # Then a constant's axes began at this one.
            x, other = operands
            if isinstance(other, Samples):
                raise ValueError("its second input is no constant")
            behind = len(x.shape) - node.attributes["axis"] - other.ndim
            operands = x, other.reshape(*other.shape, *[1] * behind)
        result = functools.reduce(lambda a, b: _met(name, a, b, node.where), operands)
        assert isinstance(result, Samples)
        return result

    return follow


def _met(name: str, a: Operand, b: Operand, where: str) -> Operand:
    if isinstance(a, Samples) or isinstance(b, Samples):
        return joined(name, [a, b], where)
    return np.asarray(getattr(np, name)(a, b))


def _scaled(node: Node, x: Samples, factor: Any, shift: Any = 0.0) -> Samples:
    y = x if np.all(factor == 1) else joined("multiply", [x, np.asarray(factor)], node.where)
    return y if np.all(shift == 0) else joined("add", [y, np.asarray(shift)], node.where)


def _power(node: Node, x: Operand, exponent: Operand) -> Samples:
    if not isinstance(x, Samples) or isinstance(exponent, Samples) or exponent.size != 1:
        raise ValueError("its exponent is not one number")
    return x.each(lambda tensor: tensors.power(tensor, float(exponent.item()), node.where))


def _cast(node: Node, x: Samples) -> Samples:
    if node.attributes.get("to") not in FLOATS:
        raise ValueError("it casts to something else than floats")
    return x


def _clip(node: Node, x: Samples, low: Array | None = None, high: Array | None = None) -> Samples:
    limits = [
        node.attributes.get(name) if given is None else given.item()
        for name, given in zip(("min", "max"), (low, high), strict=True)
    ]
    for name, limit in zip(("maximum", "minimum"), limits, strict=True):
        if limit is not None and math.isnan(limit):
            raise ValueError("it clips to NaN")
        x = x if limit is None else joined(name, [x, np.asarray(limit)], node.where)
    return x


def _hard_sigmoid(node: Node, x: Samples) -> Samples:
    slope, shift = (node.attributes.get(name, default) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    # 6 times a sixth in float32 is not 1.
    factor = 1.0 if math.isclose(6 * slope, 1, rel_tol=1e-6) else 6 * slope
    return _scaled(node, x, factor, 6 * shift - 3).activated("hard_sigmoid")


def _selu(node: Node, x: Samples) -> Samples:
    alpha, gamma = node.attributes.get("alpha", SELU_ALPHA), node.attributes.get("gamma", SELU_SCALE)
    if np.allclose((alpha, gamma), (SELU_ALPHA, SELU_SCALE), rtol=1e-6, atol=0):
        return x.activated("selu")
    return _scaled(node, x.activated(Activation("elu", alpha)), gamma)


def _swish(node: Node, x: Samples) -> Samples:
    alpha = node.attributes.get("alpha", 1.0)
    return _scaled(node, _scaled(node, x, alpha).activated("silu"), 1 / alpha)


def _gelu(node: Node, x: Samples) -> Samples:
    return x.activated("gelu_tanh" if node.attributes.get("approximate") == b"tanh" else "gelu")


def _prelu(node: Node, x: Samples, slopes: Array) -> Samples:
    wide = joined("add", [x, 0 * slopes], node.where)  # Slopes may repeat what is one entry.
    of_each = np.broadcast_to(steps.as_float64(slopes, "its slopes"), wide.tensor.shape).ravel()
    activation = Activation("prelu", tuple(of_each.tolist()))
    return wide.each(lambda x: tensors.tensor(graph.apply(x.flat, activation), x.shape))


def _activation(name: str, attribute: str, default: float) -> _Operator:
    """Return the reader of an operator that is one of our activations with a parameter."""
    return lambda node, x: x.activated(Activation(name, float(node.attributes.get(attribute, default))))


def _plain(name: str) -> _Operator:
    return lambda node, x: x.activated(name)


def _function(name: str) -> _Operator:
    return lambda node, x: x.function(name, node.where)


def _dropout(node: Node, x: Samples, ratio: Any = None, training: Array | None = None) -> Samples:
    is_training = training is not None and training.any()
    if is_training or (node.opset < 7 and not node.attributes.get("is_test", 0)):
        raise ValueError("it drops units at random: export the model in eval mode")
    return x


def _gemm(node: Node, a: Operand, b: Operand, c: Operand | None = None) -> Samples:
    """Follow ``alpha A B + beta C``, of whose factors each may be given transposed."""
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ValueError("it multiplies other than matrices")
    given = node.attributes.get
    left, right = _turned(a, given("transA", 0)), _turned(b, given("transB", 0))
    y = _scaled(node, matmul(left, right, node.where), given("alpha", 1.0))
    if c is None:
        return y
    return joined("add", [y, _met("multiply", c, np.asarray(given("beta", 1.0)), node.where)], node.where)


def _turned(matrix: Operand, is_turned: int) -> Operand:
    if not is_turned:
        return matrix
    return matrix.turned() if isinstance(matrix, Samples) else matrix.T


def _heads(name: str) -> _Operator:
    def follow(node: Node, x: Samples) -> Samples:
        count = len(x.shape)
        axis = node.attributes.get("axis", 1 if node.opset < 13 else -1)
        # Before opset 13 it was over all axes from this one on.
        axes = range(axis % count, count) if node.opset < 13 else [axis]
        return x.kept(lambda row: graph.apply(row, name), list(axes), node.where)

    return follow


def _batch_normalization(
    node: Node, x: Samples, gamma: Array, beta: Array, mean: Array, variance: Array
) -> Samples:
    """Follow BatchNormalization with the statistics that the file holds."""
    given = node.attributes.get
    is_fixed = given("is_test", 0) if node.opset < 7 else not given("training_mode", 0)
    if not is_fixed or not given("spatial", 1) or len(x.shape) < 2 or x.batch not in (0, None):
        raise ValueError("it does not normalise samples with fixed statistics")
    factor, shift, _ = steps.normalisation(mean, variance, given("epsilon", 1e-5), gamma, beta, node.where)
    parts = [tensors.by_channel(part, len(x.shape)) for part in (factor, shift)]
    return _scaled(node, x, *parts)


def _layer_normalization(node: Node, x: Samples, gain: Array, bias: Array | None = None) -> Samples:
    axis, count = node.attributes.get("axis", -1), len(x.shape)
    epsilon, centred = float(node.attributes.get("epsilon", 1e-5)), node.op == "LayerNormalization"
    y = x.normalised(range(axis % count, count), epsilon, centred, node.where)
    return _scaled(node, y, gain, 0.0 if bias is None else bias)


def _instance_normalization(node: Node, x: Samples, gain: Array, bias: Array) -> Samples:
    """Follow InstanceNormalization, and GroupNormalization."""
    if len(x.shape) < 3 or x.batch not in (0, None):
        raise ValueError(f"it takes {x.text}, expected samples, channels and more axes")
    shape, channels = x.shape, x.shape[1]
    groups = node.attributes.get("num_groups", channels)
    y = x.moved(lambda p: p.reshape(shape[0], groups, -1))
    y = y.normalised([2], float(node.attributes.get("epsilon", 1e-5)), True, node.where)
    wide = [np.repeat(part, channels // part.size) for part in (gain, bias)]
    parts = [tensors.by_channel(part, len(shape)) for part in wide]
    return _scaled(node, y.moved(lambda p: p.reshape(p.shape[0], *shape[1:])), *parts)


def _reduced(node: Node, x: Samples, axes: Array | None = None) -> Samples:
    along = reduced_axes(axes, node.attributes, len(x.shape))
    if along is None:
        return x
    keep, where = bool(node.attributes.get("keepdims", 1)), node.where
    before, name, after = _REDUCTIONS[node.op]
    if before:
        x = x.activated(before)
    y = x.summed(along, keep, name, where)
    return y.function(after, where) if after else y


def _concat(node: Node, *parts: Operand) -> Samples:
    together = concatenated(parts, node.attributes.get("axis", 1))
    value = both_columns(together.tensor.flat, node.where)
    return together if value is None else together.each(lambda x: tensors.tensor(value, x.shape))


# Of a reduction: the activation before the sum, mean or maximum, and the function after it.
_REDUCTIONS = {
    "ReduceMean": ("", "mean", ""),
    "ReduceSum": ("", "sum", ""),
    "ReduceMax": ("", "max", ""),
    "ReduceSumSquare": ("square", "sum", ""),
    "ReduceL1": ("abs", "sum", ""),
    "ReduceL2": ("square", "sum", "sqrt"),
    "ReduceLogSum": ("", "sum", "log"),
    "ReduceLogSumExp": ("exp", "sum", "log"),
}
# The output of a node that is no first one.
_PLACES = {"LinearClassifier": 1}
_FEWEST_INPUTS = {
    "BatchNormalization": 5,
    "Where": 3,
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization"), 3),
    **dict.fromkeys(("Gemm", "MatMul", "PRelu", "LayerNormalization", "RMSNormalization"), 2),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), 2),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), 2),
}
_REFUSED = {"ThresholdedRelu": "it jumps where its input is alpha, so it has no derivative there"}
# Operators that meet tensors.
_MEETING: dict[str, _Operator] = {
    "Gemm": _gemm,
    "MatMul": lambda node, a, b: matmul(a, b, node.where),
    "Add": _joined("add"),
    "Sum": _joined("add"),
    "Sub": _joined("subtract"),
    "Mul": _joined("multiply"),
    "Div": _joined("divide"),
    "Max": _joined("maximum"),
    "Min": _joined("minimum"),
    "Pow": _power,
    "Equal": _joined("equal"),
    "Greater": _joined("greater"),
    "GreaterOrEqual": _joined("greater_equal"),
    "Less": _joined("less"),
    "LessOrEqual": _joined("less_equal"),
    "Where": lambda node, *operands: joined("where", operands, node.where),
    "Concat": _concat,
}
OPERATORS: dict[str, _Operator] = {
    **_MEETING,
    "LinearClassifier": linear,
    "LinearRegressor": linear,
    "Normalizer": normalizer,
    "Scaler": lambda node, x: _scaled(
        node, _scaled(node, x, 1.0, -np.asarray(node.attributes["offset"])), node.attributes["scale"]
    ),
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "RMSNormalization": _layer_normalization,
    "InstanceNormalization": _instance_normalization,
    "GroupNormalization": _instance_normalization,
    "Identity": lambda node, x: x,
    "Cast": _cast,
    "Dropout": _dropout,
    "ZipMap": lambda node, x: x,
    "Clip": _clip,
    "Relu": _plain("relu"),
    "LeakyRelu": _activation("leaky_relu", "alpha", 0.01),
    "PRelu": _prelu,
    "Elu": _activation("elu", "alpha", 1.0),
    "Celu": _activation("celu", "alpha", 1.0),
    "Selu": _selu,
    "Gelu": _gelu,
    "Swish": _swish,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain("hard_swish"),
    "Softmax": _heads("softmax"),
    "LogSoftmax": _heads("log_softmax"),
    **{
        op: _plain(op.lower())
        for op in ("Abs", "Cos", "Exp", "Mish", "Sigmoid", "Sin", "Softplus", "Softsign", "Tanh")
    },
    "Neg": lambda node, x: _scaled(node, x, -1.0),
    **{op: _function(op.lower()) for op in ("Erf", "Log", "Reciprocal", "Sign", "Sqrt")},
    "Not": _function("logical_not"),
    **dict.fromkeys(_REDUCTIONS, _reduced),
}
