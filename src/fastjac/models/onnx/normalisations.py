"""ONNX operators that normalise, and sums and means over all entries of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fastjac.layers import Activation
from fastjac.models.onnx.constants import reduced_axes
from fastjac.models.onnx.products import whole
from fastjac.models.onnx.reader import Reader
from fastjac.models.onnx.values import AnyStep, Mean, Node, Normalise, Power, Value
from fastjac.models.onnx.widths import spread
from fastjac.models.steps import normalisation, scale


def batch_normalization(reader: Reader, node: Node, value: Value) -> Value:
    """Follow BatchNormalization with the statistics that the file holds."""
    given = node.attributes.get
    is_fixed = given("is_test", 0) if reader.opset < 7 else not given("training_mode", 0)
    if not is_fixed or not given("spatial", 1) or len(value.axes) < 2 or value.batch not in (0, None):
        raise ValueError("it does not normalise samples with fixed statistics")
    parts = []
    for name in node.inputs[1:5]:
        channels = reader.constant(name).reshape((-1,) + (1,) * (len(value.axes) - 2))
        part, value = spread(reader, value, channels, repr(name))
        parts.append(part)
    gamma, beta, mean, variance = parts
    return value.then(normalisation(mean, variance, given("epsilon", 1e-5), gamma, beta, node.where))


def scaler(reader: Reader, node: Node, value: Value) -> Value:
    """Follow scikit-learn's scalers."""
    offset, factor = (np.asarray(node.attributes[name], np.float64) for name in ("offset", "scale"))
    return value.then(scale(factor, -offset * factor, node.where))


def reduce(reader: Reader, node: Node, value: Value) -> Value:
    """Follow a sum, a mean or another reduction of all entries of a sample to one."""
    count = len(value.axes)
    given = reader.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = reduced_axes(given, node.attributes, count)
    if axes is None:
        return value
    places = whole(value, *axes)
    if value.size is None:
        raise ValueError(f"its input has shape {value.shape}, expected known sizes")
    kept = list(range(count))
    sizes = [1 if place in places else size for place, size in enumerate(value.axes)]
    if not node.attributes.get("keepdims", 1):
        kept = [place for place in kept if place not in places]
    steps = [
        scale(step, 0.0, node.where) if isinstance(step, float) else step
        for step in _REDUCTIONS[node.op](value.size)
    ]
    after = value.then(*steps, where=node.where, axes=tuple(sizes[place] for place in kept))
    return after._replace(batch=None if value.batch is None else kept.index(value.batch))


def layer_normalization(reader: Reader, node: Node, value: Value) -> Value:
    """Follow LayerNormalization and RMSNormalization over all entries of a sample."""
    axis, count = node.attributes.get("axis", -1), len(value.axes)
    whole(value, *range(axis + count if axis < 0 else axis, count))
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    value = value.then(Normalise(epsilon, node.op == "LayerNormalization"), where=node.where)
    return _with_gain(reader, node, value)


def instance_normalization(reader: Reader, node: Node, value: Value) -> Value:
    """Follow InstanceNormalization, and GroupNormalization, where a sample is one group."""
    groups = node.attributes.get("num_groups", value.axes[1] if len(value.axes) > 2 else None)
    if groups != 1 or value.batch not in (0, None):
        raise ValueError(f"it normalises parts of {value.shape}, expected all entries of a sample together")
    value = value.then(Normalise(float(node.attributes.get("epsilon", 1e-5)), True), where=node.where)
    return _with_gain(reader, node, value, (1,) * (len(value.axes) - 2))


def _with_gain(reader: Reader, node: Node, value: Value, behind: tuple[int, ...] = ()) -> Value:
    parts = []
    for name in node.inputs[1:3]:
        array = reader.constant(name) if name else np.zeros(())
        part, value = spread(reader, value, array.reshape(array.shape + behind), repr(name))
        parts.append(part)
    gain, shift = parts if len(parts) > 1 else (parts[0], np.zeros(1))
    return value.then(scale(gain, shift, node.where))


# What follows of how many entries; a number is a factor.
_REDUCTIONS: dict[str, Callable[[int], Sequence[AnyStep | float]]] = {
    "ReduceMean": lambda size: [Mean(size)],
    "ReduceSum": lambda size: [Mean(size), float(size)],
    "ReduceMax": lambda size: ["largest"],
    "ReduceSumSquare": lambda size: [Activation("square"), Mean(size), float(size)],
    "ReduceL2": lambda size: [Activation("square"), Mean(size), float(size), Power(0.5)],
    "ReduceLogSumExp": lambda size: [Activation("exp"), Mean(size), float(size), "log"],
}
REDUCTIONS = tuple(_REDUCTIONS)
